//! The real SDKs from PyPI and npm, two generations each: straight to the test provider first (they
//! and it must agree before either proves anything), then through the agent with a placeholder.

#![allow(clippy::unwrap_used)]

use anyhow::Context as _;
use tests::fixture::{self, PLACEHOLDER};
use tests::sdk::{MATRIX, Sdks, Target};
use tests::stack::{LoneAgent, Route};
use tests::upstream::{Provider, Slots, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_and_the_test_provider_agree() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(fixture::provider().slots(Slots::AsTheProvider)).await?;
    let ca = dir.path().join("ca.pem");
    upstream.write_ca(&ca)?;
    let sdks = Sdks::ready()?;
    let target = Target::direct(&upstream.url(), &ca);
    for case in MATRIX {
        for provider in Provider::ALL {
            let (story, key) = (provider.name(), fixture::key(provider));
            let before = upstream.request_count();
            let printed = sdks.story(case, story, &target, key)?;
            let package = printed["sdk"].as_str().context("a story names its SDK")?;
            assert_eq!(
                printed["version"],
                *sdks.pinned(case, package)?,
                "{case:?} {story} ran on another version"
            );
            let seen = &upstream.requests()[before..];
            assert!(
                seen.len() >= 3,
                "{case:?} {story} made {} requests",
                seen.len()
            );
            for request in seen {
                assert_eq!(request.refused, None, "{case:?} {story} {}", request.path);
                assert_eq!(request.status, 200, "{case:?} {story} {}", request.path);
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_provider_refuses_a_placeholder() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(fixture::provider().slots(Slots::AsTheProvider)).await?;
    let ca = dir.path().join("ca.pem");
    upstream.write_ca(&ca)?;
    let sdks = Sdks::ready()?;
    let target = Target::direct(&upstream.url(), &ca);
    for story in ["openai", "anthropic", "gemini"] {
        let failure = sdks.story(MATRIX[0], story, &target, PLACEHOLDER).err();
        let failure = failure
            .with_context(|| format!("{story} was served with a placeholder"))?
            .to_string();
        assert!(
            failure.contains("401") || failure.contains("API_KEY_INVALID"),
            "{story}: {failure}"
        );
    }
    assert!(
        upstream
            .requests()
            .iter()
            .all(|seen| seen.refused.as_deref() == Some("not a valid key"))
    );
    Ok(())
}

/// Everything that a provider's stories must have left behind at the provider when they went through an agent.
fn served_with_the_real_key(upstream: &Upstream, before: usize, story: &str) {
    let seen = &upstream.requests()[before..];
    assert!(seen.len() >= 3, "{story} made {} requests", seen.len());
    for request in seen {
        assert_eq!(request.refused, None, "{story} {}", request.path);
        assert_eq!(request.status, 200, "{story} {}", request.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_work_through_an_agent_with_a_placeholder() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    // Strict: Anthropic's key only in x-api-key, whatever the SDK used.
    let upstream = Upstream::start(fixture::provider()).await?;
    let ca = dir.path().join("ca.pem");
    upstream.write_ca(&ca)?;
    let mut routes = Vec::new();
    for provider in Provider::ALL {
        routes.push(Route::file(
            provider.name(),
            fixture::key_file(dir.path(), provider)?,
        ));
    }
    let agent = LoneAgent::start(dir.path(), &routes, &upstream.url(), &ca)?;
    let sdks = Sdks::ready()?;
    let target = Target::agent(&agent.url);
    for case in MATRIX {
        for provider in Provider::ALL {
            let before = upstream.request_count();
            sdks.story(case, provider.name(), &target, PLACEHOLDER)?;
            served_with_the_real_key(&upstream, before, provider.name());
        }
    }
    // Reused connections: far fewer than requests. The placeholder stayed here.
    assert!(
        upstream.connection_count() < upstream.request_count() / 2,
        "{} connections",
        upstream.connection_count()
    );
    for wire in upstream.wire() {
        assert!(
            !wire
                .windows(PLACEHOLDER.len())
                .any(|window| window == PLACEHOLDER.as_bytes())
        );
    }
    Ok(())
}
