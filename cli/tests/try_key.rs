//! `tacit key test`, and the same after `key add`: agents try the key, and what came of it is told.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::sync::Arc;

use proto::v1::*;

mod scripted;
mod support;

use scripted::{ADD, Desk, SECRET, Script, presented, text};

fn result(agent: &str, ok: bool, detail: &str) -> test_key_response::Result {
    test_key_response::Result {
        agent: agent.to_owned(),
        ok,
        detail: detail.to_owned(),
    }
}

fn agent(connected: bool) -> AgentStatus {
    AgentStatus {
        name: "px".to_owned(),
        connected,
        key_ids: vec!["openai-prod".to_owned()],
        ..AgentStatus::default()
    }
}

const TEST: [&str; 3] = ["key", "test", "openai-prod"];

#[tokio::test]
async fn every_agents_finding_is_shown_and_one_failure_is_a_negative_answer() {
    let (good, bad) = (
        result("px", true, "200"),
        result("py", false, "401 invalid_api_key"),
    );
    for (tested, code) in [
        (vec![good.clone()], 0),
        (vec![good, bad], 1),
        (Vec::new(), 1),
    ] {
        let custodians = support::three();
        let script = Script {
            tested: tested.clone(),
            ..Script::default()
        };
        let desk = Desk::new(&custodians, script).await;
        let output = desk.run(&TEST, "").await;
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        for one in &tested {
            assert!(
                said.contains(&one.agent) && said.contains(&one.detail),
                "{said}"
            );
        }
        assert_eq!(
            said.contains("no connected agent"),
            tested.is_empty(),
            "{said}"
        );

        let output = desk
            .run(&[&TEST[..], &["--output", "json"]].concat(), "")
            .await;
        assert_eq!(output.status.code(), Some(code));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["key_id"], "openai-prod");
        let results = document["results"].as_array().unwrap();
        assert_eq!(results.len(), tested.len());
        for (shown, one) in results.iter().zip(&tested) {
            assert_eq!(shown["agent"], one.agent);
            assert_eq!(shown["ok"], one.ok);
        }
    }
}

#[tokio::test]
async fn one_agent_can_be_named() {
    let custodians = support::three();
    let script = Script {
        tested: vec![result("px", true, "200")],
        ..Script::default()
    };
    let tests = Arc::clone(&script.tests);
    let desk = Desk::new(&custodians, script).await;
    let output = desk
        .run(&[&TEST[..], &["--agent", "px"]].concat(), "")
        .await;
    assert!(output.status.success(), "{}", text(&output));
    let asked = TestKeyRequest {
        key_id: "openai-prod".to_owned(),
        agent: "px".to_owned(),
    };
    assert_eq!(*tests.lock().unwrap(), [asked]);
}

#[tokio::test]
async fn add_has_the_key_tried_and_a_bad_one_is_a_warning() {
    for (agents, tested, options, tries, warns) in [
        (
            vec![agent(true)],
            result("px", true, "200"),
            &[][..],
            1,
            false,
        ),
        (vec![agent(true)], result("px", false, "401"), &[], 1, true),
        (
            vec![agent(true)],
            result("px", false, "401"),
            &["--no-test"],
            0,
            false,
        ),
        (
            vec![agent(false)],
            result("px", false, "401"),
            &[],
            0,
            false,
        ),
        (Vec::new(), result("px", false, "401"), &[], 0, false),
    ] {
        let custodians = support::three();
        let script = Script {
            status: presented(&custodians),
            agents,
            tested: vec![tested],
            ..Script::default()
        };
        let tests = Arc::clone(&script.tests);
        let desk = Desk::new(&custodians, script).await;
        let output = desk.run(&[&ADD[..], options].concat(), SECRET).await;
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        assert_eq!(tests.lock().unwrap().len(), tries, "{said}");
        assert_eq!(said.contains("warning"), warns, "{said}");
        assert_eq!(said.contains("401"), warns, "{said}");
        assert_eq!(said.contains("px"), tries == 1, "{said}");
    }
}
