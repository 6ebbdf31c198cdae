//! The crate against its specification: custody, sealing, opening, formats and trust, without looking at its inside.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests look at secrets and may panic"
)]

mod canonical;
mod combining;
mod delivery;
mod header_bits;
mod provenance;
mod published;
mod receipts;
mod secrets;
mod statements;
mod support;
mod trust_file;
mod vectors;
