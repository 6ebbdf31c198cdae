//! The operator's signing key: who vouches that a key was sealed by one of us.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rand_core::CryptoRng;
use secret::Secret;

use crate::codec::FormatError;

/// An Ed25519 public key (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SealerKey([u8; 32]);

impl SealerKey {
    /// From its 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From 64 hex digits.
    ///
    /// # Errors
    /// [`FormatError::Field`].
    pub fn from_hex(text: &str) -> Result<Self, FormatError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| FormatError::Field {
            what: "sealer key",
            field: "digits",
            rule: "are not 64 hex digits",
        })?;
        Ok(Self(bytes))
    }

    /// Whether `signature` over `message` verifies.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Display for SealerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SealerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Something that signs for the operator: a file, ssh-agent, a card. The private key does not cross this seam.
pub trait Sealer {
    /// The public key that trust files pin.
    fn public(&self) -> SealerKey;

    /// Signs `message` with Ed25519.
    ///
    /// # Errors
    /// What the holder of the key said, in words for the operator.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], String>;
}

/// A sealer whose seed came from a file.
pub struct FileSealer(Ed25519KeyPair);

impl FileSealer {
    /// Draws a seed for a new key; the caller writes it to a file of mode 0600.
    pub fn generate_seed(random: &mut impl CryptoRng) -> Secret<[u8; 32]> {
        let mut seed = Secret::<[u8; 32]>::zeroed();
        #[expect(clippy::disallowed_methods, reason = "fills the seed in place")]
        random.fill_bytes(seed.expose_mut());
        seed
    }

    /// The key of a seed (RFC 8032, 5.1.5).
    ///
    /// # Errors
    /// [`FormatError::Field`] when aws-lc refuses the seed.
    pub fn from_seed(seed: &Secret<[u8; 32]>) -> Result<Self, FormatError> {
        #[expect(clippy::disallowed_methods, reason = "loads the sealer's signing key")]
        let seed = seed.expose();
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| FormatError::Field {
            what: "sealer key",
            field: "seed",
            rule: "is refused",
        })?;
        Ok(Self(pair))
    }
}

impl Sealer for FileSealer {
    fn public(&self) -> SealerKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        SealerKey(bytes)
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], String> {
        let mut out = [0; 64];
        out.copy_from_slice(self.0.sign(message).as_ref());
        Ok(out)
    }
}

impl fmt::Debug for FileSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileSealer").field(&self.public()).finish()
    }
}
