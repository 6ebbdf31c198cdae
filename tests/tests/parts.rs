//! Three daemons, each with one custodian, and keys that any two of them open: real tokens, real processes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use tests::fixture;
use tests::parts::Parts;
use tests::process::eventually;
use tests::stack;
use tests::upstream::Provider;

/// Well below the two seconds after which a call to a daemon is given up, and well above the hedge on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn any_two_of_three_daemons_serve_and_no_one_alone() -> anyhow::Result<()> {
    let mut parts = Parts::start(2, 3, "0s").await?;
    let shown = parts.tacit(0, &["key", "show", &Parts::id()])?;
    let version = &shown["versions"][0];
    ensure!(
        version["ingested"].as_array().map(Vec::len) == Some(1),
        "{shown}"
    );
    ensure!(
        version["elsewhere"].as_array().map(Vec::len) == Some(2),
        "{shown}"
    );
    let status = parts.tacit(1, &["status"])?;
    ensure!(
        status["part"] == true && status["ready"] == true && status["quorum"] == 1,
        "{status}"
    );
    parts.margin_becomes(1)?;

    // Every set of daemons that are stopped in their tracks.
    for failing in 0..8u32 {
        let stopped: Vec<usize> = (0..3).filter(|at| failing >> at & 1 == 1).collect();
        for at in &stopped {
            parts.daemons[*at].process()?.signal(Signal::SIGSTOP)?;
        }
        let start = Instant::now();
        let answer = parts.chat()?;
        let took = start.elapsed();
        for at in &stopped {
            parts.daemons[*at].process()?.signal(Signal::SIGCONT)?;
        }
        if stopped.len() <= 1 {
            ensure!(
                answer.status == 200,
                "{failing:b}: {} {}",
                answer.head,
                answer.text()
            );
            ensure!(took < AT_ONCE, "{failing:b}: {took:?}");
        } else {
            ensure!(answer.status == 503, "{failing:b}: {}", answer.head);
            ensure!(
                answer.header("x-tacit-error") == Some("hsm_unavailable"),
                "{}",
                answer.head
            );
        }
    }
    let seen = parts.upstream.requests().pop().context("a request")?;
    let credential = String::from_utf8(seen.header("authorization")[0].to_vec())?;
    ensure!(credential == format!("Bearer {}", fixture::key(Provider::OpenAi)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_end_and_come_back_are_noticed_and_one_of_them_is_not_missed()
-> anyhow::Result<()> {
    let mut parts = Parts::start(2, 3, "0s").await?;
    parts.margin_becomes(1)?;
    for at in 0..3 {
        parts.daemons[at].stop()?;
        ensure!(parts.chat()?.status == 200, "without {at}");
        parts.margin_becomes(0)?;
        let next = (at + 1) % 3;
        parts.daemons[next].stop()?;
        ensure!(parts.chat()?.status == 503, "without {at} and {next}");
        parts.margin_becomes(-1)?;
        parts.daemons[next].start()?;
        parts.daemons[at].start()?;
        parts.margin_becomes(1)?;
        ensure!(parts.chat()?.status == 200, "all are back");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_at_one_daemon_ends_the_lease_though_two_would_go_on() -> anyhow::Result<()> {
    let parts = Parts::start(2, 3, "1h").await?;
    parts.margin_becomes(1)?;
    ensure!(parts.chat()?.status == 200, "it serves");
    // The agent prefers the first two; the third has given it no share.
    let revoked = parts.tacit(2, &["key", "revoke", &Parts::id(), "--reason", "story"])?;
    ensure!(revoked["acknowledged"] == 1, "{revoked}");
    let refused = parts.chat()?;
    ensure!(refused.status != 200, "{}", refused.head);
    let first = parts.tacit(0, &["key", "show", &Parts::id()])?;
    ensure!(first["key"]["state"] == "active", "{first}");
    // Adding it once more where it is changes nothing; where it was revoked it stays so.
    parts.add_at(0)?;
    let again = stack::run(
        parts.command(2, &["key", "add", &Parts::id(), "--sealed", "/dev/null"])?,
        b"",
    )?;
    ensure!(!again.status.success());
    ensure!(parts.chat()?.status != 200, "it stays revoked");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_must_be_the_same_at_the_daemons_whose_shares_are_used() -> anyhow::Result<()> {
    let mut parts = Parts::start(2, 3, "0s").await?;
    ensure!(parts.chat()?.status == 200, "it serves");
    let narrow = ["key", "set", &Parts::id(), "--model", "gpt-4o"];
    parts.tacit(0, &narrow)?;
    // Two of three still allow the model.
    eventually("those that agree suffice", || {
        parts.chat().ok().filter(|answer| answer.status == 200)
    })?;
    parts.tacit(1, &narrow)?;
    eventually("two say the narrower terms now", || {
        let answer = parts.chat().ok()?;
        (answer.header("x-tacit-error") == Some("model_not_allowed")).then_some(())
    })?;
    // One of each kind is left.
    parts.daemons[1].stop()?;
    let refused = parts.chat()?;
    ensure!(
        refused.header("x-tacit-error") == Some("hsm_unavailable"),
        "{}",
        refused.head
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_parts_is_sealed_once_and_not_at_a_daemon() -> anyhow::Result<()> {
    let parts = Parts::start(2, 2, "0s").await?;
    let add = ["key", "add", "other", "--provider", "openai", "--no-test"];
    let refused = stack::run(parts.command(0, &add)?, b"sk-fake-not-a-key")?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(1) && said.contains("tacit key seal other"),
        "{said}"
    );
    Ok(())
}
