//! The combiner: exactly t checked records in, the committed DEK out. Constant time in everything secret.
//!
//! `sharks` accepts x = 0, repeated shares and t ≤ 1 silently. Here each rule is enforced, and each failure is its own
//! error that names the custodian.

use secret::Secret;
use subtle::ConstantTimeEq;

use crate::dek::Dek;
use crate::gf256;
use crate::header::Header;
use crate::manifest::Manifest;
use crate::share::{RecordFault, ShareRecord};
use crate::{CUSTODIANS_MAX, THRESHOLD_MIN};

/// Why no DEK came out. Custodians are named by their 1-based index in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CombineError {
    /// The header breaks 2 ≤ t ≤ n ≤ 16. Parsing refuses it too; here it would give away a key to one token, or to none.
    #[error("a threshold of {threshold} of {custodians} breaks 2 <= t <= n <= 16")]
    Threshold {
        /// The header's threshold.
        threshold: u8,
        /// How many custodians the header names.
        custodians: usize,
    },
    /// Not exactly t records.
    #[error("{found} shares given, the key needs exactly {needed}")]
    Count {
        /// How many were given.
        found: usize,
        /// The header's threshold.
        needed: u8,
    },
    /// The header has no custodian of that index.
    #[error("the header names no custodian {x}")]
    UnknownIndex {
        /// The index given.
        x: u8,
    },
    /// One custodian's share given twice.
    #[error("custodian {x} is given twice")]
    Duplicate {
        /// The index given twice.
        x: u8,
    },
    /// The record itself is wrong.
    #[error("the share of custodian {x} {fault}")]
    Record {
        /// Whose record.
        x: u8,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// The record's check value is not the one that the sealer signed.
    #[error("the share of custodian {x} is not the one that was sealed")]
    Check {
        /// Whose record.
        x: u8,
    },
    /// Every check value was right and yet the DEK is another: the sealer dealt inconsistent shares.
    #[error(
        "the shares combine to another data key than the header commits to: they were dealt wrongly"
    )]
    Commitment,
}

/// Combines exactly t records, each given with the index of the custodian that delivered it.
///
/// `header` and `manifest` must have been verified (see [`crate::open`]).
///
/// # Errors
/// [`CombineError`], one variant per rule.
pub fn combine(
    header: &Header,
    header_hash: &[u8; 32],
    manifest: &Manifest,
    records: &[(u8, ShareRecord)],
) -> Result<Dek, CombineError> {
    let (threshold, custodians) = (header.threshold, header.custodians.len());
    if threshold < THRESHOLD_MIN
        || usize::from(threshold) > custodians
        || custodians > usize::from(CUSTODIANS_MAX)
    {
        return Err(CombineError::Threshold {
            threshold,
            custodians,
        });
    }
    if records.len() != usize::from(threshold) {
        return Err(CombineError::Count {
            found: records.len(),
            needed: threshold,
        });
    }
    for (at, (x, record)) in records.iter().enumerate() {
        let x = *x;
        let entry = usize::from(x)
            .checked_sub(1)
            .and_then(|index| manifest.entries.get(index));
        let entry = entry
            .filter(|_| usize::from(x) <= custodians)
            .ok_or(CombineError::UnknownIndex { x })?;
        if records[..at].iter().any(|(other, _)| *other == x) {
            return Err(CombineError::Duplicate { x });
        }
        record
            .examine(x, header_hash)
            .map_err(|fault| CombineError::Record { x, fault })?;
        if !bool::from(record.check_value(header_hash).ct_eq(&entry.check)) {
            return Err(CombineError::Check { x });
        }
    }
    let dek = interpolate(records);
    if dek.matches(&header.commitment) {
        Ok(dek)
    } else {
        Err(CombineError::Commitment)
    }
}

/// Lagrange interpolation at 0. The indices are public, so only products with y must be constant time.
fn interpolate(records: &[(u8, ShareRecord)]) -> Dek {
    let mut secret = Secret::<[u8; 32]>::zeroed();
    #[expect(clippy::disallowed_methods, reason = "fills the data key in place")]
    let out = secret.expose_mut();
    for (x, record) in records {
        let others = records
            .iter()
            .map(|(other, _)| *other)
            .filter(|other| other != x);
        // Product of other / (other - x); subtraction is XOR in this field.
        let weight = others.fold(1, |weight, other| {
            gf256::multiply(weight, gf256::multiply(other, gf256::invert(other ^ x)))
        });
        for (byte, y) in out.iter_mut().zip(record.y()) {
            *byte ^= gf256::multiply(weight, *y);
        }
    }
    Dek::from_secret(secret)
}
