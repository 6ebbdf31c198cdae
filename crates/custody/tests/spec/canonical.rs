//! One value, one encoding: what is written is read back, what is read is written back, and nothing shorter or longer
//! passes.

use std::fmt::Debug;

use custody::dek::Envelope;
use custody::record::{Entry, Inventory, Kind, Record};
use custody::statement::Finding;
use custody::{
    Descriptor, Fingerprint, FormatError, Header, KeyId, Manifest, ManifestEntry, OaepHash, Origin,
    Receipt, RowIdentity, SealedKey, SealerKey, SignedDescriptor, Statement, Suite, Trust,
    Upstream,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{CounterRng, FAKE_KEY, ShareKeys, Token, World};

/// The whole law for one structure, starting from one valid encoding.
fn lawful<T: PartialEq + Debug>(
    bytes: &[u8],
    parse: impl Fn(&[u8]) -> Result<T, FormatError>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let value = parse(bytes).expect("the neighbour that passes");
    assert_eq!(encode(&value), bytes);
    for length in 0..bytes.len() {
        parse(&bytes[..length]).expect_err("cut short");
    }
    for more in [&[0u8][..], &[0xff], &bytes[..1], bytes] {
        parse(&[bytes, more].concat()).expect_err("longer");
    }
    // Whatever a flipped bit makes of it: either refused, or another value that is written as it was read.
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = parse(&changed) {
            assert_eq!(encode(&other), changed, "bit {bit}");
            assert_ne!(other, value, "bit {bit}");
        }
    }
    // Magic and format byte have their own refusals.
    let mut other = bytes.to_vec();
    other[0] ^= 0x20;
    assert!(matches!(parse(&other), Err(FormatError::Magic { .. })));
    let mut newer = bytes.to_vec();
    newer[4] = 2;
    assert!(matches!(
        parse(&newer),
        Err(FormatError::Version {
            found: 2,
            known: 1,
            ..
        })
    ));
}

fn key_id() -> impl Strategy<Value = KeyId> {
    "[A-Za-z0-9_.-]{1,128}".prop_map(|name| name.parse().unwrap())
}

fn upstream() -> impl Strategy<Value = Upstream> {
    prop_oneof![
        Just("*".to_owned()),
        ("[a-z0-9]{1,20}(\\.[a-z][a-z0-9]{0,10}){0,3}", 1..=u16::MAX)
            .prop_map(|(host, port)| format!("https://a{host}:{port}")),
        any::<[u8; 16]>().prop_map(|b| format!("https://[{}]", std::net::Ipv6Addr::from(b))),
        any::<[u8; 4]>().prop_map(|b| format!("https://{}", std::net::Ipv4Addr::from(b))),
        any::<u16>().prop_map(|port| format!("http://127.0.0.1:{}", port.max(1))),
    ]
    .prop_map(|text| text.parse().unwrap())
}

fn header() -> impl Strategy<Value = Header> {
    (
        key_id(),
        (1..=u32::MAX, 1..=u32::MAX),
        "[A-Za-z0-9_.-]{1,128}",
        vec(upstream(), 1..=8),
        (2..=16u8).prop_flat_map(|n| (2..=n, Just(n), any::<[u8; 31]>())),
        any::<([u8; 32], u64, [u8; 32])>(),
    )
        .prop_map(
            |(key_id, (version, generation), provider, upstreams, (t, n, seed), rest)| Header {
                suite: Suite::Aes256GcmSiv,
                key_id,
                version,
                generation,
                provider,
                upstreams,
                threshold: t,
                custodians: (0..n)
                    .map(|at| Fingerprint::new([&[at][..], &seed].concat().try_into().unwrap()))
                    .collect(),
                sealer: SealerKey::new(rest.0),
                created_at: rest.1,
                commitment: rest.2,
            },
        )
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let entry = any::<([u8; 32], [u8; 32])>()
        .prop_map(|(check, sealed_hash)| ManifestEntry { check, sealed_hash });
    (any::<([u8; 32], [u8; 32])>(), vec(entry, 0..=16)).prop_map(|(hashes, entries)| Manifest {
        header_hash: hashes.0,
        envelope_hash: hashes.1,
        entries,
    })
}

fn row() -> impl Strategy<Value = RowIdentity> {
    (
        key_id(),
        (1..=u32::MAX, 1..=u32::MAX, 1..=16u8),
        "[A-Za-z0-9_.-]{1,128}",
        any::<[[u8; 32]; 3]>(),
    )
        .prop_map(
            |(key_id, (version, generation, x), compartment, bytes)| RowIdentity {
                key_id,
                version,
                generation,
                x,
                compartment,
                fingerprint: Fingerprint::new(bytes[0]),
                header_hash: bytes[1],
                sealer: SealerKey::new(bytes[2]),
            },
        )
}

fn statement() -> impl Strategy<Value = Statement> {
    let finding = prop_oneof![
        Just(Finding::Holds),
        Just(Finding::Differs),
        Just(Finding::NoAnswer),
        Just(Finding::NotIngested)
    ];
    let findings = vec(
        (any::<[u8; 32]>().prop_map(Fingerprint::new), finding),
        0..=16,
    );
    (
        key_id(),
        any::<(u32, u32, u8, u64, u64, u64)>(),
        any::<[[u8; 32]; 3]>(),
        findings,
        vec(any::<u8>(), 0..=64),
    )
        .prop_map(|(key_id, numbers, hashes, findings, nonce)| Statement {
            key_id,
            version: numbers.0,
            generation: numbers.1,
            header_hash: hashes[0],
            envelope_hash: hashes[1],
            threshold: numbers.2,
            findings,
            nonce,
            audit_records: numbers.3,
            audit_hash: hashes[2],
            revision: numbers.4,
            made_at: numbers.5,
        })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Key), Just(Kind::Version), Just(Kind::Share)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn headers(value in header()) {
        prop_assert_eq!(&Header::parse(&value.encode()).unwrap(), &value);
        lawful(&value.encode(), Header::parse, Header::encode);
    }

    #[test]
    fn manifests(value in manifest()) {
        prop_assert_eq!(&Manifest::parse(&value.encode()).unwrap(), &value);
        lawful(&value.encode(), Manifest::parse, Manifest::encode);
    }

    #[test]
    fn row_identities(value in row()) {
        prop_assert_eq!(&RowIdentity::parse(&value.encode()).unwrap(), &value);
        lawful(&value.encode(), RowIdentity::parse, RowIdentity::encode);
    }

    #[test]
    fn statements(value in statement()) {
        prop_assert_eq!(&Statement::parse(&value.encode()).unwrap(), &value);
        lawful(&value.encode(), Statement::parse, Statement::encode);
    }

    #[test]
    fn store_records(kind in kind(), id in "[a-z0-9/.-]{0,300}", revision: u64, body in vec(any::<u8>(), 0..300)) {
        let value = Record { kind, id, revision, body };
        prop_assert_eq!(&Record::parse(&value.encode()).unwrap(), &value);
        lawful(&value.encode(), Record::parse, Record::encode);
    }

    #[test]
    fn inventories(
        revision: u64, entries in vec((kind(), "[a-z0-9/.-]{0,40}", any::<u64>(), any::<[u8; 32]>()), 0..12),
    ) {
        let mut entries: Vec<_> = entries
            .into_iter()
            .map(|(kind, id, at, hash)| Entry { kind, id, revision: at.min(revision), hash })
            .collect();
        entries.sort();
        entries.dedup_by(|one, two| (one.kind, &one.id) == (two.kind, &two.id));
        let value = Inventory { revision, entries };
        prop_assert_eq!(&Inventory::parse(&value.encode()).unwrap(), &value);
        lawful(&value.encode(), Inventory::parse, Inventory::encode);
    }

    #[test]
    fn sealed_keys_as_bytes_and_as_text(
        header in vec(any::<u8>(), 0..300), envelope in vec(any::<u8>(), 0..200),
        shares in vec(vec(any::<u8>(), 0..140), 0..=16), manifest in vec(any::<u8>(), 0..300),
        signature in any::<[u8; 32]>(),
    ) {
        let signature = [signature, signature].concat().try_into().unwrap();
        let value = SealedKey { header, envelope, shares, manifest, signature };
        prop_assert_eq!(&SealedKey::parse(&value.encode()).unwrap(), &value);
        lawful(&value.encode(), SealedKey::parse, SealedKey::encode);
        prop_assert_eq!(&SealedKey::from_armor(&value.to_armor()).unwrap(), &value);
        prop_assert_eq!(&SealedKey::from_armor(&value.to_armor().replace('\n', "\r\n")).unwrap(), &value);
    }

    #[test]
    fn origins_and_upstreams(value in upstream()) {
        let text = value.to_string();
        prop_assert_eq!(&text.parse::<Upstream>().unwrap(), &value);
        prop_assert_eq!(text.parse::<Upstream>().unwrap().to_string(), text);
    }

    #[test]
    fn any_text_that_is_an_origin_has_one_form(text in "https?://[A-Za-z0-9.:\\[\\]_-]{0,40}/?") {
        if let Ok(origin) = text.parse::<Origin>() {
            let form = origin.to_string();
            prop_assert_eq!(form.parse::<Origin>(), Ok(origin));
            prop_assert_eq!(form.to_ascii_lowercase(), form);
        }
    }
}

#[test]
fn descriptors_of_both_kinds() {
    let mut rng = CounterRng::new("descriptors");
    let two = ShareKeys::Rsa {
        hash: OaepHash::Sha256,
        seal: vec![
            ("*".to_owned(), crate::support::RSA_KEYS[0].clone()),
            ("openai".to_owned(), crate::support::RSA_KEYS[1].clone()),
        ],
    };
    for shares in [ShareKeys::ecdh(custody::Kdf::NullCbc, &mut rng), two] {
        let token = Token::new("a", shares, &mut rng);
        let encoded = token.descriptor().encode();
        assert_eq!(Descriptor::parse(&encoded).as_ref(), Ok(token.descriptor()));
        lawful(&encoded, Descriptor::parse, Descriptor::encode);
        let signed = token.signed.encode();
        assert_eq!(SignedDescriptor::parse(&signed).as_ref(), Ok(&token.signed));
        lawful(&signed, SignedDescriptor::parse, SignedDescriptor::encode);
    }
}

#[test]
fn envelopes() {
    let mut rng = CounterRng::new("envelopes");
    let world = World::ecdh(2, 2, custody::Kdf::NullCbc, &mut rng);
    let (key, _) = world.seal(&mut rng);
    let good = &key.envelope;
    assert_eq!(
        Envelope::parse(good).unwrap().plaintext_len(),
        FAKE_KEY.len()
    );
    for length in 0..good.len() {
        assert!(Envelope::parse(&good[..length]).is_err());
    }
    assert!(Envelope::parse(&[&good[..], &[0]].concat()).is_err());
    let of = |length: u32, content: usize| {
        [&good[..33], &length.to_be_bytes(), &vec![7; content]].concat()
    };
    assert!(Envelope::parse(&of(1, 1)).is_ok() && Envelope::parse(&of(8192, 8192)).is_ok());
    assert!(Envelope::parse(&of(0, 0)).is_err(), "an empty key");
    assert!(
        Envelope::parse(&of(8193, 8193)).is_err(),
        "longer than a key"
    );
    assert!(Envelope::parse(&of(u32::MAX, 10)).is_err());
}

#[test]
fn json_forms_are_read_back_and_not_when_cut_short() {
    let mut rng = CounterRng::new("json");
    let world = World::ecdh(2, 3, custody::Kdf::NullCbc, &mut rng);
    let (_, receipt) = world.seal(&mut rng);
    let (trust, receipt) = (world.trust.to_json(), receipt.to_json());
    assert_eq!(Trust::parse(trust.as_bytes()).as_ref(), Ok(&world.trust));
    assert_eq!(Trust::parse(trust.as_bytes()).unwrap().to_json(), trust);
    assert_eq!(
        Receipt::parse(receipt.as_bytes()).unwrap().to_json(),
        receipt
    );
    for text in [&trust, &receipt] {
        let end = text.trim_end().len();
        for length in 0..end {
            assert!(Trust::parse(&text.as_bytes()[..length]).is_err());
            assert!(Receipt::parse(&text.as_bytes()[..length]).is_err());
        }
        let more = format!("{text}}}");
        assert!(Trust::parse(more.as_bytes()).is_err() && Receipt::parse(more.as_bytes()).is_err());
    }
    for (from, to) in [
        ("tacit-trust/v1", "tacit-trust/v2"),
        ("\"threshold\"", "\"treshold\""),
        ("\"threshold\": 2", "\"threshold\": 2, \"threshold\": 2"),
        ("\"threshold\": 2", "\"threshold\": 1"),
        ("\"threshold\": 2", "\"threshold\": 17"),
        ("\"threshold\": 2", "\"threshold\": 2, \"more\": 0"),
        ("\"id\": \"a\"", "\"id\": \"b\""),
    ] {
        assert!(trust.contains(from));
        assert!(
            Trust::parse(trust.replace(from, to).as_bytes()).is_err(),
            "{to}"
        );
    }
}

#[test]
fn headers_that_break_a_rule_are_refused_by_the_parser_too() {
    let mut rng = CounterRng::new("rules");
    let world = World::ecdh(2, 3, custody::Kdf::NullCbc, &mut rng);
    let good = crate::support::header(&world.seal(&mut rng).0);
    assert!(Header::parse(&good.encode()).is_ok());
    type Change = fn(&mut Header);
    let table: [(&str, Change); 9] = [
        ("version", |h| h.version = 0),
        ("version", |h| h.generation = 0),
        ("provider", |h| h.provider.clear()),
        ("provider", |h| h.provider = "a/b".to_owned()),
        ("upstreams", |h| h.upstreams.clear()),
        ("threshold", |h| h.threshold = 1),
        ("threshold", |h| h.threshold = 4),
        ("custodians", |h| h.custodians[2] = h.custodians[0]),
        ("custodians", |h| {
            h.custodians = (0..17).map(|at| Fingerprint::new([at; 32])).collect();
        }),
    ];
    for (name, change) in table {
        let mut header = good.clone();
        change(&mut header);
        assert!(
            matches!(Header::parse(&header.encode()), Err(FormatError::Field { field, .. }) if field == name),
            "{name}"
        );
    }
    // The same origin in another spelling would be the same header under another hash.
    let spelling = |from: &str, to: &str| {
        let mut bytes = good.encode();
        let at = bytes
            .windows(from.len())
            .position(|window| window == from.as_bytes())
            .unwrap();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        Header::parse(&bytes)
    };
    assert!(
        spelling(
            "https://gateway.example:8443",
            "https://gateway.example:8444"
        )
        .is_ok()
    );
    for other in [
        "https://Gateway.example:8443",
        "https://gateway.example:0443",
        "https://gateways.example:443",
        "http://gateways.example:8443",
    ] {
        assert!(
            spelling("https://gateway.example:8443", other).is_err(),
            "{other}"
        );
    }
}

#[test]
fn row_identities_that_break_a_rule_are_refused() {
    let mut rng = CounterRng::new("rows");
    let good = RowIdentity {
        key_id: "openai-prod".parse().unwrap(),
        version: 1,
        generation: 1,
        x: 16,
        compartment: "openai".to_owned(),
        fingerprint: Fingerprint::new(rng.array()),
        header_hash: rng.array(),
        sealer: SealerKey::new(rng.array()),
    };
    assert!(RowIdentity::parse(&good.encode()).is_ok());
    type Change = fn(&mut RowIdentity);
    let table: [(&str, Change); 7] = [
        ("version", |r| r.version = 0),
        ("version", |r| r.generation = 0),
        ("x", |r| r.x = 0),
        ("x", |r| r.x = 17),
        ("compartment", |r| r.compartment.clear()),
        ("compartment", |r| r.compartment = "a/../b".to_owned()),
        ("compartment", |r| r.compartment = "*".to_owned()),
    ];
    for (name, change) in table {
        let mut row = good.clone();
        change(&mut row);
        assert!(
            matches!(RowIdentity::parse(&row.encode()), Err(FormatError::Field { field, .. }) if field == name),
            "{name}"
        );
    }
}

#[test]
fn an_armor_forgives_white_space_and_nothing_else() {
    let mut rng = CounterRng::new("armor");
    let world = World::ecdh(2, 2, custody::Kdf::NullCbc, &mut rng);
    let (key, _) = world.seal(&mut rng);
    let good = key.to_armor();
    assert!(good.lines().all(|line| line.len() <= 64));
    for same in [
        good.clone(),
        format!("\n\n{good}\n"),
        good.replace('\n', "\r\n"),
        good.replace('\n', "\n  "),
    ] {
        assert_eq!(SealedKey::from_armor(&same).as_ref(), Ok(&key));
    }
    let body = good.lines().nth(1).unwrap();
    for bad in [
        good.replace("BEGIN TACIT", "BEGIN"),
        good.replace("-----END TACIT SEALED KEY-----", ""),
        good.replacen(body, &format!("{body}="), 1),
        good.replacen(body, &format!("{body}!"), 1),
        good.replacen(body, &body[1..], 1),
        good.replacen(body, &format!("Comment: hello\n{body}"), 1),
        format!("{good}{good}"),
        String::new(),
    ] {
        assert!(SealedKey::from_armor(&bad).is_err());
    }
}
