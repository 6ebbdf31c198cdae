//! Verdicts: what is believed, and each neighbour that is not.

use super::*;
use crate::args::{Cli, Command, KeyVerb};
use clap::Parser;

use crate::support::{SoftCustodian, three, trust};

fn statement(custodians: &[SoftCustodian], findings: [Finding; 3]) -> Statement {
    Statement {
        key_id: "openai-prod".parse().expect("a name"),
        version: 1,
        generation: 1,
        header_hash: [1; 32],
        envelope_hash: [2; 32],
        threshold: 2,
        findings: custodians
            .iter()
            .zip(findings)
            .map(|(one, finding)| (one.signed.descriptor.fingerprint(), finding))
            .collect(),
        nonce: vec![9; 16],
        audit_records: 1,
        audit_hash: [3; 32],
        revision: 1,
        made_at: 1_700_000_000,
    }
}

fn signed_by(statement: &Statement, custodians: &[&SoftCustodian]) -> SavedStatement {
    let encoded = statement.encode();
    let signatures = custodians.iter().map(|one| Signature {
        fingerprint: one.signed.descriptor.fingerprint(),
        signature: one.sign_statement(&encoded),
    });
    SavedStatement {
        signatures: signatures.collect(),
        statement: encoded,
    }
}

fn verified(parts: &[Part], threshold: usize) -> bool {
    parts.iter().filter(|part| part.stands()).count() >= threshold && !parts.iter().any(Part::lies)
}

fn verdict(custodians: &[SoftCustodian], findings: [Finding; 3], signers: &[usize]) -> bool {
    let statement = statement(custodians, findings);
    let signers: Vec<_> = signers.iter().map(|at| &custodians[*at]).collect();
    let saved = signed_by(&statement, &signers);
    let parts = judge(&trust(custodians, &[]), &statement, &saved).expect("pinned");
    verified(&parts, 2)
}

#[test]
fn two_tokens_that_hold_and_sign_are_enough_and_one_is_not() {
    use Finding::{Differs, Holds, NoAnswer};
    let all = three();
    assert!(verdict(&all, [Holds, Holds, Holds], &[0, 1, 2]));
    assert!(verdict(&all, [Holds, Holds, NoAnswer], &[0, 1]));
    assert!(!verdict(&all, [Holds, NoAnswer, NoAnswer], &[0]));
    // What a silent token holds is the daemon's word alone.
    assert!(!verdict(&all, [Holds, Holds, Holds], &[0]));
    // One that contradicts spoils it, whatever the others say.
    assert!(!verdict(&all, [Holds, Holds, Differs], &[0, 1, 2]));
}

#[test]
fn a_signature_by_another_key_or_over_other_bytes_is_a_lie() {
    let all = three();
    let statement = statement(&all, [Finding::Holds; 3]);
    let trust = trust(&all, &[]);
    let good = signed_by(&statement, &[&all[0], &all[1], &all[2]]);
    let mut swapped = good.clone();
    swapped.signatures[0].signature = good.signatures[1].signature.clone();
    let parts = judge(&trust, &statement, &swapped).expect("pinned");
    assert!(parts[0].lies() && !verified(&parts, 2));
    let mut changed = good;
    *changed.statement.last_mut().expect("not empty") ^= 1;
    let other = Statement::parse(&changed.statement).expect("still parses");
    let parts = judge(&trust, &other, &changed).expect("pinned");
    assert!(parts.iter().all(Part::lies));
}

#[test]
fn a_custodian_that_nobody_pinned_ends_it() {
    let all = three();
    let statement = statement(&all, [Finding::Holds; 3]);
    let saved = signed_by(&statement, &[&all[0], &all[1]]);
    assert!(judge(&trust(&all[..2], &[]), &statement, &saved).is_err());
}

#[test]
fn receipt_answers_are_compared_one_by_one() {
    let all = three();
    let statement = statement(&all, [Finding::Holds; 3]);
    let saved = signed_by(&statement, &[&all[0], &all[1], &all[2]]);
    let challenge = |byte: u8| Challenge {
        challenge: hex::encode([byte; 32]),
        answer: hex::encode([byte + 100; 32]),
    };
    let challenges = [challenge(1), challenge(2), challenge(3)];
    let judged = |answers: [Vec<u8>; 3]| {
        let mut parts = judge(&trust(&all, &[]), &statement, &saved).expect("pinned");
        judge_answers(&mut parts, &challenges, &answers);
        parts
    };
    let right = |byte: u8| vec![byte + 100; 32];
    assert!(verified(&judged([right(1), right(2), right(3)]), 2));
    assert!(verified(&judged([right(1), right(2), Vec::new()]), 2));
    assert!(!verified(&judged([right(1), Vec::new(), Vec::new()]), 2));
    let wrong = judged([right(1), right(2), right(1)]);
    assert_eq!(wrong[2].receipt, Receipted::Wrong);
    assert!(!verified(&wrong, 2));
}

fn options(arguments: &[&str]) -> VerifyKey {
    let line = [&["tacit", "key", "verify", "openai-prod"], arguments].concat();
    match Cli::try_parse_from(line).expect("parses").command {
        Command::Key(KeyVerb::Verify(options)) => options,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_statement_about_something_else_is_refused() {
    let all = three();
    let good = statement(&all, [Finding::Holds; 3]);
    let check = |statement: &Statement, nonce: &[u8]| {
        check_asked(statement, &options(&[]), 1, nonce, None).is_ok()
    };
    assert!(check(&good, &[9; 16]));
    assert!(!check(&good, &[8; 16]));
    assert!(!check(
        &Statement {
            version: 2,
            ..good.clone()
        },
        &[9; 16]
    ));
    let other = "openai-test".parse().expect("a name");
    assert!(!check(
        &Statement {
            key_id: other,
            ..good
        },
        &[9; 16]
    ));
}

#[test]
fn a_nonce_has_16_to_64_bytes() {
    assert_eq!(nonce(None).expect("drawn").len(), 32);
    assert_ne!(nonce(None).expect("drawn"), nonce(None).expect("drawn"));
    assert!(nonce(Some(&"ab".repeat(16))).is_ok());
    for bad in [
        "ab".repeat(15),
        "ab".repeat(65),
        "xy".repeat(16),
        String::new(),
    ] {
        assert!(nonce(Some(&bad)).expect_err("refused").is::<Usage>());
    }
}
