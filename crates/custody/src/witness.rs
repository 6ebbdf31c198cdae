//! What an agent writes on its witness connection: the hashes of its session's public keys.
//!
//! Why there is such a connection is told in the head of `attest::witness`; here is only the message, of a fixed length.

use crate::codec::sha256;

/// What the message begins with: its purpose and its version.
const MAGIC: &[u8; 16] = b"tacit/witness/1\n";

/// Length of the message.
pub const WITNESS_BYTES: usize = MAGIC.len() + 32 + 32;

/// Added to the path of the workload socket, for the witness connections.
pub const WITNESS_SUFFIX: &str = ".witness";

/// Hashes of the public keys of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WitnessedKeys {
    p256: [u8; 32],
    /// All zero without such a key: no input is known whose hash that is.
    rsa: [u8; 32],
}

impl WitnessedKeys {
    /// Of a session with these public keys, encoded as in `OpenSession`; `rsa` is empty when there is none.
    #[must_use]
    pub fn of(p256: &[u8], rsa: &[u8]) -> Self {
        let rsa = match rsa {
            [] => [0; 32],
            der => sha256(der),
        };
        Self {
            p256: sha256(p256),
            rsa,
        }
    }

    /// The message that an agent writes.
    #[must_use]
    pub fn message(&self) -> [u8; WITNESS_BYTES] {
        let mut message = [0; WITNESS_BYTES];
        message[..16].copy_from_slice(MAGIC);
        message[16..48].copy_from_slice(&self.p256);
        message[48..].copy_from_slice(&self.rsa);
        message
    }

    /// From such a message, and from nothing longer, shorter or other.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let rest = message.strip_prefix(MAGIC)?;
        let (p256, rsa) = rest.split_at_checked(32)?;
        Some(Self {
            p256: p256.try_into().ok()?,
            rsa: rsa.try_into().ok()?,
        })
    }

    /// Whether this public key, in either encoding, is one of the session's.
    #[must_use]
    pub fn covers(&self, public: &[u8]) -> bool {
        let hash = sha256(public);
        hash == self.p256 || hash == self.rsa
    }
}
