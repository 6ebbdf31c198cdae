//! The hunt for secrets: first that it finds what is there, then that nothing is there.

#![allow(clippy::unwrap_used)]

use serde_json::json;
use tests::canary::Canary;
use tests::fixture;
use tests::http;
use tests::stack::{LoneAgent, Route};
use tests::upstream::{Mode, Provider, Upstream};

#[test]
fn the_hunt_finds_planted_copies_in_files_and_in_memory() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let dek: Vec<u8> = (0..32u8)
        .map(|step| step.wrapping_mul(73).wrapping_add(41))
        .collect();
    let canary = Canary::armed(dir.path(), &[("provider key", key()), ("DEK", &dek)])?;
    // Below a directory, in a name too, and nowhere when it is gone.
    let deep = dir.path().join("state/log");
    std::fs::create_dir_all(&deep)?;
    std::fs::write(
        deep.join("trace.log"),
        [b"x-api-key: ".as_slice(), key()].concat(),
    )?;
    assert!(!canary.tree(dir.path())?.hits.is_empty());
    assert!(
        canary
            .tree(dir.path())?
            .clean("a tree with a copy")
            .is_err()
    );
    std::fs::remove_file(deep.join("trace.log"))?;
    std::fs::write(deep.join(std::str::from_utf8(key())?), "x")?;
    assert!(
        !canary.tree(dir.path())?.hits.is_empty(),
        "a file name is a place too"
    );
    std::fs::remove_file(deep.join(std::str::from_utf8(key())?))?;
    std::fs::write(deep.join("trace.log"), "x-api-key: [secret, 66 bytes]")?;
    canary.tree(dir.path())?.clean("a tree without")?;
    assert!(canary.tree(&dir.path().join("state/log")).is_ok());
    Ok(())
}

/// The agent is the one process that may hold the key: in its locked arena, and nowhere else. Root
/// reads all of it here, which is more than an attacker without root ever could.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_leaves_no_key_in_logs_answers_or_ordinary_memory() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(fixture::provider()).await?;
    let keys = tempfile::tempdir()?;
    let mut secrets: Vec<(&str, &[u8])> = Vec::new();
    let mut routes = Vec::new();
    for provider in Provider::SHARED {
        routes.push(Route::file(
            provider.name(),
            fixture::key_file(keys.path(), provider)?,
        ));
        secrets.push((provider.name(), fixture::key(provider).as_bytes()));
    }
    let canary = Canary::armed(dir.path(), &secrets)?;
    let ca = dir.path().join("ca.pem");
    upstream.write_ca(&ca)?;
    let agent = LoneAgent::start(dir.path(), &routes, &upstream.url(), &ca)?;
    let body =
        json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "one two"}]});
    for mode in [
        Mode::Normal,
        Mode::KeyRejected,
        Mode::Status(500),
        Mode::Normal,
    ] {
        upstream.set_mode(mode);
        for _ in 0..5 {
            let answer = http::post(
                &format!("{}/openai/v1/chat/completions", agent.url),
                "",
                &body,
            )?;
            canary
                .bytes("head", answer.head.as_bytes())
                .clean("an answer's head")?;
            canary
                .bytes("body", &answer.body)
                .clean("an answer's body")?;
        }
    }
    let metrics = http::get(&format!("{}/metrics", agent.admin))?;
    canary
        .bytes("metrics", &metrics.body)
        .clean("the metrics page")?;
    canary.tree(dir.path())?.clean("configuration and logs")?;
    let memory = canary.process(agent.process.pid())?;
    assert!(
        memory.bytes > 1 << 20,
        "only {} bytes of memory were readable",
        memory.bytes
    );
    memory.outside_locked_memory().clean("the agent's memory")?;
    // The wire of the provider is where the key belongs: the same hunt finds it there.
    assert!(
        !canary
            .bytes("wire", &upstream.wire().concat())
            .hits
            .is_empty()
    );
    Ok(())
}

fn key() -> &'static [u8] {
    fixture::key(Provider::OpenAi).as_bytes()
}
