//! The canary: no `Debug`, `Display` or encoding of a type around a secret shows any of it, in hex, base64 or as numbers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody::combine::combine;
use custody::session::WrappingKey;
use custody::{FileSealer, Kdf, Manifest};
use secret::Secret;

use crate::support::{
    CounterRng, FAKE_KEY, Session, World, header, interpolate, key_pair, record, sha256,
};

/// Every way in which bytes get into a text, for any eight neighbouring bytes of `secret`.
fn found_in(secret: &[u8], text: &str) -> bool {
    let lower = text.to_lowercase();
    let dense: String = lower.split_whitespace().collect();
    secret.windows(8).any(|part| {
        let list: Vec<String> = part.iter().map(u8::to_string).collect();
        let hexes: Vec<String> = part.iter().map(|byte| format!("{byte:x}")).collect();
        dense.contains(&list.join(","))
            || dense.contains(&hexes.join(","))
            || lower.contains(&hex::encode(part))
            || std::str::from_utf8(part).is_ok_and(|plain| text.contains(plain))
    }) || text.contains(STANDARD.encode(secret).trim_end_matches('='))
}

#[test]
fn the_canary_sees_what_is_there() {
    let secret = b"a planted secret";
    for text in [
        format!("{secret:?}"),
        format!("{secret:#?}"),
        format!("{secret:x?}"),
        hex::encode(secret),
        STANDARD.encode(secret),
        "this is a planted secret indeed".to_owned(),
    ] {
        assert!(found_in(secret, &text), "{text}");
    }
    assert!(!found_in(secret, "Secret(redacted)"));
}

#[test]
fn debug_of_every_type_around_a_secret_shows_none_of_it() {
    let mut rng = CounterRng::new("canary");
    let world = World::ecdh(2, 2, Kdf::NullCbc, &mut rng);
    let (key, receipt) = world.seal(&mut rng);
    let records = world.records(&key);
    let shares: Vec<(u8, [u8; 32])> = (1..)
        .zip(&records)
        .map(|(x, record)| (x, record[4..36].try_into().unwrap()))
        .collect();
    let dek_bytes = interpolate(&shares);
    let given: Vec<_> = (1..).zip(&records).map(|(x, r)| (x, record(*r))).collect();
    let manifest = Manifest::parse(&key.manifest).unwrap();
    let dek = combine(&header(&key), &sha256(&key.header), &manifest, &given).unwrap();
    let (scalar, seed): ([u8; 32], [u8; 32]) = (rng.array(), rng.array());
    let (pair, peer) = (key_pair(&scalar), key_pair(&rng.array()));
    let z = pair.agree(peer.public());
    let wrapping = WrappingKey::from_shared(&z, Kdf::NullCbc, &[1; 32]);
    let sealer = FileSealer::from_seed(&Secret::new(Box::new(seed))).unwrap();
    let session = Session::with_rsa(&mut rng);
    let request = world.request();

    let answers: Vec<u8> = receipt.custodians[0]
        .challenges
        .iter()
        .flat_map(|one| hex::decode(&one.answer).unwrap())
        .collect();
    let printed = format!(
        "{dek:?} {dek:#?} {given:?} {given:#?} {pair:?} {pair:#?} {z:?} {wrapping:?} {wrapping:#?} {sealer:?} \
         {sealer:#?} {:?} {:#?} {key:?} {key:#?} {request:?} {receipt:?} {receipt:#?} {:?} {:#?}",
        session.keys, session.keys, world.trust, world.trust
    );
    let derived = custody::session::WrappingKey::from_shared(&z, Kdf::NullCbc, &[1; 32]);
    drop(derived);
    for (name, secret) in [
        ("the provider key", FAKE_KEY),
        ("the data key", &dek_bytes[..]),
        ("share 1", &records[0][4..36]),
        ("share 2", &records[1][4..36]),
        ("a private scalar", &scalar[..]),
        ("a seed", &seed[..]),
        ("an agreed secret", &z.expose()[..]),
        ("the answers of a receipt", &answers[..]),
    ] {
        assert!(!found_in(secret, &printed), "{name} is printed");
    }
    assert!(printed.contains("redacted"));
}

#[test]
fn what_leaves_the_operators_machine_holds_no_secret() {
    let mut rng = CounterRng::new("leaves");
    let world = World::ecdh(2, 3, Kdf::NullCbc, &mut rng);
    let (key, _) = world.seal(&mut rng);
    let records = world.records(&key);
    let shares: Vec<(u8, [u8; 32])> = (1..)
        .zip(&records)
        .map(|(x, record)| (x, record[4..36].try_into().unwrap()))
        .collect();
    let dek = interpolate(&shares[..2]);
    let bytes = key.encode();
    let holds = |secret: &[u8]| {
        secret
            .windows(8)
            .any(|part| bytes.windows(8).any(|at| at == part))
    };
    assert!(!holds(FAKE_KEY) && !holds(&dek));
    assert!(shares.iter().all(|(_, y)| !holds(y)));
    assert!(
        holds(&world.tokens[0].fingerprint().as_bytes()[..]),
        "the search finds what is there"
    );
}

#[test]
fn errors_name_fields_and_rules_and_never_what_they_found() {
    let secret = "sk-tacit-canary-pasted-into-the-wrong-place";
    let errors = [
        format!("{secret} ")
            .parse::<custody::KeyId>()
            .unwrap_err()
            .to_string(),
        format!("https://{secret}/")
            .replace("sk", "s k")
            .parse::<custody::Origin>()
            .unwrap_err()
            .to_string(),
        secret.parse::<custody::Origin>().unwrap_err().to_string(),
        secret
            .parse::<custody::Fingerprint>()
            .unwrap_err()
            .to_string(),
        custody::SealerKey::from_hex(secret)
            .unwrap_err()
            .to_string(),
        custody::SealedKey::from_armor(secret)
            .unwrap_err()
            .to_string(),
        custody::Trust::parse(format!("{{\"{secret}\": 1}}").as_bytes())
            .unwrap_err()
            .to_string(),
        custody::Receipt::parse(format!("{{\"{secret}\": 1}}").as_bytes())
            .unwrap_err()
            .to_string(),
        custody::Header::parse(secret.as_bytes())
            .unwrap_err()
            .to_string(),
    ];
    for error in errors {
        assert!(!error.contains("canary"), "{error}");
    }
}
