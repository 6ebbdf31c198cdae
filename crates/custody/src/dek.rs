//! The data key, what is derived from it, and the envelope under it.

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use aws_lc_rs::hkdf;
use rand_core::CryptoRng;
use secret::Secret;
use subtle::ConstantTimeEq;

use crate::codec::{FormatError, Reader, Writer};

const WHAT: &str = "envelope";
const MAGIC: [u8; 4] = *b"TCEV";
const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Longest provider key, in bytes; Bedrock's bearer tokens are the longest known, at about 1,400.
pub const PLAINTEXT_MAX_BYTES: usize = 8 * 1024;
/// Longest encoded envelope.
pub const ENVELOPE_MAX_BYTES: usize = PLAINTEXT_MAX_BYTES + 64;

/// A random 256-bit data key; it encrypts exactly one envelope.
#[derive(Debug)]
pub struct Dek(Secret<[u8; 32]>);

/// The envelope did not open: another DEK, another header, or a changed ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the envelope does not open under this header: header or ciphertext was changed")]
pub struct EnvelopeChanged;

impl Dek {
    /// Draws a new one.
    pub fn generate(random: &mut impl CryptoRng) -> Self {
        let mut key = Secret::<[u8; 32]>::zeroed();
        #[expect(clippy::disallowed_methods, reason = "fills the new key in place")]
        random.fill_bytes(key.expose_mut());
        Self(key)
    }

    /// What the combiner found.
    pub(crate) fn from_secret(key: Secret<[u8; 32]>) -> Self {
        Self(key)
    }

    /// The bytes, to be dealt.
    pub(crate) fn as_secret(&self) -> &Secret<[u8; 32]> {
        &self.0
    }

    /// HKDF-SHA-256 (RFC 5869), empty salt: the DEK is uniformly random already.
    fn expand(&self, info: &str) -> Secret<[u8; 32]> {
        #[expect(clippy::disallowed_methods, reason = "derives from the data key")]
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(self.0.expose());
        let mut out = Secret::<[u8; 32]>::zeroed();
        #[expect(clippy::disallowed_methods, reason = "fills the derived key in place")]
        key.expand(&[info.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(out.expose_mut()))
            .expect("32 bytes is one block of HKDF-SHA-256");
        out
    }

    /// The public commitment that stands in the header.
    pub fn commitment(&self) -> [u8; 32] {
        let commitment = self.expand("tacit/commit/v1");
        #[expect(
            clippy::disallowed_methods,
            reason = "the commitment is public: HKDF hides the data key"
        )]
        let bytes = *commitment.expose();
        bytes
    }

    /// Whether this is the DEK that `commitment` commits to. Constant time.
    pub fn matches(&self, commitment: &[u8; 32]) -> bool {
        self.commitment().ct_eq(commitment).into()
    }

    fn cipher(&self) -> Aes256GcmSiv {
        let key = self.expand("tacit/enc/v1");
        #[expect(clippy::disallowed_methods, reason = "keys the envelope's cipher")]
        let key: &[u8; 32] = key.expose();
        Aes256GcmSiv::new(key.into())
    }

    /// Encrypts the provider key under this header (AES-256-GCM-SIV, RFC 8452; the header is associated data).
    pub fn seal_envelope(
        &self,
        header: &[u8],
        plaintext: &Secret<[u8]>,
        random: &mut impl CryptoRng,
    ) -> Vec<u8> {
        let mut nonce = [0u8; NONCE_BYTES];
        random.fill_bytes(&mut nonce);
        #[expect(clippy::disallowed_methods, reason = "encrypts the provider key")]
        let mut buffer = zeroize::Zeroizing::new(plaintext.expose().to_vec());
        let tag = self
            .cipher()
            .encrypt_inout_detached(&Nonce::from(nonce), header, buffer.as_mut_slice().into())
            .expect("plaintext and header are far below RFC 8452's limits");
        Writer::new(MAGIC, FORMAT)
            .fixed(&nonce)
            .fixed(&tag)
            .bytes(&buffer)
            .finish()
    }

    /// Decrypts into `out`, which must have exactly [`Envelope::plaintext_len`] bytes; wiped when it fails.
    ///
    /// # Errors
    /// [`EnvelopeChanged`].
    pub fn open_envelope(
        &self,
        header: &[u8],
        envelope: &Envelope<'_>,
        out: &mut [u8],
    ) -> Result<(), EnvelopeChanged> {
        if out.len() != envelope.ciphertext.len() {
            return Err(EnvelopeChanged);
        }
        out.copy_from_slice(envelope.ciphertext);
        let (nonce, tag) = (Nonce::from(envelope.nonce), Tag::from(envelope.tag));
        self.cipher()
            .decrypt_inout_detached(&nonce, header, out.into(), &tag)
            .map_err(|_| {
                out.fill(0);
                EnvelopeChanged
            })
    }
}

/// A parsed envelope.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    nonce: [u8; NONCE_BYTES],
    tag: [u8; TAG_BYTES],
    ciphertext: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Parses strictly; nothing is authenticated yet.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(WHAT, MAGIC, FORMAT, bytes)?;
        let envelope = Self {
            nonce: from.array()?,
            tag: from.array()?,
            ciphertext: from.bytes("ciphertext", PLAINTEXT_MAX_BYTES)?,
        };
        if envelope.ciphertext.is_empty() {
            return Err(from.field("ciphertext", "is empty"));
        }
        from.end()?;
        Ok(envelope)
    }

    /// Length of the provider key inside, in bytes.
    pub fn plaintext_len(&self) -> usize {
        self.ciphertext.len()
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    /// Does not compile when a dependency loses the feature that makes it wipe what it was keyed with. (polyval wipes
    /// under its feature too, and has no trait that says so.)
    #[test]
    fn the_cipher_under_the_envelope_wipes_its_keys() {
        fn wipes<T: ZeroizeOnDrop>() {}
        wipes::<aes::Aes256>();
        wipes::<ctr::CtrCore<aes::Aes256, ctr::flavors::Ctr32LE>>();
    }
}
