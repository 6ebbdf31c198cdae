//! The custodian descriptor: who a token is and all public keys that anybody ever uses with it.
//!
//! Operators compare its fingerprint over a second channel and pin it whole: swapping one public key inside it would
//! let an attacker receive shares.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::codec::{FormatError, Reader, Writer, sha256};
use crate::names::{CustodianId, KeyId};
use crate::p256::Point;
use crate::rsa::{RsaPublic, SPKI_MAX_BYTES};

const WHAT: &str = "custodian descriptor";
const MAGIC: [u8; 4] = *b"TCCD";
const FORMAT: u8 = 1;
const DOMAIN: &str = "tacit/descriptor/v1";
const POSSESSION: &str = "tacit/possession/v1";
const SIGNED_MAGIC: [u8; 4] = *b"TCSD";

/// Longest encoded descriptor: sixteen RSA-4096 seal keys.
pub const DESCRIPTOR_MAX_BYTES: usize = 16 * 1024;

/// SHA-256 of a whole descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// From its 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    /// Groups of four hex digits, for reading aloud over a second channel.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pair) in self.0.chunks(2).enumerate() {
            let gap = if at == 0 { "" } else { " " };
            write!(f, "{gap}{}", hex::encode(pair))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = FormatError;

    /// Hex, with or without the spaces of [`fmt::Display`].
    fn from_str(text: &str) -> Result<Self, FormatError> {
        let digits: String = text.split_whitespace().collect();
        let mut bytes = [0; 32];
        hex::decode_to_slice(&digits, &mut bytes).map_err(|_| FormatError::Field {
            what: "fingerprint",
            field: "digits",
            rule: "are not 64 hex digits",
        })?;
        Ok(Self(bytes))
    }
}

/// How a session key is derived from the ECDH secret (`ecdh-kw`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kdf {
    /// `CKD_NULL`, then `CKM_AES_CBC_ENCRYPT_DATA` over SHA-256(context): what SoftHSM offers.
    NullCbc,
    /// `CKD_SHA256_KDF` (ANSI X9.63) with SHA-256(context) as shared information.
    X963Sha256,
}

/// The hash of RSA-OAEP and its MGF1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OaepHash {
    /// All that SoftHSM offers. OAEP's security does not rest on SHA-1's collision resistance.
    Sha1,
    /// Where the token has it.
    Sha256,
}

/// How shares are sealed to a custodian and delivered from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// ECDH P-256 and AES key wrap.
    EcdhKw(Kdf),
    /// RSA-OAEP both ways.
    RsaOaep(OaepHash),
}

impl Profile {
    /// The name used in configuration and output.
    pub fn name(self) -> &'static str {
        match self {
            Profile::EcdhKw(_) => "ecdh-kw",
            Profile::RsaOaep(_) => "rsa-oaep",
        }
    }

    /// The mechanisms, for people: shown by `tacit trust show`.
    pub fn mechanisms(self) -> &'static str {
        match self {
            Profile::EcdhKw(Kdf::NullCbc) => {
                "ECDH1_DERIVE(NULL) + AES_CBC_ENCRYPT_DATA, AES_KEY_WRAP"
            }
            Profile::EcdhKw(Kdf::X963Sha256) => "ECDH1_DERIVE(SHA256_KDF), AES_KEY_WRAP",
            Profile::RsaOaep(OaepHash::Sha1) => "RSA_PKCS_OAEP(SHA-1)",
            Profile::RsaOaep(OaepHash::Sha256) => "RSA_PKCS_OAEP(SHA-256)",
        }
    }

    fn id(self) -> u8 {
        match self {
            Profile::EcdhKw(Kdf::NullCbc) => 0x11,
            Profile::EcdhKw(Kdf::X963Sha256) => 0x12,
            Profile::RsaOaep(OaepHash::Sha1) => 0x21,
            Profile::RsaOaep(OaepHash::Sha256) => 0x22,
        }
    }

    fn from_id(id: u8) -> Option<Self> {
        match id {
            0x11 => Some(Profile::EcdhKw(Kdf::NullCbc)),
            0x12 => Some(Profile::EcdhKw(Kdf::X963Sha256)),
            0x21 => Some(Profile::RsaOaep(OaepHash::Sha1)),
            0x22 => Some(Profile::RsaOaep(OaepHash::Sha256)),
            _ => None,
        }
    }
}

/// The key to which shares are sealed, in the form that the profile wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealKeys {
    /// One P-256 key to seal to, one to deliver from.
    Ecdh {
        /// Shares are sealed to this key.
        seal: Point,
        /// Sessions are agreed with this key.
        transport: Point,
    },
    /// One RSA key per compartment; the compartment `*` serves all that have no key of their own.
    Rsa {
        /// Pairs of compartment and key, sorted by compartment. Invariant: not empty.
        seal: Vec<(String, RsaPublic)>,
    },
}

/// Identity and public keys of one custodian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Id as in hsmd.toml.
    pub id: CustodianId,
    /// Serial number of the token.
    pub serial: String,
    /// Label of the token.
    pub label: String,
    /// Profile and mechanisms, found by running them.
    pub profile: Profile,
    /// Keys for shares. Invariant: of the kind that `profile` wants.
    pub seal: SealKeys,
    /// Verifies descriptors.
    pub sign_descriptor: Point,
    /// Verifies statements.
    pub sign_statement: Point,
    /// Verifies audit checkpoints.
    pub sign_checkpoint: Point,
}

impl Descriptor {
    /// The canonical encoding, to its last byte what the fingerprint covers.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(MAGIC, FORMAT);
        out.text(self.id.as_str())
            .text(&self.serial)
            .text(&self.label)
            .u8(self.profile.id());
        match &self.seal {
            SealKeys::Ecdh { seal, transport } => {
                out.fixed(seal.as_bytes()).fixed(transport.as_bytes());
            }
            SealKeys::Rsa { seal } => {
                out.u8(u8::try_from(seal.len())
                    .expect("at most 16 compartments: checked by the parser"));
                for (compartment, key) in seal {
                    out.text(compartment).bytes(key.as_der());
                }
            }
        }
        for key in [
            &self.sign_descriptor,
            &self.sign_statement,
            &self.sign_checkpoint,
        ] {
            out.fixed(key.as_bytes());
        }
        out.finish()
    }

    /// Parses strictly: every point on its curve, every key distinct in purpose.
    ///
    /// # Errors
    /// [`FormatError`] names the field and the rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(WHAT, MAGIC, FORMAT, bytes)?;
        let id = from
            .text("id", 128)?
            .parse()
            .map_err(|_| from.field("id", "breaks the rule for names"))?;
        let serial = from.text("serial", 64)?.to_owned();
        let label = from.text("label", 128)?.to_owned();
        for (field, text) in [("serial", &serial), ("label", &label)] {
            if !text.chars().all(shows_as_itself) {
                return Err(from.field(field, "has control or invisible characters"));
            }
        }
        let profile = Profile::from_id(from.u8()?)
            .ok_or_else(|| from.field("profile", "is not known to this build"))?;
        let point = |from: &mut Reader<'_>| Point::parse(from.take(crate::p256::POINT_BYTES)?);
        let seal = match profile {
            Profile::EcdhKw(_) => SealKeys::Ecdh {
                seal: point(&mut from)?,
                transport: point(&mut from)?,
            },
            Profile::RsaOaep(_) => read_rsa_keys(&mut from)?,
        };
        let (sign_descriptor, sign_statement, sign_checkpoint) =
            (point(&mut from)?, point(&mut from)?, point(&mut from)?);
        if sign_descriptor == sign_statement
            || sign_statement == sign_checkpoint
            || sign_descriptor == sign_checkpoint
        {
            return Err(from.field("signing keys", "serve two purposes"));
        }
        from.end()?;
        let descriptor = Self {
            id,
            serial,
            label,
            profile,
            seal,
            sign_descriptor,
            sign_statement,
            sign_checkpoint,
        };
        let keys = descriptor.keys();
        if keys
            .iter()
            .enumerate()
            .any(|(at, key)| keys[..at].contains(key))
        {
            return Err(FormatError::Field {
                what: WHAT,
                field: "keys",
                rule: "serve two purposes",
            });
        }
        Ok(descriptor)
    }

    /// Every public key, as bytes.
    fn keys(&self) -> Vec<&[u8]> {
        let signing: [&[u8]; 3] = [
            self.sign_descriptor.as_bytes(),
            self.sign_statement.as_bytes(),
            self.sign_checkpoint.as_bytes(),
        ];
        let mut keys = signing.to_vec();
        match &self.seal {
            SealKeys::Ecdh { seal, transport } => {
                keys.extend([&seal.as_bytes()[..], transport.as_bytes()]);
            }
            SealKeys::Rsa { seal } => keys.extend(seal.iter().map(|(_, key)| key.as_der())),
        }
        keys
    }

    /// Whether a key of this descriptor stands in `other`, too: then they are one token, whatever they are called.
    pub(crate) fn shares_a_key_with(&self, other: &Descriptor) -> bool {
        let others = other.keys();
        self.keys().iter().any(|key| others.contains(key))
    }

    /// SHA-256 of the encoding.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(sha256(&self.encode()))
    }

    /// What the token signs to vouch for its own descriptor.
    pub fn signing_message(&self) -> Vec<u8> {
        Writer::domain(DOMAIN).bytes(&self.encode()).finish()
    }

    /// Whether the token that answered `challenge` holds this descriptor's signing key now. A descriptor is public and
    /// can be repeated by anyone; this signature is fresh.
    pub fn verify_possession(&self, challenge: &[u8; 32], signature: &[u8]) -> bool {
        verify_p256(
            &self.sign_descriptor,
            &possession_message(challenge),
            signature,
        )
    }

    /// Field by field, what differs from `new`: name, old value, new value; for the error that shows a changed
    /// descriptor. Keys are shown as the first half of their SHA-256: 128 bits, which nobody can make collide with a
    /// pinned key, as one could with the first bytes of the key itself.
    pub fn differences(&self, new: &Descriptor) -> Vec<(&'static str, String, String)> {
        let hash = |bytes: &[u8]| hex::encode(&sha256(bytes)[..16]);
        let point = |key: &Point| hash(key.as_bytes());
        let fields = |one: &Descriptor| {
            let (seal, transport) = match &one.seal {
                SealKeys::Ecdh { seal, transport } => (point(seal), point(transport)),
                SealKeys::Rsa { seal } => {
                    let keys = seal
                        .iter()
                        .map(|(compartment, key)| format!("{compartment}: {}", hash(key.as_der())));
                    (keys.collect::<Vec<_>>().join(", "), "none".to_owned())
                }
            };
            vec![
                ("id", one.id.to_string()),
                ("serial", one.serial.clone()),
                ("label", one.label.clone()),
                ("profile", one.profile.name().to_owned()),
                ("mechanisms", one.profile.mechanisms().to_owned()),
                ("seal key", seal),
                ("transport key", transport),
                ("sign-descriptor key", point(&one.sign_descriptor)),
                ("sign-statement key", point(&one.sign_statement)),
                ("sign-checkpoint key", point(&one.sign_checkpoint)),
            ]
        };
        let pairs = fields(self).into_iter().zip(fields(new));
        pairs
            .filter(|(old, new)| old.1 != new.1)
            .map(|(old, new)| (old.0, old.1, new.1))
            .collect()
    }
}

/// What a token signs with its descriptor key to show that it holds it: a domain of its own, so that no challenge is ever
/// a descriptor.
pub fn possession_message(challenge: &[u8; 32]) -> Vec<u8> {
    Writer::domain(POSSESSION).fixed(challenge).finish()
}

/// Whether a person who reads `c` on a terminal sees exactly that: a label that could move the cursor, erase a line or
/// turn the direction of writing could make a foreign fingerprint look like the expected one.
fn shows_as_itself(c: char) -> bool {
    let invisible = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && !invisible
}

fn read_rsa_keys(from: &mut Reader<'_>) -> Result<SealKeys, FormatError> {
    let count = from.u8()?;
    if !(1..=16).contains(&count) {
        return Err(from.field("seal", "has no key, or more than 16"));
    }
    let mut seal: Vec<(String, RsaPublic)> = Vec::with_capacity(count.into());
    for _ in 0..count {
        let compartment = from.text("seal", 128)?.to_owned();
        if compartment != "*" && compartment.parse::<KeyId>().is_err() {
            return Err(from.field("seal", "has a compartment that breaks the rule for names"));
        }
        let key = RsaPublic::parse(from.bytes("seal", SPKI_MAX_BYTES)?)?;
        if seal.last().is_some_and(|(last, _)| *last >= compartment) {
            return Err(from.field("seal", "is not sorted by compartment"));
        }
        seal.push((compartment, key));
    }
    Ok(SealKeys::Rsa { seal })
}

/// A descriptor with the token's own signature over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDescriptor {
    /// What is signed.
    pub descriptor: Descriptor,
    /// ECDSA P-256 with SHA-256, r ‖ s, under `sign_descriptor`.
    pub signature: [u8; 64],
}

impl SignedDescriptor {
    /// The encoding that travels and is stored.
    pub fn encode(&self) -> Vec<u8> {
        Writer::new(SIGNED_MAGIC, FORMAT)
            .bytes(&self.descriptor.encode())
            .fixed(&self.signature)
            .finish()
    }

    /// Parses and verifies the token's signature: it proves possession of the signing key, not who the token is; that
    /// is what pinning is for.
    ///
    /// # Errors
    /// [`FormatError`], also when the signature does not verify.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(WHAT, SIGNED_MAGIC, FORMAT, bytes)?;
        let descriptor = Descriptor::parse(from.bytes("descriptor", DESCRIPTOR_MAX_BYTES)?)?;
        let signature = from.array()?;
        let message = descriptor.signing_message();
        if !verify_p256(&descriptor.sign_descriptor, &message, &signature) {
            return Err(from.field(
                "signature",
                "does not verify under the descriptor's own key",
            ));
        }
        from.end()?;
        Ok(Self {
            descriptor,
            signature,
        })
    }
}

/// Whether `signature` (r ‖ s) over `message` verifies under `key` (ECDSA P-256, SHA-256).
pub fn verify_p256(key: &Point, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.as_bytes())
        .verify(message, signature)
        .is_ok()
}
