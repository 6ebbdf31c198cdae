//! The real SDKs from PyPI and npm, two generations each: straight to the test provider first (they and it must
//! agree before either proves anything), then through the agent with a placeholder. Tokens are held against what
//! the test provider really served: for calls that ended well, that were refused, left or failed.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context as _, ensure};
use tests::fixture::{self, PLACEHOLDER};
use tests::metered::Metered;
use tests::process::eventually;
use tests::sdk::{Broken, STORIES, Sdks, Story, Target, Whole};
use tests::stack::{LoneAgent, Route};
use tests::upstream::{Fleet, Provider, Seen, Served, Slots, Tally, Tokens, Upstream};

/// How many stories run at once: they share the machine with daemons, providers and other tests.
const AT_ONCE: usize = 4;

/// Whether the agent estimates the input of calls that broke off: it does from the body of a request. What was said over a WebSocket is "not
/// said" until the provider counts it.
fn input_is_estimated(story: &Story) -> bool {
    !["openai_realtime", "gemini_live"].contains(&story.script)
}

/// The stories of one provider run one after another, so that what moves its counters is one story; the providers
/// run beside each other. Returns all failures at once.
fn in_lanes(
    stories: impl Iterator<Item = &'static Story>,
    run: impl Fn(&'static Story) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let mut lanes: Vec<(Provider, Vec<&'static Story>)> = Vec::new();
    for story in stories {
        match lanes
            .iter_mut()
            .find(|(provider, _)| *provider == story.provider)
        {
            Some((_, lane)) => lane.push(story),
            None => lanes.push((story.provider, vec![story])),
        }
    }
    lanes.sort_by_key(|(_, lane)| std::cmp::Reverse(lane.len()));
    let lanes = Mutex::new(VecDeque::from(lanes));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                loop {
                    let Some((_, lane)) = lanes.lock().unwrap().pop_front() else {
                        break;
                    };
                    for story in lane {
                        if let Err(error) = run(story) {
                            failures.lock().unwrap().push(format!("{story}: {error:#}"));
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

/// What was served since `before`.
fn since(before: &Served, upstream: &Upstream, provider: Provider) -> Served {
    upstream.served(provider).since(before)
}

/// Holds what the SDK was told in the first part against what was served: exactly the same.
fn agrees_on_whole_calls(told: &Whole, served: &Served) -> anyhow::Result<()> {
    ensure!(
        told.complete.tokens != Tokens::default(),
        "no tokens at all"
    );
    ensure!(
        told.complete.tokens == served.complete.tokens,
        "told {told:?}\nserved {served:?}"
    );
    ensure!(
        served.cancelled == Tally::default(),
        "cancelled: {served:?}"
    );
    let refused = Tally {
        calls: told.refused,
        ..Tally::default()
    };
    ensure!(
        served.failed == refused,
        "refused: told {told:?}\nserved {served:?}"
    );
    Ok(())
}

/// The same for the second part, where the app counted by itself and the provider hears of a departure a little later.
fn agrees_on_broken_calls(told: &Broken, served: impl Fn() -> Served) -> anyhow::Result<()> {
    let settled = eventually("the provider notices who left", || {
        Some(served()).filter(|served| served.cancelled.calls == told.cancelled.calls)
    });
    settled.with_context(|| format!("told {told:?}\nserved {:?}", served()))?;
    let served = served();
    ensure!(
        served.cancelled == told.cancelled,
        "cancelled: told {told:?}\nserved {served:?}"
    );
    ensure!(
        served.failed == told.failed,
        "failed: told {told:?}\nserved {served:?}"
    );
    Ok(())
}

/// Every request of a story came with the real key in its slot, and got an answer that the story reckons with.
fn came_in_order(requests: &[Seen]) -> anyhow::Result<()> {
    ensure!(!requests.is_empty(), "no request arrived");
    for request in requests {
        ensure!(
            request.refused.is_none(),
            "{} {:?}",
            request.path,
            request.refused
        );
        let expected = [101, 200, 400, 404].contains(&request.status);
        ensure!(expected, "{}: status {}", request.path, request.status);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_and_the_test_providers_agree() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let fleet = Fleet::start(Slots::AsTheProvider).await?;
    let ca = dir.path().join("ca.pem");
    fleet.write_ca(&ca)?;
    let sdks = Sdks::ready()?;
    let target = Target::direct(&fleet, &ca);
    in_lanes(STORIES.iter(), |story| {
        let (provider, upstream) = (story.provider, fleet.of(story.provider));
        let (start, first) = (upstream.request_count(), upstream.served(provider));
        let mut running = sdks.start(story, &target, fixture::key(provider))?;
        let whole = running.whole()?;
        ensure!(
            whole.version == sdks.pinned(story, &whole.sdk)?,
            "ran on {}",
            whole.version
        );
        agrees_on_whole_calls(&whole, &since(&first, upstream, provider))?;
        let second = upstream.served(provider);
        let broken = running.broken()?;
        agrees_on_broken_calls(&broken, || since(&second, upstream, provider))?;
        came_in_order(&upstream.requests()[start..])
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_providers_refuse_a_placeholder() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let fleet = Fleet::start(Slots::AsTheProvider).await?;
    let ca = dir.path().join("ca.pem");
    fleet.write_ca(&ca)?;
    let sdks = Sdks::ready()?;
    let target = Target::direct(&fleet, &ca);
    // One story for each provider, in the current generation.
    let mut providers = Vec::new();
    let first = STORIES.iter().filter(|story| {
        let new = !providers.contains(&story.provider);
        providers.push(story.provider);
        new
    });
    in_lanes(first, |story| {
        let mut running = sdks.start(story, &target, PLACEHOLDER)?;
        ensure!(running.whole().is_err(), "served with a placeholder");
        let upstream = fleet.of(story.provider);
        let refusals = upstream.requests();
        ensure!(!refusals.is_empty(), "no request arrived");
        for request in refusals {
            ensure!(
                request.refused.as_deref() == Some("not a valid key"),
                "{:?}",
                request.refused
            );
        }
        ensure!(
            upstream.tokens(story.provider) == Tokens::default(),
            "tokens for nothing"
        );
        Ok(())
    })
}

/// An agent with a route to every provider, and a TLS listener that writes its authority to `agent-ca.pem`.
fn agent(dir: &Path, fleet: &Fleet, ca: &Path) -> anyhow::Result<LoneAgent> {
    let mut routes = Vec::new();
    for provider in Provider::ALL {
        let key = fixture::key_file(dir, provider)?;
        routes.push(Route::file(provider.name(), key).to(fleet.of(provider).url()));
    }
    let tls = dir.join("agent-ca.pem");
    let tls = format!(
        "[tls]\nlisten = \"127.0.0.1:0\"\nca_file = \"{}\"\n\n",
        tls.display()
    );
    LoneAgent::start_with(dir, &tls, &routes, "https://unused.invalid", ca)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_work_through_an_agent_with_a_placeholder() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    // Strict: each key only where the agent is to put it, whatever the SDK used.
    let fleet = Fleet::start(Slots::Canonical).await?;
    let ca = dir.path().join("ca.pem");
    fleet.write_ca(&ca)?;
    let agent = agent(dir.path(), &fleet, &ca)?;
    let tls = agent
        .tls
        .as_deref()
        .context("the agent has a TLS listener")?;
    let target = Target::agent(&agent.url).with_tls(tls, &dir.path().join("agent-ca.pem"));
    let sdks = Sdks::ready()?;
    in_lanes(STORIES.iter(), |story| {
        through_the_agent(&sdks, &agent, &fleet, &target, story)
    })?;
    for story in STORIES.iter() {
        no_placeholder_arrived(fleet.of(story.provider))?;
    }
    Ok(())
}

fn through_the_agent(
    sdks: &Sdks,
    agent: &LoneAgent,
    fleet: &Fleet,
    target: &Target,
    story: &'static Story,
) -> anyhow::Result<()> {
    let (provider, upstream) = (story.provider, fleet.of(story.provider));
    let counted =
        |before: &Metered| Ok::<_, anyhow::Error>(Metered::read(agent, provider)?.since(before));
    let (start, first) = (upstream.request_count(), upstream.served(provider));
    let metered = Metered::read(agent, provider)?;
    let mut running = sdks.start(story, target, PLACEHOLDER)?;
    let whole = running.whole()?;
    let served = since(&first, upstream, provider);
    agrees_on_whole_calls(&whole, &served)?;
    counted(&metered)?.is_exactly(&served.complete.tokens)?;
    let (second, metered) = (upstream.served(provider), Metered::read(agent, provider)?);
    let broken = running.broken()?;
    agrees_on_broken_calls(&broken, || since(&second, upstream, provider))?;
    let served = since(&second, upstream, provider);
    eventually("the agent settles what was left", || {
        let estimated = counted(&metered).ok()?.estimated;
        (estimated >= served.cancelled.calls).then_some(())
    })?;
    let counted = counted(&metered)?;
    counted.output_is_near(&served.tokens())?;
    if input_is_estimated(story) {
        counted.input_is_near(&served.tokens())?;
    }
    came_in_order(&upstream.requests()[start..])
}

/// What the app holds stays with the app, whatever it is wrapped in.
fn no_placeholder_arrived(upstream: &Upstream) -> anyhow::Result<()> {
    for wire in upstream.wire() {
        let found = wire
            .windows(PLACEHOLDER.len())
            .any(|window| window == PLACEHOLDER.as_bytes());
        ensure!(!found, "the placeholder went upstream");
    }
    // Reused connections: far fewer than requests.
    let (connections, requests) = (upstream.connection_count(), upstream.request_count());
    ensure!(
        connections < requests,
        "{connections} connections for {requests} requests"
    );
    Ok(())
}
