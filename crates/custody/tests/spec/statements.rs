//! Statements verify under the token's statement key and in their own domain, and nowhere else.

use custody::statement::{Finding, signing_message};
use custody::{Kdf, RowIdentity, SealerKey, Statement, record_mac_message};

use crate::support::{CounterRng, World, sign_p256};

fn statement(world: &World) -> Statement {
    let findings = world
        .tokens
        .iter()
        .map(|token| (token.fingerprint(), Finding::Holds));
    Statement {
        key_id: "openai-prod".parse().unwrap(),
        version: 3,
        generation: 1,
        header_hash: [1; 32],
        envelope_hash: [2; 32],
        threshold: 2,
        findings: findings.collect(),
        nonce: b"asked by an auditor".to_vec(),
        audit_records: 17,
        audit_hash: [3; 32],
        revision: 5,
        made_at: 1_767_225_600,
    }
}

#[test]
fn it_verifies_under_the_statement_key_of_its_own_token_alone() {
    let mut rng = CounterRng::new("statements");
    let world = World::ecdh(2, 2, Kdf::NullCbc, &mut rng);
    let (own, other) = (&world.tokens[0], &world.tokens[1]);
    let encoded = statement(&world).encode();
    let length = u32::try_from(encoded.len()).unwrap().to_be_bytes();
    let message = [&b"tacit/statement/v1"[..], &length, &encoded].concat();
    assert_eq!(signing_message(&encoded), message);
    let verify =
        |signature: &[u8]| Statement::verify_signature(own.descriptor(), &encoded, signature);

    let good = sign_p256(&own.keys.sign_statement, &message);
    assert!(verify(&good));
    assert!(!Statement::verify_signature(
        other.descriptor(),
        &encoded,
        &good
    ));
    for key in [
        &own.keys.sign_descriptor,
        &own.keys.sign_checkpoint,
        &other.keys.sign_statement,
    ] {
        assert!(!verify(&sign_p256(key, &message)));
    }
    // The right key in another domain: no oracle for one purpose serves the other.
    for domain in [
        "",
        "tacit/descriptor/v1",
        "tacit/checkpoint/v1",
        "tacit/statement/v2",
    ] {
        let message = [domain.as_bytes(), &length, &encoded].concat();
        assert!(
            !verify(&sign_p256(&own.keys.sign_statement, &message)),
            "{domain}"
        );
    }
    for bit in 0..encoded.len() * 8 {
        let mut changed = encoded.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!Statement::verify_signature(
            own.descriptor(),
            &changed,
            &good
        ));
    }
    for bad in [
        &good[..63],
        &[&good[..], &[0]].concat(),
        &[0; 64],
        &[0xff; 64],
        &[],
    ] {
        assert!(!verify(bad));
    }
}

#[test]
fn no_finding_is_taken_for_another() {
    let all = [
        Finding::Holds,
        Finding::Differs,
        Finding::NoAnswer,
        Finding::NotIngested,
    ];
    let texts: std::collections::BTreeSet<_> = all.iter().map(|one| one.text()).collect();
    assert_eq!(texts.len(), all.len());
    let mut rng = CounterRng::new("findings");
    let world = World::ecdh(2, 2, Kdf::NullCbc, &mut rng);
    let mut one = statement(&world);
    for finding in all {
        one.findings[1].1 = finding;
        assert_eq!(Statement::parse(&one.encode()).unwrap(), one);
    }
}

#[test]
fn row_and_record_macs_live_in_domains_of_their_own() {
    let row = RowIdentity {
        key_id: "openai-prod".parse().unwrap(),
        version: 3,
        generation: 1,
        x: 2,
        compartment: "openai".to_owned(),
        fingerprint: custody::Fingerprint::new([1; 32]),
        header_hash: [2; 32],
        sealer: SealerKey::new([3; 32]),
    };
    let encoded = row.encode();
    let length = u32::try_from(encoded.len()).unwrap().to_be_bytes();
    let message = row.mac_message(&[4; 32]);
    let expected = [&b"tacit/mac/share/v1"[..], &length, &encoded, &[4; 32]].concat();
    assert_eq!(message, expected);
    // Whatever is asked to be signed as a record begins otherwise than every row.
    let as_record = record_mac_message(&message);
    assert!(as_record.starts_with(b"tacit/mac/record/v1"));
    assert!(
        !message.starts_with(b"tacit/mac/record/v1")
            && !as_record.starts_with(b"tacit/mac/share/v1")
    );
    assert_ne!(record_mac_message(b"ab"), record_mac_message(b"abc"));
    // Every field of the identity is in the message.
    type Change = fn(&mut RowIdentity);
    let table: [(&str, Change); 8] = [
        ("key id", |r| r.key_id = "openai-prod2".parse().unwrap()),
        ("version", |r| r.version = 4),
        ("generation", |r| r.generation = 2),
        ("x", |r| r.x = 1),
        ("compartment", |r| r.compartment = "anthropic".to_owned()),
        ("fingerprint", |r| {
            r.fingerprint = custody::Fingerprint::new([9; 32])
        }),
        ("header hash", |r| r.header_hash = [9; 32]),
        ("sealer", |r| r.sealer = SealerKey::new([9; 32])),
    ];
    for (name, change) in table {
        let mut other = row.clone();
        change(&mut other);
        assert_ne!(other.mac_message(&[4; 32]), message, "{name}");
    }
    assert_ne!(row.mac_message(&[5; 32]), message, "wrapped share");
}

#[test]
fn no_domain_is_the_beginning_of_another() {
    let domains = [
        "tacit/seal/v1",
        "tacit/deliver/v1",
        "tacit/check/v1",
        "tacit/receipt/v1",
        "tacit/mac/share/v1",
        "tacit/mac/record/v1",
        "tacit/manifest/v1",
        "tacit/descriptor/v1",
        "tacit/statement/v1",
        "tacit/enc/v1",
        "tacit/commit/v1",
    ];
    for one in domains {
        for other in domains {
            assert!(one == other || !other.starts_with(one), "{one} {other}");
        }
    }
}
