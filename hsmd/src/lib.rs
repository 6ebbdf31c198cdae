//! `hsmd`: drives the HSM tokens and releases shares, re-wrapped, to agents that may have them.
//!
//! The daemon forwards ciphertext. It never holds a share, a data key or a provider key: nothing in this crate calls
//! `expose()`, and no function of its rooms returns anything that could be exposed. It decides who may ask
//! ([`policy`]), has custodians do the work ([`custodians`]), keeps authenticated records ([`ledger`]), and writes down
//! what it did before it answers ([`audit`]).
#![forbid(unsafe_code)]

pub mod agents;
pub mod audit;
mod believe;
pub mod clock;
pub mod config;
pub mod custodians;
pub mod daemon;
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
pub mod refusal;
pub mod refused;
pub mod run;
pub mod service;
pub mod socket;
pub mod store;
pub mod verify;

/// 32 random bytes: a challenge that nobody has seen.
pub fn random_challenge() -> [u8; 32] {
    let mut challenge = [0; 32];
    aws_lc_rs::rand::fill(&mut challenge)
        .expect("aws-lc's generator does not fail once it is seeded");
    challenge
}

/// 16 random bytes: ids of sessions and leases.
pub fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).expect("aws-lc's generator does not fail once it is seeded");
    id
}
