//! `hsmd`: drives the HSM tokens and releases shares, re-wrapped, to agents that may have them.
//!
//! The daemon forwards ciphertext. It never holds a share, a data key or a provider key: nothing in this crate calls
//! `expose()`, and no function of its rooms returns anything that could be exposed. The one key that it does hold is that
//! of its own store ([`unlock`]), in locked memory. It decides who may ask
//! ([`policy`]), has custodians do the work ([`custodians`]), keeps authenticated records ([`ledger`]), and writes down
//! what it did before it answers ([`audit`]).
#![forbid(unsafe_code)]

pub mod agents;
pub mod attestation;
pub mod audit;
pub mod backup;
mod believe;
pub mod clock;
pub mod config;
pub mod custodians;
pub mod daemon;
pub mod definition;
pub mod hardening;
mod ingest;
pub mod init;
pub mod keys;
pub mod leases;
pub mod ledger;
pub mod metrics;
pub mod model;
pub mod peer;
pub mod policy;
pub mod present;
pub mod progress;
pub mod random;
pub mod refusal;
pub mod refused;
pub mod rekey;
pub mod restore;
pub mod run;
pub mod service;
pub mod socket;
pub mod store;
pub mod terms;
pub mod unlock;
pub mod verify;

/// 32 random bytes: a challenge that nobody has seen.
pub fn random_challenge() -> [u8; 32] {
    random()
}

/// 16 random bytes: ids of sessions and leases.
pub fn random_id() -> [u8; 16] {
    random()
}

/// From the kernel itself: see [`random::KernelRandom`].
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("Linux has getrandom, and waits until it is seeded");
    bytes
}
