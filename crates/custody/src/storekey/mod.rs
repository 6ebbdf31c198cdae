//! The store's own key: what seals everything that the daemon's store holds, and how custodians keep it.
//!
//! The key is random and lies in a slot of the caller's locked arena. It is dealt t-of-n over GF(2^8), and each part rests
//! under a key that one custodian alone can compute: an HMAC of a random salt inside its token. Fewer than t tokens open
//! nothing, as with provider keys, and no part ever rests in clear. This key protects definitions and names; a provider key
//! is never under it alone.

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use aws_lc_rs::{hkdf, hmac};
use rand_core::CryptoRng;
use secret::{Arena, ArenaError, Secret, Slot};
use sharks::Sharks;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

mod part;

pub use part::{Holder, Part, WrappedPart};
use part::{STORE_THRESHOLD_MIN, enough, interpolate};

use crate::CUSTODIANS_MAX;
use crate::codec::{FormatError, Reader, Writer};

const ROW: &str = "sealed row";
const ROW_MAGIC: [u8; 4] = *b"TCSR";
const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Longest content of a sealed row: a record of [`crate::record::BODY_MAX_BYTES`] with its MACs, and the inventory of a
/// store of some hundred thousand records.
pub const ROW_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of the arena that one key takes.
pub const KEY_BYTES: usize = 32;

/// What a token computes its part's key from, under its MAC object. The token process adds the purpose, so that no caller
/// can have this value through the door for records, whose MACs rest in clear.
pub fn part_key_message(salt: &[u8; 32]) -> Vec<u8> {
    Writer::domain("tacit/mac/store-part/v1")
        .fixed(salt)
        .finish()
}

/// Why a key did not come out of its parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreKeyError {
    /// A part does not open under its custodian's key.
    #[error("the part of the store key does not open: it was changed, or is another token's")]
    Part,
    /// Fewer than t parts, or one twice.
    #[error("{found} different parts of the store key given, {needed} are needed")]
    Count {
        /// How many different ones were given.
        found: usize,
        /// How many it was dealt for.
        needed: u8,
    },
    /// The parts are of two keys, or combine to another one than they commit to.
    #[error("the parts of the store key do not fit together: one of them was put in later")]
    Commitment,
    /// t or n is out of range.
    #[error("a store key is dealt to 2 <= t <= n <= 16")]
    Threshold,
    /// There is no room for it.
    #[error("no locked memory for the store key: {0}")]
    Arena(String),
}

impl From<ArenaError> for StoreKeyError {
    fn from(error: ArenaError) -> Self {
        Self::Arena(error.to_string())
    }
}

/// A sealed row does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not of our format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Another row's content, another key, or changed bytes.
    #[error("a sealed row was changed or moved")]
    Changed,
}

/// The store's key, in locked memory.
#[derive(Debug)]
pub struct StoreKey {
    epoch: u32,
    key: Slot,
}

impl StoreKey {
    /// Draws a new one.
    ///
    /// # Errors
    /// [`StoreKeyError::Arena`].
    pub fn generate(
        epoch: u32,
        arena: &Arena,
        random: &mut impl CryptoRng,
    ) -> Result<Self, StoreKeyError> {
        let mut key = arena.slot(KEY_BYTES)?;
        #[expect(clippy::disallowed_methods, reason = "fills the new key in place")]
        random.fill_bytes(key.expose_mut());
        Ok(Self { epoch, key })
    }

    /// Its number.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    fn expand(&self, info: &str) -> Secret<[u8; 32]> {
        #[expect(clippy::disallowed_methods, reason = "derives from the store key")]
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(self.key.expose());
        let mut out = Secret::<[u8; 32]>::zeroed();
        #[expect(clippy::disallowed_methods, reason = "fills the derived key in place")]
        key.expand(&[info.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(out.expose_mut()))
            .expect("32 bytes is one block of HKDF-SHA-256");
        out
    }

    /// The public commitment that stands in each wrapped part.
    pub fn commitment(&self) -> [u8; 32] {
        let commitment = self.expand("tacit/store/commit/v1");
        #[expect(clippy::disallowed_methods, reason = "public: HKDF hides the key")]
        let bytes = *commitment.expose();
        bytes
    }

    /// Deals the key to n custodians; any t of the parts make it again.
    ///
    /// # Errors
    /// [`StoreKeyError::Threshold`].
    pub fn deal(
        &self,
        threshold: u8,
        count: usize,
        random: &mut impl CryptoRng,
    ) -> Result<Vec<Part>, StoreKeyError> {
        if threshold < STORE_THRESHOLD_MIN
            || usize::from(threshold) > count
            || count > usize::from(CUSTODIANS_MAX)
        {
            return Err(StoreKeyError::Threshold);
        }
        #[expect(clippy::disallowed_methods, reason = "splits the key into parts")]
        let dealer = Sharks(threshold).dealer_rng(self.key.expose(), random);
        let part = |share: sharks::Share| {
            let mut bytes: Vec<u8> = (&share).into();
            let mut y = Secret::<[u8; 32]>::zeroed();
            #[expect(
                clippy::disallowed_methods,
                reason = "moves the dealt part into its box"
            )]
            y.expose_mut().copy_from_slice(&bytes[1..]);
            let x = bytes[0];
            bytes.zeroize();
            Part { x, y }
        };
        Ok(dealer.take(count).map(part).collect())
    }

    /// Wraps one part for its custodian.
    pub fn wrap(
        &self,
        threshold: u8,
        part: &Part,
        holder: &Holder<'_>,
        random: &mut impl CryptoRng,
    ) -> WrappedPart {
        let mut nonce = [0; NONCE_BYTES];
        random.fill_bytes(&mut nonce);
        let mut wrapped = WrappedPart {
            epoch: self.epoch,
            threshold,
            x: part.x,
            commitment: self.commitment(),
            custodian: holder.custodian,
            salt: holder.salt,
            nonce,
            tag: [0; TAG_BYTES],
            ciphertext: [0; 32],
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "wraps the part under its custodian's key"
        )]
        let (key, y) = (holder.part_key.expose(), part.y.expose());
        let mut buffer = zeroize::Zeroizing::new(*y);
        let tag = Aes256GcmSiv::new(key.into())
            .encrypt_inout_detached(
                &Nonce::from(nonce),
                &wrapped.head().finish(),
                buffer.as_mut_slice().into(),
            )
            .expect("32 bytes are far below RFC 8452's limits");
        wrapped.tag = tag.into();
        wrapped.ciphertext = *buffer;
        wrapped
    }

    /// The key from t opened parts, each beside what it was wrapped as.
    ///
    /// # Errors
    /// [`StoreKeyError`].
    pub fn combine(parts: &[(&WrappedPart, Part)], arena: &Arena) -> Result<Self, StoreKeyError> {
        let (first, _) = parts.first().ok_or(StoreKeyError::Count {
            found: 0,
            needed: STORE_THRESHOLD_MIN,
        })?;
        let same = |one: &WrappedPart| {
            (one.epoch, one.threshold, one.commitment)
                == (first.epoch, first.threshold, first.commitment)
        };
        if !parts.iter().all(|(wrapped, _)| same(wrapped)) {
            return Err(StoreKeyError::Commitment);
        }
        let opened: Vec<&Part> = parts.iter().map(|(_, part)| part).collect();
        let used = enough(&opened, first.threshold)?;
        let mut key = arena.slot(KEY_BYTES)?;
        #[expect(clippy::disallowed_methods, reason = "the key is made in place")]
        interpolate(used, 0, key.expose_mut());
        let made = Self {
            epoch: first.epoch,
            key,
        };
        if bool::from(made.commitment().ct_eq(&first.commitment)) {
            Ok(made)
        } else {
            Err(StoreKeyError::Commitment)
        }
    }

    /// Another part of the same deal, for a custodian that has none yet.
    ///
    /// # Errors
    /// [`StoreKeyError`].
    pub fn another_part(threshold: u8, parts: &[Part], x: u8) -> Result<Part, StoreKeyError> {
        let opened: Vec<&Part> = parts.iter().collect();
        let used = enough(&opened, threshold)?;
        let mut y = Secret::<[u8; 32]>::zeroed();
        #[expect(clippy::disallowed_methods, reason = "the part is made in place")]
        interpolate(used, x, y.expose_mut());
        Ok(Part { x, y })
    }

    /// A row's name: says nothing of what it names, and is the same for the same row under this key.
    pub fn name(&self, area: &str, id: &[u8]) -> [u8; 32] {
        let key = self.expand("tacit/store/name/v1");
        #[expect(clippy::disallowed_methods, reason = "keys the names of rows")]
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        let message = Writer::domain("tacit/store/row-name/v1")
            .text(area)
            .bytes(id)
            .finish();
        let mut name = [0; 32];
        name.copy_from_slice(hmac::sign(&key, &message).as_ref());
        name
    }

    fn cipher(&self) -> Aes256GcmSiv {
        let key = self.expand("tacit/store/enc/v1");
        #[expect(clippy::disallowed_methods, reason = "keys the rows' cipher")]
        let key: &[u8; 32] = key.expose();
        Aes256GcmSiv::new(key.into())
    }

    /// Seals a row's content to its place: area, name, key and format are associated data (AES-256-GCM-SIV, RFC 8452).
    pub fn seal_row(
        &self,
        area: &str,
        name: &[u8],
        content: &[u8],
        random: &mut impl CryptoRng,
    ) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        random.fill_bytes(&mut nonce);
        let mut buffer = content.to_vec();
        let tag = self
            .cipher()
            .encrypt_inout_detached(
                &Nonce::from(nonce),
                &place(self.epoch, area, name),
                buffer.as_mut_slice().into(),
            )
            .expect("rows are far below RFC 8452's limits");
        Writer::new(ROW_MAGIC, FORMAT)
            .u32(self.epoch)
            .fixed(&nonce)
            .fixed(&tag)
            .bytes(&buffer)
            .finish()
    }

    /// Opens a row of that place.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_row(&self, area: &str, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut from = Reader::new(ROW, ROW_MAGIC, FORMAT, sealed)?;
        let epoch = from.u32()?;
        let (nonce, tag) = (from.array::<NONCE_BYTES>()?, from.array::<TAG_BYTES>()?);
        let mut buffer = from.bytes("content", ROW_MAX_BYTES)?.to_vec();
        from.end()?;
        if epoch != self.epoch {
            return Err(OpenError::Changed);
        }
        self.cipher()
            .decrypt_inout_detached(
                &Nonce::from(nonce),
                &place(epoch, area, name),
                buffer.as_mut_slice().into(),
                &Tag::from(tag),
            )
            .map_err(|_| OpenError::Changed)?;
        Ok(buffer)
    }
}

/// The number of the key that a sealed row says it is under; a claim until the row has opened.
///
/// # Errors
/// [`FormatError`].
pub fn claimed_epoch(sealed: &[u8]) -> Result<u32, FormatError> {
    Reader::new(ROW, ROW_MAGIC, FORMAT, sealed)?.u32()
}

fn place(epoch: u32, area: &str, name: &[u8]) -> Vec<u8> {
    let mut out = Writer::domain("tacit/store/row/v1");
    out.fixed(&[FORMAT]).u32(epoch).text(area).bytes(name);
    out.finish()
}

#[cfg(test)]
mod tests;
