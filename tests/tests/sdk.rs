//! The real SDKs from PyPI and npm, two generations each: straight to the test provider first (they
//! and it must agree before either proves anything), then through the agent with a placeholder.

#![allow(clippy::unwrap_used)]

use anyhow::Context as _;
use tests::sdk::{MATRIX, Sdks, Target};
use tests::upstream::{Options, Provider, Slots, Upstream};

const OPENAI: &str = "sk-proj-Qm7vT2xK9bLw4Rz8NcYd1HfJT3BlbkFJu5Ge0PaSi6Vo3XtBqMnWy2Lk8D";
const ANTHROPIC: &str = "sk-ant-api03-Zt5Wq8Rn2Kx7Lm4Vb9Cd1Fg6Hj3Ps0Ya-Ue8Ti2Ow5QrAA";
const GEMINI: &str = "AQ.Ab8RN6Lk3Jh7Gf2Ds9Aq1Zx5Cv8Bn4Mw6Ty0Ui3Op7El2Rj9Wq5";

fn provider_options() -> Options {
    Options::default()
        .key(Provider::OpenAi, OPENAI)
        .key(Provider::Anthropic, ANTHROPIC)
        .key(Provider::Gemini, GEMINI)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_and_the_test_provider_agree() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(provider_options().slots(Slots::AsTheProvider)).await?;
    let ca = dir.path().join("ca.pem");
    upstream.write_ca(&ca)?;
    let sdks = Sdks::ready()?;
    let target = Target::direct(&upstream.url(), &ca);
    for case in MATRIX {
        for (story, key) in [
            ("openai", OPENAI),
            ("anthropic", ANTHROPIC),
            ("gemini", GEMINI),
        ] {
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
    let upstream = Upstream::start(provider_options().slots(Slots::AsTheProvider)).await?;
    let ca = dir.path().join("ca.pem");
    upstream.write_ca(&ca)?;
    let sdks = Sdks::ready()?;
    let target = Target::direct(&upstream.url(), &ca);
    for story in ["openai", "anthropic", "gemini"] {
        let failure = sdks
            .story(MATRIX[0], story, &target, "sk-placeholder-not-a-key")
            .err();
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
