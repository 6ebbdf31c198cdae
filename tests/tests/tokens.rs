//! Token processes that die, stop or hang: no lease is lost while enough others answer, and the
//! operator sees what happened.

#![allow(clippy::unwrap_used)]

use anyhow::Context as _;
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::http;
use tests::process::{eventually, send};
use tests::scene::Scene;
use tests::upstream::Provider;

fn custodians(scene: &Scene) -> anyhow::Result<Vec<Value>> {
    let status = scene.stack.tacit_json(&["status"], b"")?;
    Ok(status["custodians"]
        .as_array()
        .context("status shows custodians")?
        .clone())
}

fn restarts(custodians: &[Value]) -> u64 {
    custodians
        .iter()
        .filter_map(|custodian| custodian["restarts"].as_u64())
        .sum()
}

/// Three processes, all of them up and none of them `old`.
fn replaced(scene: &Scene, old: u32) -> anyhow::Result<()> {
    let done = || {
        let custodians = custodians(scene).ok()?;
        let up = custodians
            .iter()
            .filter(|custodian| custodian["state"] == "up")
            .count();
        let pids = scene.stack.pids("tacit-token");
        (up == 3 && pids.len() == 3 && !pids.contains(&old)).then_some(())
    };
    eventually("the token process is replaced", done).with_context(|| {
        let lines = custodians(scene)
            .unwrap_or_default()
            .into_iter()
            .map(|custodian| {
                format!(
                    "{} {} pid {}: {}",
                    custodian["id"], custodian["state"], custodian["pid"], custodian["detail"]
                )
            });
        format!(
            "{old} is not replaced: {:?}; running: {:?}",
            lines.collect::<Vec<_>>(),
            scene.stack.pids("tacit-token")
        )
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_or_stopped_token_process_costs_no_lease() -> anyhow::Result<()> {
    // Every request takes a lease through the tokens.
    let scene = Scene::start("0s").await?;
    scene.add(Provider::OpenAi)?;
    eventually("the agent serves", || {
        scene.chat().ok().filter(|answer| answer.status == 200)
    })?;
    let before = restarts(&custodians(&scene)?);
    for (round, signal) in [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGABRT]
        .into_iter()
        .enumerate()
    {
        let victim = *scene
            .stack
            .pids("tacit-token")
            .get(round)
            .context("three token processes")?;
        scene.serving(|| {
            send(victim, signal)?;
            replaced(&scene, victim)
                .with_context(|| format!("after {signal} to token process {round}"))
        })?;
    }
    let after = restarts(&custodians(&scene)?);
    assert!(
        after >= before + 3,
        "status shows {after} restarts after {before}"
    );
    let metrics = http::get(&format!("{}/metrics", scene.stack.field("hsmd_admin")?))?.text();
    let counted: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("tacit_hsmd_custodian_restarts{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(
        counted >= 3.0,
        "the metrics show {counted} restarts: {metrics}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_tokens_requests_are_refused_and_recover() -> anyhow::Result<()> {
    let scene = Scene::start("0s").await?;
    scene.add(Provider::OpenAi)?;
    eventually("the agent serves", || {
        scene.chat().ok().filter(|answer| answer.status == 200)
    })?;
    let tokens = scene.stack.pids("tacit-token");
    for token in &tokens[..2] {
        send(*token, Signal::SIGSTOP)?;
    }
    let arrived = scene.upstream.request_count();
    let answer = scene.chat()?;
    if answer.status != 200 {
        // The daemon may have replaced a token before the request needed it; otherwise this is the refusal.
        assert_eq!(
            answer.header("x-tacit-error"),
            Some("hsm_unavailable"),
            "{} {}",
            answer.head,
            answer.text()
        );
        assert_eq!(
            scene.upstream.request_count(),
            arrived,
            "a request left without a lease"
        );
    }
    eventually("leases are served again", || {
        scene.chat().ok().filter(|answer| answer.status == 200)
    })?;
    Ok(())
}
