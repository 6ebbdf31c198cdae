//! Who may use a key and for what, as the built command says it to a daemon and shows what that answers.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::sync::Arc;

use proto::v1::*;

mod scripted;
mod support;

use scripted::{ADD, Desk, SECRET, Script, presented, text};

fn list(values: &[&str]) -> Option<StringList> {
    let values = values.iter().map(ToString::to_string).collect();
    Some(StringList { values })
}

fn attribute(name: &str, value: &str) -> Attribute {
    Attribute {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn summary() -> KeySummary {
    KeySummary {
        key_id: "openai-prod".to_owned(),
        provider: "openai".to_owned(),
        current_version: 1,
        state: "active".to_owned(),
        permissions: vec!["chat".to_owned()],
        models: vec!["gpt-4o".to_owned()],
        attributes: vec![attribute("project", "proj_1")],
        defaulted: vec!["models".to_owned()],
        ..KeySummary::default()
    }
}

#[tokio::test]
async fn add_says_what_the_key_is_for_and_leaves_out_what_was_not_said() {
    let custodians = support::three();
    let script = Script {
        status: presented(&custodians),
        ..Script::default()
    };
    let added = Arc::clone(&script.added);
    let desk = Desk::new(&custodians, script).await;
    let options = [
        "--permission",
        "chat",
        "--permission",
        "files",
        "--model",
        "",
        "--project",
        "proj_1",
        "--no-test",
    ];
    let output = desk.run(&[&ADD[..], &options].concat(), SECRET).await;
    assert!(output.status.success(), "{}", text(&output));
    let expected = KeyPolicy {
        permissions: list(&["chat", "files"]),
        models: list(&[]),
        attributes: vec![attribute("project", "proj_1")],
        ..KeyPolicy::default()
    };
    assert_eq!(added.lock().unwrap()[0].policy, Some(expected));
}

#[tokio::test]
async fn a_word_that_is_no_permission_is_refused_before_the_secret_is_read() {
    let custodians = support::three();
    let script = Script {
        status: presented(&custodians),
        ..Script::default()
    };
    let added = Arc::clone(&script.added);
    let desk = Desk::new(&custodians, script).await;
    let line = [&ADD[..], &["--permission", "Chat"]].concat();
    let output = desk.run(&line, SECRET).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("fine-tuning"), "{}", text(&output));
    assert!(added.lock().unwrap().is_empty());
}

#[tokio::test]
async fn set_sends_what_changes_alone_and_follows_the_agents() {
    let custodians = support::three();
    let script = Script {
        progress: vec![ChangeProgress {
            key: Some(summary()),
            agents: 2,
            acknowledged: 2,
            elapsed_us: 3_000,
            revision: 8,
            note: "agents of an older version do not keep to permissions".to_owned(),
            done: true,
            ..ChangeProgress::default()
        }],
        ..Script::default()
    };
    let set = Arc::clone(&script.set);
    let desk = Desk::new(&custodians, script).await;
    let line = [
        "key",
        "set",
        "openai-prod",
        "--model",
        "*",
        "--description",
        "",
        "--organization",
        "org-1",
        "--reset",
        "permissions",
        "--reset",
        "project",
    ];
    let output = desk.run(&line, "").await;
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("changed openai-prod: active"), "{said}");
    assert!(said.contains("acknowledged 2 of 2 in 3 ms"), "{said}");
    assert!(said.contains("agents of an older version"), "{said}");
    let expected = SetKeyRequest {
        key_id: "openai-prod".to_owned(),
        policy: Some(KeyPolicy {
            models: list(&["*"]),
            description: Some(String::new()),
            attributes: vec![attribute("organization", "org-1")],
            ..KeyPolicy::default()
        }),
        reset: vec!["permissions".to_owned(), "project".to_owned()],
        no_wait: false,
    };
    assert_eq!(*set.lock().unwrap(), [expected]);

    let output = desk
        .run(&[&line[..], &["--output", "json"]].concat(), "")
        .await;
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["action"], "changed");
    assert_eq!(document["key"]["permissions"][0], "chat");
}

#[tokio::test]
async fn set_without_a_change_asks_nobody() {
    let custodians = support::three();
    let script = Script::default();
    let set = Arc::clone(&script.set);
    let desk = Desk::new(&custodians, script).await;
    let output = desk.run(&["key", "set", "openai-prod"], "").await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(set.lock().unwrap().is_empty());
}

#[tokio::test]
async fn show_tells_what_the_key_is_for_and_where_that_comes_from() {
    let custodians = support::three();
    let script = Script {
        known: ShowKeyResponse {
            key: Some(summary()),
            ..ShowKeyResponse::default()
        },
        ..Script::default()
    };
    let desk = Desk::new(&custodians, script).await;
    let output = desk.run(&["key", "show", "openai-prod"], "").await;
    let said = text(&output);
    assert!(said.contains("gpt-4o (default)"), "{said}");
    assert!(!said.contains("chat (default)"), "{said}");
    assert!(said.contains("project proj_1"), "{said}");
    let output = desk
        .run(&["key", "show", "openai-prod", "--output", "json"], "")
        .await;
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["key"]["attributes"]["project"], "proj_1");
    assert_eq!(document["key"]["defaulted"][0], "models");
}
