//! Who is asking: what the kernel and Kubernetes say of a peer, and the rules that make a caller of it.
//!
//! Three attestors, which an operator may require together:
//!
//! * `unix` ([`peer`]): user, group, process and systemd unit of whoever connected, held by a pidfd from the first moment, so
//!   that a process id that was used again, or a socket that was inherited, is noticed;
//! * `k8s-cgroup` ([`cgroup`], [`pods`]): the pod and the container that the process runs in, from `/proc/PID/cgroup`, which only
//!   the kernel writes, and the image that the kubelet started there;
//! * `k8s-token` ([`token`]): a service account token that the API server signed for us, for that pod, a short while ago.
//!
//! [`examine`] puts them together and gives [`Facts`]; a [`policy::Policy`] says what those facts are good for, and no match means no.
//! The daemon and the token process ask the same questions, each by itself: the latter believes a peer's own socket
//! ([`witness`]) and the API server's signature, and nothing that the daemon claims.
//!
//! Reading the kernel is one small room ([`peer`]); everything else judges text that it is given, and is fuzzed. Nothing here ever
//! reads `mountinfo`, which a process can forge for itself, and nothing here opens a network connection.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod facts;
pub mod gate;
pub mod peer;
pub mod pods;
pub mod policy;
mod proc;
pub mod refused;
pub mod replay;
pub mod requirements;
#[cfg(test)]
mod testing;
pub mod token;
pub mod witness;

pub use facts::{Facts, examine};
pub use peer::{OldKernel, Peer, ProcessId};
pub use policy::Policy;
pub use refused::Refused;
pub use requirements::{Attestor, Requirements};
