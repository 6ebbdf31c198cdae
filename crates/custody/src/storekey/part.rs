//! Parts of the store's key: as they rest, one per custodian, and in clear, while they are wrapped or combined.

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use secret::Secret;

use super::{FORMAT, NONCE_BYTES, StoreKeyError, TAG_BYTES};
use crate::CUSTODIANS_MAX;
use crate::codec::{FormatError, Reader, Writer};
use crate::descriptor::Fingerprint;
use crate::gf256;

/// Fewest parts that make a store's key: a daemon that is a part of several may drive one token alone. Provider keys never come down to one.
pub(super) const STORE_THRESHOLD_MIN: u8 = 1;

const PART: &str = "part of a store key";
const PART_MAGIC: [u8; 4] = *b"TCSK";

/// One dealt part in clear: it exists while it is wrapped or combined.
#[derive(Debug)]
pub struct Part {
    /// Its index, from 1.
    pub x: u8,
    pub(super) y: Secret<[u8; 32]>,
}

/// One custodian's part as it rests in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedPart {
    /// Which key: they are numbered from 1.
    pub epoch: u32,
    /// How many parts it takes.
    pub threshold: u8,
    /// The part's index.
    pub x: u8,
    /// What the whole key commits to.
    pub commitment: [u8; 32],
    /// Whose it is.
    pub custodian: Fingerprint,
    /// What the custodian computes the part's key from.
    pub salt: [u8; 32],
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) tag: [u8; TAG_BYTES],
    pub(super) ciphertext: [u8; 32],
}

impl WrappedPart {
    pub(super) fn head(&self) -> Writer {
        let mut out = Writer::new(PART_MAGIC, FORMAT);
        out.u32(self.epoch)
            .u8(self.threshold)
            .u8(self.x)
            .fixed(&self.commitment)
            .fixed(self.custodian.as_bytes())
            .fixed(&self.salt);
        out
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        self.head()
            .fixed(&self.nonce)
            .fixed(&self.tag)
            .fixed(&self.ciphertext)
            .finish()
    }

    /// Parses strictly; nothing is authenticated yet.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(PART, PART_MAGIC, FORMAT, bytes)?;
        let part = Self {
            epoch: from.u32()?,
            threshold: from.u8()?,
            x: from.u8()?,
            commitment: from.array()?,
            custodian: Fingerprint::new(from.array()?),
            salt: from.array()?,
            nonce: from.array()?,
            tag: from.array()?,
            ciphertext: from.array()?,
        };
        if part.epoch == 0 {
            return Err(from.field("epoch", "is 0"));
        }
        if !(1..=CUSTODIANS_MAX).contains(&part.x) {
            return Err(from.field("x", "is not 1 to 16"));
        }
        if !(STORE_THRESHOLD_MIN..=CUSTODIANS_MAX).contains(&part.threshold) {
            return Err(from.field("threshold", "is not 2 to 16"));
        }
        from.end()?;
        Ok(part)
    }

    /// Opens the part with the key that its custodian computed from the salt.
    ///
    /// # Errors
    /// [`StoreKeyError::Part`].
    pub fn open(&self, part_key: &Secret<[u8; 32]>) -> Result<Part, StoreKeyError> {
        let mut y = Secret::<[u8; 32]>::zeroed();
        #[expect(clippy::disallowed_methods, reason = "opens the part in place")]
        let (key, out) = (part_key.expose(), y.expose_mut());
        out.copy_from_slice(&self.ciphertext);
        Aes256GcmSiv::new(key.into())
            .decrypt_inout_detached(
                &Nonce::from(self.nonce),
                &self.head().finish(),
                out.as_mut_slice().into(),
                &Tag::from(self.tag),
            )
            .map_err(|_| StoreKeyError::Part)?;
        Ok(Part { x: self.x, y })
    }
}

/// For whom a part is wrapped.
#[derive(Debug)]
pub struct Holder<'a> {
    /// The custodian's descriptor.
    pub custodian: Fingerprint,
    /// A fresh random salt.
    pub salt: [u8; 32],
    /// What the custodian computed from it.
    pub part_key: &'a Secret<[u8; 32]>,
}

/// Exactly t different parts of those given.
pub(super) fn enough<'a>(
    parts: &'a [&'a Part],
    threshold: u8,
) -> Result<&'a [&'a Part], StoreKeyError> {
    let needed = usize::from(threshold);
    let distinct = parts
        .iter()
        .enumerate()
        .all(|(at, part)| part.x != 0 && parts[..at].iter().all(|other| other.x != part.x));
    match parts.get(..needed) {
        Some(used) if distinct && threshold >= STORE_THRESHOLD_MIN => Ok(used),
        _ => Err(StoreKeyError::Count {
            found: parts.len(),
            needed: threshold,
        }),
    }
}

/// The value at `x` of the polynomials through the parts (Lagrange). The indices are public, the values are not:
/// [`gf256`] is constant time in both.
pub(super) fn interpolate(parts: &[&Part], x: u8, out: &mut [u8]) {
    out.fill(0);
    for (at, part) in parts.iter().enumerate() {
        let mut weight = 1;
        for (other, with) in parts.iter().enumerate() {
            if other != at {
                let quotient = gf256::multiply(x ^ with.x, gf256::invert(part.x ^ with.x));
                weight = gf256::multiply(weight, quotient);
            }
        }
        #[expect(clippy::disallowed_methods, reason = "combines the parts")]
        let y = part.y.expose();
        for (byte, share) in out.iter_mut().zip(y) {
            *byte ^= gf256::multiply(weight, *share);
        }
    }
}
