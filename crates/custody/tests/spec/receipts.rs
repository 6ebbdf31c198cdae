//! The operator's receipt: answers that only a holder of the share has, each spent once.

use custody::{Kdf, Receipt};

use crate::support::{CounterRng, World, hmac_sha256, record, sha256};

fn made(challenges: usize) -> (Receipt, Vec<[u8; 64]>, [u8; 32]) {
    let mut rng = CounterRng::new("receipt");
    let world = World::ecdh(2, 3, Kdf::NullCbc, &mut rng);
    let mut request = world.request();
    request.challenges = challenges;
    let fake = secret::Secret::from(crate::support::FAKE_KEY.to_vec());
    let (key, receipt) = custody::seal(&request, &fake, &world.sealer, &mut rng).unwrap();
    let records = world.records(&key);
    let prints = world
        .tokens
        .iter()
        .map(|token| hex::encode(token.fingerprint().as_bytes()));
    let named: Vec<_> = receipt
        .custodians
        .iter()
        .map(|one| one.fingerprint.clone())
        .collect();
    assert_eq!(named, prints.collect::<Vec<_>>());
    assert_eq!(receipt.header_sha256, hex::encode(sha256(&key.header)));
    (receipt, records, sha256(&key.header))
}

#[test]
fn every_answer_is_that_of_the_share_and_of_no_other() {
    let (receipt, records, hash) = made(4);
    let mut seen = std::collections::BTreeSet::new();
    for (at, custodian) in receipt.custodians.iter().enumerate() {
        for one in &custodian.challenges {
            assert!(seen.insert(one.challenge.clone()), "no challenge twice");
            let challenge = hex::decode(&one.challenge).unwrap();
            let message = [&b"tacit/receipt/v1"[..], &hash, &challenge].concat();
            let answers: Vec<_> = records
                .iter()
                .map(|key| hex::encode(hmac_sha256(key, &message)))
                .collect();
            for (of, answer) in answers.iter().enumerate() {
                assert_eq!(*answer == one.answer, of == at);
            }
            let own =
                custody::share::answer_message(&hash, challenge.as_slice().try_into().unwrap());
            assert_eq!(hex::encode(record(records[at]).hmac(&own)), one.answer);
            // What everybody can ask a token for at any time is not an answer.
            let check = record(records[at]).check_value(&hash);
            assert_ne!(hex::encode(check), one.answer);
        }
    }
    assert_eq!(seen.len(), 12);
}

#[test]
fn a_challenge_is_spent_once_also_across_the_file() {
    let (mut receipt, ..) = made(3);
    let mut seen = std::collections::BTreeSet::new();
    for left in (0..3).rev() {
        let spent = receipt.spend().expect("one more");
        assert_eq!(spent.len(), 3, "one per custodian");
        for one in spent {
            assert!(seen.insert(one.challenge));
        }
        assert_eq!(receipt.remaining(), left);
        let written = receipt.to_json();
        receipt = Receipt::parse(written.as_bytes()).unwrap();
        assert!(
            seen.iter()
                .all(|challenge| !written.contains(challenge.as_str()))
        );
    }
    assert!(receipt.spend().is_none());
    assert_eq!(receipt.remaining(), 0);
}

#[test]
fn nothing_is_spent_when_one_custodian_has_nothing_left() {
    let (mut receipt, ..) = made(2);
    receipt.custodians[1].challenges.clear();
    let before = receipt.clone();
    assert!(receipt.spend().is_none());
    assert_eq!(receipt, before);
}

#[test]
fn a_receipt_without_challenges_or_custodians_proves_nothing() {
    let (mut receipt, ..) = made(0);
    assert!(receipt.spend().is_none());
    let (mut receipt, ..) = made(1);
    receipt.custodians.clear();
    assert_eq!(receipt.remaining(), 0);
    assert!(
        receipt.spend().is_none(),
        "an empty list of answers is right whatever is asked"
    );
    assert!(Receipt::parse(receipt.to_json().as_bytes()).is_err());
}

#[test]
fn a_damaged_file_is_refused() {
    let (receipt, ..) = made(1);
    let good = receipt.to_json();
    let parse = |text: &str| Receipt::parse(text.as_bytes());
    assert!(parse(&good).is_ok());
    let one = &receipt.custodians[0].challenges[0];
    for (from, to) in [
        ("tacit-receipt/v1", "tacit-receipt/v2"),
        (one.challenge.as_str(), &one.challenge[2..]),
        (one.answer.as_str(), "zz"),
        (receipt.header_sha256.as_str(), "00"),
        (receipt.custodians[0].fingerprint.as_str(), "00"),
        ("\"openai-prod\"", "\"openai prod\\u001b\""),
        ("\"version\": 3", "\"version\": 0"),
        ("\"version\": 3", "\"version\": 3, \"more\": 1"),
    ] {
        assert!(good.contains(from));
        assert!(parse(&good.replace(from, to)).is_err(), "{to}");
    }
}
