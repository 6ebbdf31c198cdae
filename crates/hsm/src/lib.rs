//! Custodians: the token process, its protocol, PKCS#11, and the client that the daemon holds.
//!
//! One process per custodian owns the vendor's module (a policy kernel decides, PKCS#11 obeys); the daemon talks to it through
//! [`client::TokenClient`]. Nothing in this crate logs, returns or keeps a share, a data key or a provider key in clear: what
//! passes through is ciphertext, MACs, names and public keys. It is the only room that names `cryptoki`. One block of
//! `pkcs11/initialise.rs` is unsafe: NSS takes its initialisation string by a raw pointer and in no other way.
#![deny(unsafe_code)]

pub mod client;
pub mod config;
pub mod confinement;
pub mod error;
pub mod exit;
pub mod fake;
pub mod fips;
pub mod kernel;
mod link;
pub mod listen;
mod passing;
mod peer;
pub mod pin;
pub mod pkcs11;
pub mod process;
pub mod revoked;
pub mod snapshot;
pub mod state;
mod supervisor;
pub mod token;
pub mod wire;

pub use client::TokenClient;
pub use config::TokenConfig;
pub use error::{ErrorClass, HsmError, Result};
pub use link::confinement_of_parent;
pub use snapshot::{Health, Snapshot};
