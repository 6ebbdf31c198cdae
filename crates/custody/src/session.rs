//! Wrapping keys of the `ecdh-kw` profile: what a token derives inside, and the same in software.
//!
//! The key binds purpose, custodian and session through the hash of a canonical context, so a record wrapped for one
//! purpose, token or session opens in no other.

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::digest;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::key_wrap::{AES_256 as KEK_256, AesKek, KeyWrap};
use secret::Secret;
use zeroize::Zeroizing;

use crate::codec::{Writer, sha256};
use crate::descriptor::Kdf;
use crate::names::CustodianId;
use crate::p256::{KeyPair, Point};

/// Length of a session id.
pub const SESSION_ID_BYTES: usize = 16;
/// A 64-byte record under AES-KW (RFC 3394).
pub const WRAPPED_RECORD_BYTES: usize = 72;

/// SHA-256 of the context of a sealing: what goes into the derivation inside the token.
///
/// Names the custodian by id: the descriptor, which holds the key that is agreed with, is bound by that key itself.
pub fn seal_context(
    custodian: &CustodianId,
    header_hash: &[u8; 32],
    ephemeral: &Point,
) -> [u8; 32] {
    let mut out = Writer::domain("tacit/seal/v1");
    sha256(
        &out.text(custodian.as_str())
            .fixed(header_hash)
            .fixed(ephemeral.as_bytes())
            .finish(),
    )
}

/// SHA-256 of the context of a delivery to an agent's session.
pub fn deliver_context(
    custodian: &CustodianId,
    session: &[u8; SESSION_ID_BYTES],
    agent: &Point,
) -> [u8; 32] {
    let mut out = Writer::domain("tacit/deliver/v1");
    sha256(
        &out.text(custodian.as_str())
            .fixed(session)
            .fixed(agent.as_bytes())
            .finish(),
    )
}

/// An AES-256 key that wraps share records (AES-KW, RFC 3394).
pub struct WrappingKey(Secret<[u8; 32]>);

impl WrappingKey {
    /// Agrees with `peer` and derives as the token of that profile does.
    pub fn derive(own: &KeyPair, peer: &Point, kdf: Kdf, context: &[u8; 32]) -> Self {
        Self::from_shared(&own.agree(peer), kdf, context)
    }

    /// From the shared x-coordinate Z.
    pub fn from_shared(shared: &Secret<[u8; 32]>, kdf: Kdf, context: &[u8; 32]) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "derives the wrapping key from the agreed secret"
        )]
        let shared = shared.expose();
        let mut key = Secret::<[u8; 32]>::zeroed();
        #[expect(clippy::disallowed_methods, reason = "fills the wrapping key in place")]
        let out = key.expose_mut();
        match kdf {
            Kdf::NullCbc => {
                out.copy_from_slice(context);
                let cipher = UnboundCipherKey::new(&AES_256, shared).and_then(EncryptingKey::cbc);
                let iv = EncryptionContext::Iv128(FixedLength::from([0; 16]));
                cipher
                    .and_then(|cipher| cipher.less_safe_encrypt(out, iv))
                    .expect("AES-256-CBC of two whole blocks with a 32-byte key cannot fail");
            }
            Kdf::X963Sha256 => {
                let mut input = Zeroizing::new([0u8; 68]);
                input[..32].copy_from_slice(shared);
                input[32..36].copy_from_slice(&1u32.to_be_bytes());
                input[36..].copy_from_slice(context);
                out.copy_from_slice(digest::digest(&digest::SHA256, input.as_ref()).as_ref());
            }
        }
        Self(key)
    }

    /// Wraps a 64-byte record.
    pub fn wrap(&self, record: &Secret<[u8; 64]>) -> [u8; WRAPPED_RECORD_BYTES] {
        let mut out = [0; WRAPPED_RECORD_BYTES];
        #[expect(clippy::disallowed_methods, reason = "wraps the record")]
        let record = record.expose();
        self.kek()
            .wrap(record, &mut out)
            .expect("64 bytes are a whole number of AES-KW blocks");
        out
    }

    /// Unwraps to a 64-byte record, or nothing when the key or the ciphertext is another.
    pub fn unwrap(&self, wrapped: &[u8]) -> Option<Secret<[u8; 64]>> {
        if wrapped.len() != WRAPPED_RECORD_BYTES {
            return None;
        }
        let mut record = Secret::<[u8; 64]>::zeroed();
        #[expect(
            clippy::disallowed_methods,
            reason = "fills the opened record in place"
        )]
        let out = record.expose_mut();
        self.kek().unwrap(wrapped, out).ok()?;
        Some(record)
    }

    fn kek(&self) -> AesKek {
        #[expect(clippy::disallowed_methods, reason = "keys AES-KW")]
        let key = self.0.expose();
        AesKek::new(&KEK_256, key).expect("the key has 32 bytes")
    }
}

impl std::fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrappingKey(redacted)")
    }
}
