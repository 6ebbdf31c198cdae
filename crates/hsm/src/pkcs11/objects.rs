//! Object templates, exactly as in DESIGN.md section 3, and what is read back of them.

use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};

use crate::token::{Kind, Resident};

/// DER of the OID of P-256 (1.2.840.10045.3.1.7).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Modulus of the RSA seal key: these live for years.
pub(super) const RSA_BITS: u64 = 3072;
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

/// The private half of a resident key; `signature` is what a signing key is made for.
pub(super) fn private(key: Resident, id: &[u8; 16], signature: MechanismType) -> Vec<Attribute> {
    let (mechanism, usage) = match key {
        Resident::Seal | Resident::Transport => (MechanismType::ECDH1_DERIVE, [true, false, false]),
        Resident::RsaSeal => (MechanismType::RSA_PKCS_OAEP, [false, true, false]),
        Resident::SignDescriptor | Resident::SignStatement | Resident::SignCheckpoint => {
            (signature, [false, false, true])
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

/// The public half: for reading only. That of a signing key may verify, since modules sign and verify once to test a new pair.
pub(super) fn public(key: Resident, id: &[u8; 16]) -> Vec<Attribute> {
    let verifies = match key {
        Resident::SignDescriptor | Resident::SignStatement | Resident::SignCheckpoint => true,
        Resident::Seal | Resident::Transport | Resident::RsaSeal => false,
    };
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(key.label().as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Encrypt(false),
        Attribute::Wrap(false),
        Attribute::Verify(verifies),
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

/// A pair of EC keys that lives for one trial.
pub(super) fn trial_ec() -> (Vec<Attribute>, Vec<Attribute>) {
    let mut private = trial_private();
    private.extend([Attribute::Derive(true), Attribute::Sign(false)]);
    let public = vec![
        Attribute::Token(false),
        Attribute::Private(false),
        Attribute::EcParams(P256.to_vec()),
    ];
    (public, private)
}

/// A pair of RSA keys that lives for one trial.
pub(super) fn trial_rsa(bits: u64) -> (Vec<Attribute>, Vec<Attribute>) {
    let mut private = trial_private();
    private.extend([Attribute::Unwrap(true), Attribute::Decrypt(false)]);
    let public = vec![
        Attribute::Token(false),
        Attribute::Private(false),
        Attribute::Wrap(true),
        Attribute::ModulusBits(ulong(bits)),
        Attribute::PublicExponent(vec![1, 0, 1]),
    ];
    (public, private)
}

fn trial_private() -> Vec<Attribute> {
    vec![
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
    ]
}

/// A key that everybody knows, as sensitive as an import can be: to see what the module says of imported keys.
pub(super) fn worthless() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Value(vec![0x55; 32]),
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
        Kind::Agreed => {
            return vec![
                Attribute::Extractable(false),
                Attribute::Sensitive(true),
                Attribute::Token(false),
                Attribute::Derive(true),
                Attribute::Wrap(false),
                Attribute::Encrypt(false),
                Attribute::Decrypt(false),
            ];
        }
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

/// Which attributes a resident private or secret key must report: those that all have, and what this one is for.
pub(super) fn resident(label: &str) -> Vec<Attribute> {
    let derives = [Resident::Seal, Resident::Transport]
        .iter()
        .any(|key| key.label() == label);
    let signs = [
        Resident::SignDescriptor,
        Resident::SignStatement,
        Resident::SignCheckpoint,
    ]
    .iter()
    .any(|key| key.label() == label);
    let mut expected = vec![Attribute::Derive(derives)];
    // Only what a key must be able to do is asked for beyond that: modules differ in what they call the rest of a key
    // that they were told little about.
    if signs || label == super::MAC_LABEL {
        expected.push(Attribute::Sign(true));
    } else if !derives {
        expected.push(Attribute::Unwrap(true));
    }
    expected.extend(everywhere());
    expected
}

fn everywhere() -> Vec<Attribute> {
    vec![
        Attribute::Sensitive(true),
        Attribute::AlwaysSensitive(true),
        Attribute::Extractable(false),
        Attribute::NeverExtractable(true),
        Attribute::Local(true),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Decrypt(false),
    ]
}

/// The types of these attributes.
pub(super) fn types(attributes: &[Attribute]) -> Vec<AttributeType> {
    attributes.iter().map(Attribute::attribute_type).collect()
}
