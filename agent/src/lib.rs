//! `tacit-agent`, the sidecar: takes an app's request on localhost and sends it on with a provider key that the app never sees.
//!
//! Top to bottom: [`listen`] reads heads through the gate in [`http1`], [`pipeline`] tells the story of one request, [`route`] knows where it
//! goes, [`keys`] has the leases, [`inject`] writes the head with the key into it, [`upstream`] holds the connections that key may use, and
//! [`relay`] moves the bytes. It must never send a request bare, never send a key anywhere but to the origin in its sealed header, and never
//! link the HSM.
#![forbid(unsafe_code)]

pub mod agent;
pub mod body;
pub mod clock;
pub mod config;
pub mod echo;
pub mod hardening;
pub mod http1;
pub mod inject;
pub mod keys;
pub mod listen;
pub mod metrics;
pub mod mock;
pub mod pipeline;
pub mod policy;
pub mod probe;
pub mod relay;
pub mod respond;
pub mod route;
pub mod settle;
pub mod sieve;
pub mod targets;
pub mod trust_roots;
pub mod upstream;
pub mod usage;
pub mod ws;
