//! Object templates, exactly as in DESIGN.md section 3, and what is read back of them.

use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};

use crate::token::{Kind, Resident};

/// DER of the OID of P-256 (1.2.840.10045.3.1.7).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Modulus of the RSA seal key: these live for years.
const RSA_BITS: u64 = 3072;
/// A share record.
pub(super) const SHARE_LEN: u64 = 64;

pub(super) fn ulong(value: u64) -> cryptoki::types::Ulong {
    value.into()
}

/// What every resident secret object has.
fn always(label: &str, id: &[u8; 16], mechanism: MechanismType) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::AllowedMechanisms(vec![mechanism]),
    ]
}

/// The private half of a resident key.
pub(super) fn private(key: Resident, id: &[u8; 16]) -> Vec<Attribute> {
    let (mechanism, usage) = match key {
        Resident::Seal | Resident::Transport => (MechanismType::ECDH1_DERIVE, [true, false, false]),
        Resident::RsaSeal => (MechanismType::RSA_PKCS_OAEP, [false, true, false]),
        Resident::SignDescriptor | Resident::SignStatement | Resident::SignCheckpoint => {
            (MechanismType::ECDSA, [false, false, true])
        }
    };
    let [derive, unwrap, sign] = usage;
    let mut template = always(key.label(), id, mechanism);
    template.extend([
        Attribute::Derive(derive),
        Attribute::Unwrap(unwrap),
        Attribute::Sign(sign),
        Attribute::Decrypt(false),
    ]);
    template
}

/// The public half: for reading only.
pub(super) fn public(key: Resident, id: &[u8; 16]) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(key.label().as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Encrypt(false),
        Attribute::Wrap(false),
        Attribute::Verify(false),
    ];
    match key {
        Resident::RsaSeal => {
            template.extend([
                Attribute::ModulusBits(ulong(RSA_BITS)),
                Attribute::PublicExponent(vec![1, 0, 1]),
            ]);
        }
        _ => template.push(Attribute::EcParams(P256.to_vec())),
    }
    template
}

/// A compartment's KEK.
pub(super) fn kek(label: &str, id: &[u8; 16]) -> Vec<Attribute> {
    let mut template = always(label, id, MechanismType::AES_KEY_WRAP);
    template.extend([
        Attribute::ValueLen(ulong(32)),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Derive(false),
    ]);
    template
}

/// The MAC object.
pub(super) fn mac(label: &str, id: &[u8; 16]) -> Vec<Attribute> {
    let mut template = always(label, id, MechanismType::SHA256_HMAC);
    template.extend([
        Attribute::ValueLen(ulong(32)),
        Attribute::Sign(true),
        Attribute::Verify(true),
        Attribute::Derive(false),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
    ]);
    template
}

/// An unwrapped share: it signs (HMAC) and can be wrapped again; nothing else, and its value cannot be read.
pub(super) fn share() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(true),
        Attribute::Sign(true),
        Attribute::Verify(false),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ]
}

/// The agreed secret on its way to a session key (`null-cbc`): derives, nothing else.
pub(super) fn agreed() -> Vec<Attribute> {
    aes_session(false, true)
}

/// A session key: wraps and unwraps, nothing else.
pub(super) fn session_key() -> Vec<Attribute> {
    aes_session(true, false)
}

fn aes_session(wraps: bool, derives: bool) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::ValueLen(ulong(32)),
        Attribute::Wrap(wraps),
        Attribute::Unwrap(wraps),
        Attribute::Derive(derives),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
    ]
}

/// An agent's RSA public key for one session.
pub(super) fn agent_key(modulus: Vec<u8>, exponent: Vec<u8>) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Token(false),
        Attribute::Private(false),
        Attribute::Wrap(true),
        Attribute::Encrypt(false),
        Attribute::Verify(false),
        Attribute::Modulus(modulus),
        Attribute::PublicExponent(exponent),
    ]
}

/// Which attributes an object must report, beside its value being unreadable.
pub(super) fn expected(kind: Kind) -> Vec<Attribute> {
    let mut expected = match kind {
        Kind::Share => vec![
            Attribute::Extractable(true),
            Attribute::Sign(true),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
        ],
        Kind::SessionKey => {
            vec![
                Attribute::Extractable(false),
                Attribute::Sign(false),
                Attribute::Wrap(true),
                Attribute::Unwrap(true),
            ]
        }
    };
    expected.extend([
        Attribute::Sensitive(true),
        Attribute::Token(false),
        Attribute::Derive(false),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
    ]);
    expected
}

/// Which attributes a resident private or secret key must report.
pub(super) fn resident() -> Vec<Attribute> {
    vec![
        Attribute::Sensitive(true),
        Attribute::AlwaysSensitive(true),
        Attribute::Extractable(false),
        Attribute::NeverExtractable(true),
        Attribute::Local(true),
        Attribute::Modifiable(false),
        Attribute::Decrypt(false),
    ]
}

/// The types of these attributes.
pub(super) fn types(attributes: &[Attribute]) -> Vec<AttributeType> {
    attributes.iter().map(Attribute::attribute_type).collect()
}
