//! The whole of it, as its users live it: keys put in by an operator, used by apps that hold a
//! placeholder, rotated and revoked; and afterwards the hunt for what must be nowhere.

#![allow(clippy::unwrap_used)]

use anyhow::{Context as _, ensure};
use tests::canary::Canary;
use tests::fixture::{self, PLACEHOLDER};
use tests::http;
use tests::process::eventually;
use tests::scene::Scene;
use tests::sdk::{STORIES, Sdks, Target};
use tests::stack::Sockets;
use tests::upstream::Provider;

#[tokio::test(flavor = "multi_thread")]
async fn apps_with_a_placeholder_are_served_and_the_key_is_nowhere() -> anyhow::Result<()> {
    // No cache: every request goes through the tokens, so the scan meets a daemon at work.
    let scene = Scene::start_with("0s", Sockets::Tapped).await?;
    let sealed = scene.add_recorded(Provider::OpenAi)?;
    scene.add(Provider::Anthropic)?;
    scene.add(Provider::Gemini)?;
    scene.stack.agent_ready()?;

    let sdks = Sdks::ready()?;
    let target = Target::agent(scene.stack.agent()?);
    // The plain story of each of these providers, in both generations of both languages.
    let plain = |story: &&_| {
        let tests::sdk::Story {
            provider, script, ..
        } = *story;
        Provider::SHARED.contains(provider) && *script == provider.name()
    };
    for story in STORIES.iter().filter(plain) {
        let before = scene.upstream.request_count();
        let mut running = sdks.start(story, &target, PLACEHOLDER)?;
        running.whole()?;
        running.broken()?;
        for request in &scene.upstream.requests()[before..] {
            assert_eq!(request.refused, None, "{story} {}", request.path);
            // One call of each story is for a model that no provider has.
            let expected = [200, 404].contains(&request.status);
            assert!(expected, "{story} {} {}", request.path, request.status);
        }
        assert!(scene.upstream.request_count() >= before + 3);
    }

    let hunting = tempfile::tempdir()?;
    let mut keys: Vec<(&str, &[u8])> = Provider::SHARED
        .iter()
        .map(|provider| (provider.name(), fixture::key(*provider).as_bytes()))
        .collect();
    let no_key = Canary::armed(hunting.path(), &keys)?;
    keys.push(("DEK", &sealed.dek));
    let no_key_or_dek = Canary::armed(hunting.path(), &keys)?;
    for share in &sealed.shares {
        keys.push(("share", share));
    }
    let nothing = Canary::armed(hunting.path(), &keys)?;

    scene.serving(|| {
        let hsmd = nothing.process(scene.stack.pid("hsmd")?)?;
        ensure!(
            hsmd.bytes > 1 << 20,
            "only {} bytes of the daemon's memory were readable",
            hsmd.bytes
        );
        hsmd.clean("the daemon's memory")?;
        let tokens = scene.stack.pids("tacit-token");
        ensure!(tokens.len() == 3, "{} token processes", tokens.len());
        for token in tokens {
            no_key_or_dek
                .process(token)?
                .clean("a token process's memory")?;
        }
        Ok(())
    })?;
    // At rest: while a request is on its way its head is one more copy, in a buffer that is wiped.
    let agent = no_key_or_dek.process(scene.stack.pid("tacit-agent")?)?;
    agent.outside_locked_memory().clean("the agent's memory")?;
    let (workload, admin) = scene.stack.tapped().context("the sockets are tapped")?;
    ensure!(
        workload.len() > 10_000 && admin.len() > 1_000,
        "nothing went through the taps"
    );
    nothing
        .bytes("workload socket", &workload)
        .clean("the workload socket")?;
    nothing
        .bytes("admin socket", &admin)
        .clean("the admin socket")?;
    nothing
        .tree(scene.stack.dir())?
        .clean("state, tokens, configuration and trace logs")?;
    for page in ["agent_admin", "hsmd_admin"] {
        let metrics = http::get(&format!("{}/metrics", scene.stack.field(page)?))?;
        nothing.bytes(page, &metrics.body).clean("a metrics page")?;
    }
    for arguments in [
        &["key", "list"][..],
        &["key", "show", "openai-prod"],
        &["status"],
        &["agent", "list"],
        &["doctor"],
    ] {
        let output = scene.stack.tacit(arguments, b"")?;
        nothing
            .bytes("output", &[output.stdout, output.stderr].concat())
            .clean("the command's output")?;
    }
    no_key
        .bytes("sealed file", sealed.armor.as_bytes())
        .clean("the sealed file")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_switches_the_agent_and_revocation_stops_it() -> anyhow::Result<()> {
    let successor = fixture::openai();
    let scene = Scene::start("60s").await?;
    let before = scene.chat()?;
    assert_ne!(before.status, 200, "there is no key yet");
    assert_eq!(
        scene.upstream.request_count(),
        0,
        "a request left without a key"
    );
    scene.add(Provider::OpenAi)?;
    eventually("the agent serves", || {
        scene.chat().ok().filter(|answer| answer.status == 200)
    })?;
    assert_eq!(scene.last_key()?, fixture::key(Provider::OpenAi));

    scene
        .upstream
        .accept_key(Provider::OpenAi, successor.as_str());
    let upstream = scene.upstream.url();
    let rotated = scene.stack.tacit_json(
        &["key", "rotate", "openai-prod", "--upstream", &upstream],
        successor.as_bytes(),
    )?;
    // The command returned when the agent had switched.
    assert_eq!(scene.chat()?.status, 200);
    assert_eq!(
        scene.last_key()?,
        successor,
        "the agent did not switch: {rotated}"
    );
    scene
        .stack
        .tacit_json(&["key", "rollback", "openai-prod"], b"")?;
    assert_eq!(scene.chat()?.status, 200);
    assert_eq!(scene.last_key()?, fixture::key(Provider::OpenAi));

    let verified = scene.stack.tacit(&["key", "verify", "openai-prod"], b"")?;
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );

    scene
        .stack
        .tacit_json(&["key", "revoke", "openai-prod", "--reason", "test"], b"")?;
    let arrived = scene.upstream.request_count();
    let refused = scene.chat()?;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(
        refused.header("x-tacit-error"),
        Some("key_revoked"),
        "{}",
        refused.head
    );
    assert_eq!(
        scene.upstream.request_count(),
        arrived,
        "a request left after the revocation"
    );

    // And all of it is still so after a restart.
    let stack = scene.stack.restart()?;
    let shown = stack.tacit_json(&["key", "show", "openai-prod"], b"")?;
    assert_ne!(shown["key"]["state"], "active", "{shown}");
    Ok(())
}
