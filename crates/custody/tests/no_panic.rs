//! No bytes from outside panic a parser: arbitrary ones, arbitrary ones behind the right magic, and valid ones with
//! pieces changed, cut out, doubled and exchanged. The fuzz targets in `fuzz/` do the same for longer.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::sync::LazyLock;

use custody::dek::Envelope;
use custody::p256::Point;
use custody::record::{Inventory, Record};
use custody::rsa::RsaPublic;
use custody::{
    Descriptor, Fingerprint, Header, KeyId, Manifest, Origin, Receipt, RowIdentity, SealedKey,
    SealerKey, SignedDescriptor, Statement, Trust, Upstream,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Every parser over the same bytes; returns how many took them.
fn parse_all(bytes: &[u8]) -> usize {
    let binary = [
        Header::parse(bytes)
            .map(|value| assert_eq!(value.encode(), bytes))
            .is_ok(),
        Manifest::parse(bytes)
            .map(|value| assert_eq!(value.encode(), bytes))
            .is_ok(),
        SealedKey::parse(bytes)
            .map(|value| assert_eq!(value.encode(), bytes))
            .is_ok(),
        Descriptor::parse(bytes)
            .map(|value| assert_eq!(value.encode(), bytes))
            .is_ok(),
        SignedDescriptor::parse(bytes)
            .map(|value| assert_eq!(value.encode(), bytes))
            .is_ok(),
        RowIdentity::parse(bytes)
            .map(|value| assert_eq!(value.encode(), bytes))
            .is_ok(),
        Statement::parse(bytes)
            .map(|value| assert_eq!(value.encode(), bytes))
            .is_ok(),
        Record::parse(bytes)
            .map(|value| assert_eq!(value.encode(), bytes))
            .is_ok(),
        Inventory::parse(bytes)
            .map(|value| assert_eq!(value.encode(), bytes))
            .is_ok(),
        Envelope::parse(bytes).is_ok(),
        Point::parse(bytes).is_ok(),
        RsaPublic::parse(bytes)
            .map(|value| drop(value.components()))
            .is_ok(),
        Trust::parse(bytes)
            .map(|value| drop(value.to_json()))
            .is_ok(),
        Receipt::parse(bytes)
            .map(|mut value| drop(value.spend()))
            .is_ok(),
    ];
    let (modulus, exponent) = bytes.split_at(bytes.len().saturating_sub(3));
    drop(RsaPublic::from_components(modulus, exponent));
    let text = String::from_utf8_lossy(bytes);
    let textual = [
        SealedKey::from_armor(&text).is_ok(),
        text.parse::<KeyId>().is_ok(),
        text.parse::<Origin>().is_ok(),
        text.parse::<Upstream>().is_ok(),
        text.parse::<Fingerprint>().is_ok(),
        SealerKey::from_hex(&text).is_ok(),
    ];
    binary.into_iter().chain(textual).filter(|ok| *ok).count()
}

/// Valid encodings of every kind, from the committed vectors.
static VALID: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut valid = Vec::new();
    for name in ["ecdh-kw-null-cbc", "rsa-oaep-sha1", "mixed"] {
        let path = format!("{}/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let vector: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let hex_at = |pointer: &str| {
            hex::decode(vector.pointer(pointer).unwrap().as_str().unwrap()).unwrap()
        };
        for pointer in [
            "/header",
            "/envelope",
            "/manifest",
            "/sealed_key",
            "/custodians/0/descriptor",
            "/rows/0/identity",
            "/statement/encoded",
            "/session/p256_public",
        ] {
            valid.push(hex_at(pointer));
        }
        let descriptor = hex_at("/custodians/0/descriptor");
        let length = u32::try_from(descriptor.len()).unwrap().to_be_bytes();
        let signature = hex_at("/custodians/0/descriptor_signature");
        valid.push([&b"TCSD\x01"[..], &length, &descriptor, &signature].concat());
        let sealed = SealedKey::parse(&hex_at("/sealed_key")).unwrap();
        valid.push(sealed.to_armor().into_bytes());
        valid.push(vector["trust_file"].as_str().unwrap().as_bytes().to_vec());
        valid.push(vector["receipt"].to_string().into_bytes());
    }
    valid
});

const MAGICS: [&[u8; 4]; 10] = [
    b"TCHD", b"TCEV", b"TCMF", b"TCSK", b"TCCD", b"TCSD", b"TCRW", b"TCST", b"TCRC", b"TCIN",
];

/// One change of a valid encoding.
#[derive(Clone, Debug)]
enum Change {
    Byte(prop::sample::Index, u8),
    Cut(prop::sample::Index, u8),
    Double(prop::sample::Index, u8),
    Zero(prop::sample::Index, u8),
    Fill(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (at(), any::<u8>()).prop_map(|(at, count)| Change::Cut(at, count)),
        (at(), any::<u8>()).prop_map(|(at, count)| Change::Double(at, count)),
        (at(), any::<u8>()).prop_map(|(at, count)| Change::Zero(at, count)),
        at().prop_map(Change::Fill),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    let range = |at: &prop::sample::Index, count: u8| {
        let at = at.index(length);
        at..(at + usize::from(count)).min(length)
    };
    match change {
        Change::Byte(at, byte) => bytes[at.index(length)] = *byte,
        Change::Cut(at, count) => drop(bytes.drain(range(at, *count))),
        Change::Double(at, count) => {
            let piece = bytes[range(at, *count)].to_vec();
            let at = at.index(length);
            drop(bytes.splice(at..at, piece));
        }
        Change::Zero(at, count) => bytes[range(at, *count)].fill(0),
        // A length of four billion.
        Change::Fill(at) => bytes[range(at, 4)].fill(0xff),
    }
}

#[test]
fn the_valid_ones_are_taken() {
    for bytes in VALID.iter() {
        assert_eq!(parse_all(bytes), 1, "each by its own parser and no other");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..700)) {
        parse_all(&bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_magic(
        magic in prop::sample::select(&MAGICS[..]), format in 0..3u8, rest in vec(prop_oneof![Just(0u8), any::<u8>()], 0..500),
    ) {
        parse_all(&[&magic[..], &[format], &rest].concat());
    }

    #[test]
    fn arbitrary_text(text in "\\PC{0,200}") {
        parse_all(text.as_bytes());
    }

    #[test]
    fn valid_ones_changed(valid in any::<prop::sample::Index>(), changes in vec(change(), 1..4)) {
        let mut bytes = VALID[valid.index(VALID.len())].clone();
        for change in &changes {
            apply(&mut bytes, change);
        }
        parse_all(&bytes);
    }
}
