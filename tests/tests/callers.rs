//! Who may ask: users that no rule names are refused by name, and each refusal stands in the audit log before its answer.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::process::{Process, bin, eventually};
use tests::scene::Scene;
use tests::stack::{self, Stack};
use tests::upstream::Provider;

/// All audit records of a daemon's state, in order; the chain must hold.
fn audit(state: &Path) -> anyhow::Result<Vec<Value>> {
    let mut files: Vec<_> = fs::read_dir(state.join("audit"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    files.sort();
    let (mut records, mut prev) = (Vec::new(), "0".repeat(64));
    for file in files {
        for line in fs::read_to_string(file)?.lines() {
            let record: Value = serde_json::from_str(line)?;
            ensure!(
                record["prev"] == prev.as_str(),
                "the chain breaks at {line}"
            );
            prev = hex::encode(custody::sha256(line.as_bytes()));
            records.push(record);
        }
    }
    Ok(records)
}

fn has(records: &[Value], action: &str, outcome: &str) -> bool {
    records
        .iter()
        .any(|record| record["action"] == action && record["outcome"] == outcome)
}

#[test]
fn an_operator_that_no_rule_names_is_refused_and_audited() -> anyhow::Result<()> {
    let stack = Stack::plain()?;
    let config = stack.path("hsmd_config")?;
    let state = config.parent().context("a directory")?.join("state");
    let mut post = stack.into_post()?;
    let original = fs::read_to_string(&config)?;
    let own = format!("uids = [{}]", nix::unistd::Uid::effective());
    ensure!(original.contains(&own), "{own} is not in {original}");
    fs::write(&config, original.replace(&own, "uids = [4242]"))?;
    let mut command = Command::new(bin("hsmd")?);
    command.arg("--config").arg(&config);
    let mut process = Process::start("strangers", command, post.dir())?;
    let refusal = eventually("the daemon answers", || {
        let command = post.command(&["key", "list", "--output", "json"]).ok()?;
        let output = stack::run(command, b"").ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.contains("permission_denied")
            .then_some((output.status.code(), text))
    })?;
    ensure!(
        refusal.0 == Some(1) && refusal.1.contains("[admin] uids"),
        "{refusal:?}"
    );
    process.terminate()?;
    drop(process);
    ensure!(
        has(&audit(&state)?, "key.list", "permission_denied"),
        "not audited"
    );
    fs::write(&config, original)?;
    let daemon = post.start()?;
    post.tacit_json(&["key", "list"])?;
    drop(daemon);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_another_team_gets_no_lease_and_every_decision_is_audited() -> anyhow::Result<()>
{
    let scene = Scene::start("0s").await?;
    let key = tests::fixture::key(Provider::OpenAi).as_bytes();
    let upstream = scene.upstream.url();
    let add = |id: &str, environment: &str| {
        let arguments = [
            "key",
            "add",
            id,
            "--provider",
            "openai",
            "--upstream",
            &upstream,
            "--environment",
            environment,
            "--no-test",
        ];
        scene.stack.tacit_json(&arguments, key)
    };
    let added = add("openai-prod", "production")?;
    ensure!(added.to_string().contains("nobody"), "{added}");
    let refused = scene.chat()?;
    ensure!(
        refused.status == 403 && refused.header("x-tacit-error") == Some("permission_denied"),
        "{} {}",
        refused.head,
        refused.text()
    );
    ensure!(
        scene.upstream.request_count() == 0,
        "a request left without a lease"
    );

    // The nearest neighbour: the same agent, a key of its own environment.
    scene
        .stack
        .tacit_json(&["key", "revoke", "openai-prod", "--no-wait"], b"")?;
    scene
        .stack
        .tacit_json(&["key", "destroy", "openai-prod", "--yes"], b"")?;
    add("other", "development")?;
    let unknown = scene.stack.tacit(&["key", "verify", "nosuch"], b"")?;
    ensure!(unknown.status.code() == Some(1), "{unknown:?}");

    let state = scene.stack.path("hsmd_config")?;
    let records = audit(&state.parent().context("a directory")?.join("state"))?;
    for (action, outcome) in [
        ("daemon.start", "ok"),
        ("session.open", "ok"),
        ("key.add", "ok"),
        ("lease.refuse", "permission_denied"),
        ("key.revoke", "ok"),
        ("key.destroy", "ok"),
        ("key.verify", "not_found"),
    ] {
        ensure!(
            has(&records, action, outcome),
            "{action} {outcome} is not in the audit log"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_the_key_was_not_sealed_for_gets_nothing() -> anyhow::Result<()> {
    let scene = Scene::start("60s").await?;
    let key = tests::fixture::key(Provider::OpenAi).as_bytes();
    // Sealed for the provider, while the agent's configuration leads elsewhere.
    let elsewhere = [
        "key",
        "add",
        "openai-prod",
        "--provider",
        "openai",
        "--upstream",
        "https://api.openai.com",
        "--no-test",
    ];
    scene.stack.tacit_json(&elsewhere, key)?;
    let refused = scene.chat()?;
    ensure!(
        refused.status == 403 && refused.header("x-tacit-error") == Some("upstream_not_allowed"),
        "{} {}",
        refused.head,
        refused.text()
    );
    ensure!(
        scene.upstream.request_count() == 0,
        "a request left for an origin that the key does not name"
    );

    let upstream = scene.upstream.url();
    let here = [
        "key",
        "rotate",
        "openai-prod",
        "--no-wait",
        "--upstream",
        &upstream,
    ];
    scene.stack.tacit_json(&here, key)?;
    eventually("the successor is served", || {
        scene.chat().ok().filter(|answer| answer.status == 200)
    })?;
    Ok(())
}
