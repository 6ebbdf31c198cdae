//! How a provider key is held: formats and cryptography, pure.
//!
//! A key is encrypted under a random data key (DEK); the DEK is split t-of-n over GF(2^8); each share is sealed to one
//! custodian (an HSM token). [`mod@seal`] does that where the operator is; the token process ingests and re-wraps shares;
//! an agent that holds t of them, delivered to its own session key, combines and opens with [`open`].
//!
//! Nothing here touches a file, a socket, a clock or a source of randomness: randomness comes in as an argument. Every
//! structure is canonical (one value, one encoding), starts with a magic and a format byte, and is parsed strictly.
//! Nothing here logs. What is secret is a [`secret::Secret`] or lies in a buffer that the caller gave.
#![forbid(unsafe_code)]

pub mod backup;
mod codec;
pub mod combine;
pub mod dek;
pub mod descriptor;
pub mod gf256;
pub mod header;
pub mod manifest;
pub mod names;
pub mod open;
pub mod p256;
pub mod random;
pub mod receipt;
pub mod record;
pub mod row;
pub mod rsa;
pub mod seal;
pub mod sealed;
pub mod sealer;
pub mod session;
pub mod share;
pub mod statement;
pub mod stored;
pub mod storekey;
pub mod trust;
pub mod witness;

pub use codec::{FormatError, Sha256, sha256};
pub use descriptor::{Descriptor, Fingerprint, Kdf, OaepHash, Profile, SignedDescriptor};
pub use header::{Header, Suite};
pub use manifest::{Manifest, ManifestEntry};
pub use names::{CustodianId, KeyId, NameError, Origin, OriginError, Upstream};
pub use random::SystemRandom;
pub use receipt::Receipt;
pub use row::{RowIdentity, record_mac_message};
pub use seal::{SealError, SealRequest, seal};
pub use sealed::SealedKey;
pub use sealer::{FileSealer, Sealer, SealerKey};
pub use share::{CheckValue, ShareRecord};
pub use statement::Statement;
pub use trust::Trust;

/// Fewest shares that open a key: one token alone must never be enough.
pub const THRESHOLD_MIN: u8 = 2;

/// Most custodians of one key: the combiner's work and the header stay small, and no operator runs more tokens.
pub const CUSTODIANS_MAX: u8 = 16;
