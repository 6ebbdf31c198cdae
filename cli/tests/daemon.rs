//! The built command against a daemon that the test scripts: what it sends, what it believes, how it tells a refusal.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::sync::Arc;

use custody::SealedKey;
use proto::v1::*;

mod scripted;
mod support;

use scripted::{ADD, Desk, SECRET, Script, exists, presented, text};

#[tokio::test]
async fn add_seals_the_upstreams_asked_for_and_submits_ciphertext_alone() {
    let custodians = support::three();
    let script = Script {
        status: presented(&custodians),
        answer: AddKeyResponse {
            usable_by: vec!["nobody: no caller is of environment production".to_owned()],
            ..AddKeyResponse::default()
        },
        ..Script::default()
    };
    let added = Arc::clone(&script.added);
    let desk = Desk::new(&custodians, script).await;
    let line = [&ADD[..], &["--upstream", "https://gw.example"]].concat();
    let output = desk.run(&line, SECRET).await;
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("nobody: no caller is of environment production"));
    let added = added.lock().unwrap();
    let [request] = added.as_slice() else {
        panic!("one key was added");
    };
    assert!(!request.sealed.windows(6).any(|part| part == b"Canary"));
    let policy = request.policy.clone().unwrap();
    assert!(policy.environments.is_none() && policy.teams.is_none()); // the daemon's defaults, not "nobody"
    let sealed = SealedKey::parse(&request.sealed).unwrap();
    let trust = custody::Trust::parse(&fs::read(desk.path("custodians.json")).unwrap()).unwrap();
    let provenance = sealed.verify(&trust).unwrap();
    let upstreams: Vec<_> = provenance
        .header()
        .upstreams
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(upstreams, ["https://gw.example"]);
}

#[tokio::test]
async fn a_daemon_with_another_descriptor_gets_nothing() {
    let custodians = support::three();
    let mut lying = support::three();
    lying.truncate(1);
    let script = Script {
        status: presented(&lying),
        ..Script::default()
    };
    let added = Arc::clone(&script.added);
    let desk = Desk::new(&custodians, script).await;
    let output = desk.run(&ADD, SECRET).await;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(
        said.contains("another descriptor") && said.contains("tacit trust pin"),
        "{said}"
    );
    assert!(added.lock().unwrap().is_empty());
    let shown = desk.run(&["trust", "show"], "").await;
    assert!(text(&shown).contains("a  CHANGED"), "{}", text(&shown));
}

#[tokio::test]
async fn a_refusal_carries_the_daemons_code_and_takes_the_receipt_back() {
    let custodians = support::three();
    let script = Script {
        status: presented(&custodians),
        refusal: Some(("conflict", "key openai-prod exists")),
        ..Script::default()
    };
    let desk = Desk::new(&custodians, script).await;
    let line = [&ADD[..], &["--receipt", "r.json", "--output", "json"]].concat();
    let output = desk.run(&line, SECRET).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "conflict");
    assert!(!exists(&desk.path("r.json")));
}

#[tokio::test]
async fn a_revoke_tells_its_reach_and_a_cut_stream_is_a_failure() {
    let custodians = support::three();
    let reached = |done| ChangeProgress {
        agents: 14,
        acknowledged: 12,
        not_connected: 2,
        leases_end_ms: 1_000,
        elapsed_us: 3_000,
        revision: 7,
        done,
        ..ChangeProgress::default()
    };
    for (last, code) in [(true, 0), (false, 1)] {
        let script = Script {
            progress: vec![reached(false), reached(last)],
            ..Script::default()
        };
        let desk = Desk::new(&custodians, script).await;
        let output = desk.run(&["key", "revoke", "openai-prod"], "").await;
        let said = text(&output);
        let line = "acknowledged 12 of 14 in 3 ms; 2 not connected, their leases end by 00:00:01";
        assert!(said.lines().any(|own| own == line), "{said}");
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.contains("the last lease has ended"), last, "{said}");
        assert_eq!(said.contains("revision 7"), !last, "{said}");
    }
}

/// Erases the line above, then claims something else; with a faked next step in a line of its own.
const TRICK: &str = "\u{1b}[1A\u{1b}[2Kall is well\u{202e}\n  next: tacit key verify k\u{9b}2K";

fn assert_tame(output: &std::process::Output) {
    let said = text(output);
    let tame = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
    assert!(said.chars().all(tame), "{said:?}");
    assert!(said.contains("all is well"), "{said}");
    assert!(
        !said
            .lines()
            .any(|line| line.starts_with("  next: tacit key verify")),
        "{said}"
    );
}

#[tokio::test]
async fn nothing_that_the_daemon_says_moves_the_cursor_or_fakes_a_line() {
    let custodians = support::three();
    let trick = || TRICK.to_owned();
    let key = KeySummary {
        key_id: trick(),
        provider: trick(),
        state: trick(),
        ..KeySummary::default()
    };
    let mut status = presented(&custodians);
    status.notes = vec![trick()];
    status.version = trick();
    let script = Script {
        status,
        answer: AddKeyResponse {
            key: Some(key.clone()),
            usable_by: vec![trick()],
            missing_custodians: vec![trick()],
            elsewhere: vec![trick()],
        },
        progress: vec![ChangeProgress {
            key: Some(key),
            missing_custodians: vec![trick()],
            note: trick(),
            done: true,
            ..ChangeProgress::default()
        }],
        ..Script::default()
    };
    let refusing = Script {
        refusal: Some(("conflict", TRICK)),
        ..script.clone()
    };
    let desk = Desk::new(&custodians, script).await;
    for form in ["table", "json"] {
        for line in [&ADD[..], &["key", "revoke", "k"], &["status"]] {
            let output = desk
                .run(&[line, &["--output", form]].concat(), SECRET)
                .await;
            assert!(output.status.success(), "{}", text(&output));
            assert_tame(&output);
        }
        let desk = Desk::new(&custodians, refusing.clone()).await;
        let output = desk
            .run(&[&ADD[..], &["--output", form]].concat(), SECRET)
            .await;
        assert_eq!(output.status.code(), Some(1));
        assert_tame(&output);
    }
}

#[tokio::test]
async fn a_note_beside_a_change_is_shown() {
    let custodians = support::three();
    let script = Script {
        progress: vec![ChangeProgress {
            note: "2 leases from before the restart are not known".to_owned(),
            done: true,
            ..ChangeProgress::default()
        }],
        ..Script::default()
    };
    let desk = Desk::new(&custodians, script).await;
    for form in ["table", "json"] {
        let output = desk
            .run(&["key", "revoke", "k", "--output", form], "")
            .await;
        assert!(
            text(&output).contains("from before the restart"),
            "{}",
            text(&output)
        );
    }
}
