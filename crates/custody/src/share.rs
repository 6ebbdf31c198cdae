//! The share record and its check value.
//!
//! `magic "TS" ‖ format ‖ x ‖ y[32] ‖ SHA-256(header)[..28]`: 64 bytes, so that it is one HMAC-SHA-256 key without
//! hashing, a whole number of AES-KW blocks, and fits every RSA-OAEP.

use aws_lc_rs::hmac;
use secret::Secret;
use subtle::ConstantTimeEq;

use crate::codec::Writer;

/// Length of a record in bytes.
pub const RECORD_BYTES: usize = 64;
const MAGIC: [u8; 2] = *b"TS";
const FORMAT: u8 = 1;

/// HMAC-SHA-256 under a share record.
pub type CheckValue = [u8; 32];

/// One share of a DEK, with its index and the header it belongs to.
#[derive(Debug)]
pub struct ShareRecord(Secret<[u8; RECORD_BYTES]>);

/// What is wrong with a record, before any secret is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// Not a share record at all.
    #[error("is not a share record")]
    Magic,
    /// Of a format that this build does not read.
    #[error("has a format that this build does not read")]
    Format,
    /// x = 0 would be the DEK itself; x differs from the custodian's index.
    #[error("carries another custodian's index")]
    Index,
    /// Dealt for another header.
    #[error("belongs to another key, version or generation")]
    Header,
}

impl ShareRecord {
    /// Builds the record of share (x, y).
    pub fn new(x: u8, y: &Secret<[u8; 32]>, header_hash: &[u8; 32]) -> Self {
        let mut record = Secret::<[u8; RECORD_BYTES]>::zeroed();
        #[expect(
            clippy::disallowed_methods,
            reason = "builds the record from its share"
        )]
        let (out, y) = (record.expose_mut(), y.expose());
        out[..2].copy_from_slice(&MAGIC);
        out[2] = FORMAT;
        out[3] = x;
        out[4..36].copy_from_slice(y);
        out[36..].copy_from_slice(&header_hash[..28]);
        Self(record)
    }

    /// Takes the 64 bytes as they came out of an unwrap; nothing is believed until [`ShareRecord::examine`].
    pub fn from_secret(bytes: Secret<[u8; RECORD_BYTES]>) -> Self {
        Self(bytes)
    }

    /// The 64 bytes, still wrapped in their type.
    pub fn as_secret(&self) -> &Secret<[u8; RECORD_BYTES]> {
        &self.0
    }

    /// Checks all that is not secret: kind, format, index and header.
    ///
    /// # Errors
    /// The first [`RecordFault`].
    pub fn examine(&self, x: u8, header_hash: &[u8; 32]) -> Result<(), RecordFault> {
        #[expect(
            clippy::disallowed_methods,
            reason = "reads the public fields of the record"
        )]
        let record = self.0.expose();
        if record[..2] != MAGIC {
            return Err(RecordFault::Magic);
        }
        if record[2] != FORMAT {
            return Err(RecordFault::Format);
        }
        if x == 0 || record[3] != x {
            return Err(RecordFault::Index);
        }
        if !bool::from(record[36..].ct_eq(&header_hash[..28])) {
            return Err(RecordFault::Header);
        }
        Ok(())
    }

    /// The share's y bytes, for the combiner alone.
    pub(crate) fn y(&self) -> &[u8] {
        #[expect(
            clippy::disallowed_methods,
            reason = "the combiner interpolates over y"
        )]
        let record = self.0.expose();
        &record[4..36]
    }

    /// HMAC-SHA-256 under this record, as a token computes it with the record as a generic secret.
    pub fn hmac(&self, message: &[u8]) -> [u8; 32] {
        #[expect(clippy::disallowed_methods, reason = "the record is the HMAC key")]
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose());
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&key, message).as_ref());
        out
    }

    /// The check value that the sealer signs and every holder can recompute.
    pub fn check_value(&self, header_hash: &[u8; 32]) -> CheckValue {
        self.hmac(&check_message(header_hash))
    }
}

/// What a token signs (HMAC) with the share as key to prove that it holds it: no challenge, so the sealer can
/// compute it beforehand.
pub fn check_message(header_hash: &[u8; 32]) -> Vec<u8> {
    Writer::domain("tacit/check/v1").fixed(header_hash).finish()
}

/// The same for one challenge of an operator's receipt.
pub fn answer_message(header_hash: &[u8; 32], challenge: &[u8; 32]) -> Vec<u8> {
    Writer::domain("tacit/receipt/v1")
        .fixed(header_hash)
        .fixed(challenge)
        .finish()
}
