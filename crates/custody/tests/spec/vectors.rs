//! The committed vectors: opened from their bytes alone, and derived again from their seeds. `vectors/README.md` says
//! what stands in them and how they are written anew.

use std::path::PathBuf;

use custody::combine::combine;
use custody::dek::Envelope;
use custody::open::SessionKeys;
use custody::statement::Finding;
use custody::{
    FileSealer, Kdf, Manifest, OaepHash, Profile, Receipt, RowIdentity, SealedKey, Sealer,
    SignedDescriptor, Statement, Trust,
};
use secret::Secret;
use serde_json::{Value, json};

use crate::support::{
    Ask, CounterRng, FAKE_KEY, Parcel, Session, ShareKeys, Token, TokenKeys, World, header,
    interpolate, key_pair, open_as, record, sha256,
};

const WRITE: &str = "TACIT_WRITE_VECTORS";

#[derive(Clone, Copy)]
enum Share {
    Ecdh(Kdf),
    Rsa(OaepHash),
}

const CASES: [(&str, u8, &[Share]); 5] = [
    (
        "ecdh-kw-null-cbc",
        2,
        &[
            Share::Ecdh(Kdf::NullCbc),
            Share::Ecdh(Kdf::NullCbc),
            Share::Ecdh(Kdf::NullCbc),
        ],
    ),
    (
        "ecdh-kw-x963-sha256",
        3,
        &[
            Share::Ecdh(Kdf::X963Sha256),
            Share::Ecdh(Kdf::X963Sha256),
            Share::Ecdh(Kdf::X963Sha256),
            Share::Ecdh(Kdf::X963Sha256),
        ],
    ),
    (
        "rsa-oaep-sha1",
        2,
        &[Share::Rsa(OaepHash::Sha1), Share::Rsa(OaepHash::Sha1)],
    ),
    (
        "rsa-oaep-sha256",
        2,
        &[Share::Rsa(OaepHash::Sha256), Share::Rsa(OaepHash::Sha256)],
    ),
    (
        "mixed",
        3,
        &[
            Share::Ecdh(Kdf::NullCbc),
            Share::Ecdh(Kdf::X963Sha256),
            Share::Rsa(OaepHash::Sha256),
        ],
    ),
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("vectors/{name}.json"))
}

fn read(name: &str) -> Value {
    let text = std::fs::read(path(name)).expect("the vector is committed");
    serde_json::from_slice(&text).expect("it is JSON")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("a string")).expect("of hex digits")
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().expect("of that length")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

// --- writing --------------------------------------------------------------------------------------------------------

/// Makes one vector from its name. What no seed decides (ECDSA signatures, RSA keys) is taken from `kept`, if given.
fn make(name: &str, threshold: u8, shares: &[Share], kept: Option<&Value>) -> Value {
    let seed = format!("tacit vectors 1: {name}");
    let mut rng = CounterRng::new(&seed);
    let of = |at: usize| kept.map(|kept| &kept["custodians"][at]);
    let mut tokens = Vec::new();
    for (at, share) in shares.iter().enumerate() {
        let keys = match share {
            Share::Ecdh(kdf) => ShareKeys::ecdh(*kdf, &mut rng),
            Share::Rsa(hash) => match of(at) {
                Some(kept) => ShareKeys::Rsa {
                    hash: *hash,
                    seal: vec![("*".to_owned(), bytes(&kept["seal_pkcs8"]))],
                },
                None => ShareKeys::rsa(*hash, at),
            },
        };
        let id = char::from(b'a' + u8::try_from(at).unwrap()).to_string();
        let mut token = Token::new(&id, keys, &mut rng);
        if let Some(kept) = of(at) {
            token.signed.signature = array(&kept["descriptor_signature"]);
        }
        tokens.push(token);
    }
    let sealer_seed: [u8; 32] = rng.array();
    let mut world = World::of(threshold, tokens, &mut CounterRng::new("replaced below"));
    world.sealer = FileSealer::from_seed(&Secret::new(Box::new(sealer_seed))).unwrap();
    world.trust.sealers[0].key = world.sealer.public();
    let (key, receipt) = world.seal(&mut rng);
    let records = world.records(&key);
    let manifest = Manifest::parse(&key.manifest).unwrap();
    let ys: Vec<_> = (1..)
        .zip(&records)
        .map(|(x, r)| (x, r[4..36].try_into().unwrap()))
        .collect();
    let dek = interpolate(&ys[..threshold.into()]);

    let session_private: [u8; 32] = rng.array();
    let session = Session {
        keys: SessionKeys {
            p256: key_pair(&session_private),
            rsa: None,
        },
        id: rng.array(),
    };
    let custodians: Vec<_> = world.tokens.iter().map(describe).collect();
    let deliveries: Vec<_> = (1u8..)
        .zip(world.tokens.iter().zip(&records))
        .filter(|(_, (token, _))| matches!(token.keys.shares, ShareKeys::Ecdh { .. }))
        .map(|(x, (token, record))| {
            json!({
                "x": x,
                "wrapping_key": hex::encode(token.session_key(&session.id, session.keys.p256.public())),
                "wrapped": hex::encode(token.deliver(record, &session)),
            })
        })
        .collect();
    let rows: Vec<_> = (1u8..)
        .zip(&world.tokens)
        .map(|(x, token)| {
            let row = row(&world, &key, x, token);
            json!({
                "identity": hex::encode(row.encode()),
                "mac_message_of_wrapped_hash_55": hex::encode(row.mac_message(&[0x55; 32])),
            })
        })
        .collect();
    let statement = statement(&world, &key);
    let encoded = statement.encode();
    let message = custody::statement::signing_message(&encoded);
    let statement_signature = match kept {
        Some(kept) => array(&kept["statement"]["signature_of_a"]),
        None => crate::support::sign_p256(&world.tokens[0].keys.sign_statement, &message),
    };
    let hexes = |parts: Vec<&[u8]>| parts.into_iter().map(hex::encode).collect::<Vec<_>>();
    json!({
        "name": name,
        "seed": seed,
        "threshold": threshold,
        "plaintext": hex::encode(FAKE_KEY),
        "plaintext_as_text": std::str::from_utf8(FAKE_KEY).unwrap(),
        "sealer": { "seed": hex::encode(sealer_seed), "public": world.sealer.public().to_string() },
        "custodians": custodians,
        "trust_file": world.trust.to_json(),
        "dek": hex::encode(dek),
        "header": hex::encode(&key.header),
        "header_sha256": hex::encode(sha256(&key.header)),
        "commitment": hex::encode(header(&key).commitment),
        "envelope": hex::encode(&key.envelope),
        "records": hexes(records.iter().map(|r| &r[..]).collect()),
        "check_values": hexes(manifest.entries.iter().map(|one| &one.check[..]).collect()),
        "sealed_shares": hexes(key.shares.iter().map(Vec::as_slice).collect()),
        "manifest": hex::encode(&key.manifest),
        "manifest_signature": hex::encode(key.signature),
        "sealed_key": hex::encode(key.encode()),
        "receipt": serde_json::from_str::<Value>(&receipt.to_json()).unwrap(),
        "session": {
            "id": hex::encode(session.id),
            "p256_private": hex::encode(session_private),
            "p256_public": hex::encode(session.keys.p256.public().as_bytes()),
        },
        "deliveries": deliveries,
        "rows": rows,
        "statement": {
            "encoded": hex::encode(&encoded),
            "signing_message": hex::encode(&message),
            "signature_of_a": hex::encode(statement_signature),
        },
    })
}

fn describe(token: &Token) -> Value {
    let keys = &token.keys;
    let mut value = json!({
        "id": token.id(),
        "profile": token.descriptor().profile.name(),
        "mechanisms": token.descriptor().profile.mechanisms(),
        "sign_descriptor_private": hex::encode(keys.sign_descriptor),
        "sign_statement_private": hex::encode(keys.sign_statement),
        "sign_checkpoint_private": hex::encode(keys.sign_checkpoint),
        "descriptor": hex::encode(token.descriptor().encode()),
        "descriptor_signature": hex::encode(token.signed.signature),
        "fingerprint": hex::encode(token.fingerprint().as_bytes()),
    });
    match &keys.shares {
        ShareKeys::Ecdh {
            seal, transport, ..
        } => {
            value["seal_private"] = hex::encode(seal).into();
            value["transport_private"] = hex::encode(transport).into();
        }
        ShareKeys::Rsa { seal, .. } => value["seal_pkcs8"] = hex::encode(&seal[0].1).into(),
    }
    value
}

fn row(world: &World, key: &SealedKey, x: u8, token: &Token) -> RowIdentity {
    let header = header(key);
    RowIdentity {
        key_id: header.key_id.clone(),
        version: header.version,
        generation: header.generation,
        x,
        compartment: header.provider.clone(),
        fingerprint: token.fingerprint(),
        header_hash: sha256(&key.header),
        sealer: world.sealer.public(),
    }
}

fn statement(world: &World, key: &SealedKey) -> Statement {
    let header = header(key);
    let all = [
        Finding::Holds,
        Finding::Differs,
        Finding::NoAnswer,
        Finding::NotIngested,
    ];
    Statement {
        key_id: header.key_id.clone(),
        version: header.version,
        generation: header.generation,
        header_hash: sha256(&key.header),
        envelope_hash: sha256(&key.envelope),
        threshold: header.threshold,
        findings: world
            .tokens
            .iter()
            .map(Token::fingerprint)
            .zip(all)
            .collect(),
        nonce: b"nonce of the asker".to_vec(),
        audit_records: 42,
        audit_hash: [0xaa; 32],
        revision: 7,
        made_at: 1_767_312_000,
    }
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the switch that rewrites the files"
)]
fn derived_again_from_their_seeds_they_are_the_same_byte_for_byte() {
    if std::env::var_os(WRITE).is_some() {
        for (name, threshold, shares) in CASES {
            let text = serde_json::to_string_pretty(&make(name, threshold, shares, None)).unwrap();
            std::fs::write(path(name), text + "\n").unwrap();
        }
    }
    for (name, threshold, shares) in CASES {
        let committed = read(name);
        let mut again = make(name, threshold, shares, Some(&committed));
        if shares.iter().any(|share| matches!(share, Share::Rsa(_))) {
            // OAEP draws its own randomness: the sealed shares, and all that names them by hash, are others each time.
            for field in [
                "sealed_shares",
                "manifest",
                "manifest_signature",
                "sealed_key",
            ] {
                assert_ne!(again[field], committed[field], "{name}: {field}");
                again[field] = committed[field].clone();
            }
        }
        for (field, value) in committed.as_object().unwrap() {
            assert_eq!(again[field], *value, "{name}: {field}");
        }
        assert_eq!(again, committed, "{name}");
    }
}

// --- reading --------------------------------------------------------------------------------------------------------

/// The custodian of a vector, from the bytes that stand there.
fn token(value: &Value) -> Token {
    let signed = custody::Descriptor::parse(&bytes(&value["descriptor"])).unwrap();
    let shares = match signed.profile {
        Profile::EcdhKw(kdf) => ShareKeys::Ecdh {
            kdf,
            seal: array(&value["seal_private"]),
            transport: array(&value["transport_private"]),
        },
        Profile::RsaOaep(hash) => ShareKeys::Rsa {
            hash,
            seal: vec![("*".to_owned(), bytes(&value["seal_pkcs8"]))],
        },
    };
    let token = Token {
        keys: TokenKeys {
            sign_descriptor: array(&value["sign_descriptor_private"]),
            sign_statement: array(&value["sign_statement_private"]),
            sign_checkpoint: array(&value["sign_checkpoint_private"]),
            shares,
        },
        signed: SignedDescriptor {
            descriptor: signed,
            signature: array(&value["descriptor_signature"]),
        },
    };
    let encoded = token.signed.encode();
    assert_eq!(
        SignedDescriptor::parse(&encoded).as_ref(),
        Ok(&token.signed)
    );
    assert_eq!(
        Token::describe(token.id(), &token.keys),
        *token.descriptor()
    );
    assert_eq!(
        token.fingerprint().as_bytes()[..],
        bytes(&value["fingerprint"])
    );
    token
}

#[test]
fn every_vector_opens_from_its_bytes() {
    for (name, threshold, _) in CASES {
        let vector = read(name);
        let tokens: Vec<_> = list(&vector["custodians"]).iter().map(token).collect();
        let trust = Trust::parse(vector["trust_file"].as_str().unwrap().as_bytes()).unwrap();
        let key = SealedKey::parse(&bytes(&vector["sealed_key"])).unwrap();
        let provenance = key.verify(&trust).unwrap();
        assert_eq!(
            provenance.header_hash()[..],
            bytes(&vector["header_sha256"])
        );
        assert_eq!(
            provenance.header().commitment[..],
            bytes(&vector["commitment"])
        );
        assert_eq!(key.header, bytes(&vector["header"]));
        assert_eq!(key.envelope, bytes(&vector["envelope"]));
        assert_eq!(key.manifest, bytes(&vector["manifest"]));
        assert_eq!(key.signature[..], bytes(&vector["manifest_signature"]));

        // Each custodian finds its record, whose check value is the signed one.
        let hash = provenance.header_hash();
        let records: Vec<[u8; 64]> = list(&vector["records"]).iter().map(array).collect();
        for (at, token) in tokens.iter().enumerate() {
            assert_eq!(key.shares[at], bytes(&vector["sealed_shares"][at]));
            assert_eq!(
                token.ingest(&key.shares[at], hash),
                Some(records[at]),
                "{name}"
            );
            let check = record(records[at]).check_value(hash);
            assert_eq!(check, provenance.manifest().entries[at].check);
            assert_eq!(check[..], bytes(&vector["check_values"][at]));
        }

        // Any t of them combine to the data key, and it opens the envelope.
        let n = u8::try_from(tokens.len()).unwrap();
        let xs: Vec<u8> = (1..=n).rev().take(threshold.into()).collect();
        let given: Vec<_> = xs
            .iter()
            .map(|x| (*x, record(records[usize::from(*x) - 1])))
            .collect();
        let dek = combine(provenance.header(), hash, provenance.manifest(), &given).unwrap();
        let ys: Vec<_> = given
            .iter()
            .map(|(x, r)| (*x, r.as_secret().expose()[4..36].try_into().unwrap()))
            .collect();
        assert_eq!(interpolate(&ys)[..], bytes(&vector["dek"]));
        let envelope = Envelope::parse(&key.envelope).unwrap();
        let mut out = vec![0; envelope.plaintext_len()];
        dek.open_envelope(&key.header, &envelope, &mut out).unwrap();
        assert_eq!(out, bytes(&vector["plaintext"]));

        // The same over a session: recorded deliveries, and fresh ones from custodians with RSA.
        let mut session = Session {
            keys: SessionKeys {
                p256: key_pair(&array(&vector["session"]["p256_private"])),
                rsa: None,
            },
            id: array(&vector["session"]["id"]),
        };
        assert_eq!(
            session.keys.p256.public().as_bytes()[..],
            bytes(&vector["session"]["p256_public"])
        );
        let mut parcels: Vec<_> = list(&vector["deliveries"])
            .iter()
            .map(|one| {
                let x = u8::try_from(one["x"].as_u64().unwrap()).unwrap();
                let token = &tokens[usize::from(x) - 1];
                let key = token.session_key(&session.id, session.keys.p256.public());
                assert_eq!(key[..], bytes(&one["wrapping_key"]));
                Parcel {
                    x,
                    fingerprint: token.fingerprint(),
                    wrapped: bytes(&one["wrapped"]),
                }
            })
            .collect();
        if parcels.len() < threshold.into() {
            session.keys.rsa = Some(custody::rsa::RsaKeyPair::generate().unwrap());
            for (x, token) in (1u8..).zip(&tokens) {
                if matches!(token.keys.shares, ShareKeys::Rsa { .. }) {
                    let wrapped = token.deliver(&records[usize::from(x) - 1], &session);
                    parcels.push(Parcel {
                        x,
                        fingerprint: token.fingerprint(),
                        wrapped,
                    });
                }
            }
        }
        parcels.truncate(threshold.into());
        let opened = open_as(&trust, &key, &session, &parcels, &Ask::default());
        assert_eq!(opened.unwrap(), FAKE_KEY, "{name}");
    }
}

#[test]
fn receipts_rows_and_statements_of_the_vectors_hold() {
    for (name, ..) in CASES {
        let vector = read(name);
        let tokens: Vec<_> = list(&vector["custodians"]).iter().map(token).collect();
        let hash: [u8; 32] = array(&vector["header_sha256"]);
        let receipt = Receipt::parse(vector["receipt"].to_string().as_bytes()).unwrap();
        assert_eq!(receipt.remaining(), 2);
        for (at, custodian) in receipt.custodians.iter().enumerate() {
            let share = record(array(&vector["records"][at]));
            for one in &custodian.challenges {
                let challenge = hex::decode(&one.challenge).unwrap().try_into().unwrap();
                let answer = share.hmac(&custody::share::answer_message(&hash, &challenge));
                assert_eq!(hex::encode(answer), one.answer, "{name}");
            }
        }
        for (x, row) in (1..).zip(list(&vector["rows"])) {
            let identity = RowIdentity::parse(&bytes(&row["identity"])).unwrap();
            assert_eq!((identity.x, identity.header_hash), (x, hash));
            let message = identity.mac_message(&[0x55; 32]);
            assert_eq!(message, bytes(&row["mac_message_of_wrapped_hash_55"]));
        }
        let encoded = bytes(&vector["statement"]["encoded"]);
        let statement = Statement::parse(&encoded).unwrap();
        assert_eq!((statement.header_hash, statement.audit_records), (hash, 42));
        let signature = bytes(&vector["statement"]["signature_of_a"]);
        assert!(Statement::verify_signature(
            tokens[0].descriptor(),
            &encoded,
            &signature
        ));
        assert!(!Statement::verify_signature(
            tokens[1].descriptor(),
            &encoded,
            &signature
        ));
    }
}

#[test]
fn the_format_bytes_are_these() {
    let vector = read("ecdh-kw-null-cbc");
    let armor = SealedKey::parse(&bytes(&vector["sealed_key"]))
        .unwrap()
        .to_armor();
    assert!(armor.starts_with("-----BEGIN TACIT SEALED KEY-----\nVENTSwE"));
    let signed = token(&vector["custodians"][0]).signed.encode();
    for (part, start) in [
        (bytes(&vector["header"]), &b"TCHD\x01\x01"[..]),
        (bytes(&vector["envelope"]), b"TCEV\x01"),
        (bytes(&vector["manifest"]), b"TCMF\x01"),
        (bytes(&vector["sealed_key"]), b"TCSK\x01"),
        (bytes(&vector["custodians"][0]["descriptor"]), b"TCCD\x01"),
        (signed, b"TCSD\x01"),
        (bytes(&vector["rows"][0]["identity"]), b"TCRW\x01"),
        (bytes(&vector["statement"]["encoded"]), b"TCST\x01"),
        (bytes(&vector["records"][0]), b"TS\x01\x01"),
        (bytes(&vector["records"][2]), b"TS\x01\x03"),
    ] {
        assert!(
            part.starts_with(start),
            "{}",
            String::from_utf8_lossy(start)
        );
    }
    let profile = |name: &str, at: usize| {
        let descriptor = bytes(&read(name)["custodians"][at]["descriptor"]);
        // magic, format, then id "a", "serial-a", "tacit-a", each behind its length.
        descriptor[5 + 5 + 12 + 11]
    };
    let profiles = [
        ("ecdh-kw-null-cbc", 0x11),
        ("ecdh-kw-x963-sha256", 0x12),
        ("rsa-oaep-sha1", 0x21),
        ("rsa-oaep-sha256", 0x22),
    ];
    for (name, id) in profiles {
        assert_eq!(profile(name, 0), id, "{name}");
    }
}
