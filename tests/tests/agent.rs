//! The agent between an app and a provider: what passes, what is replaced, what never leaves.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::fixture::{self, PLACEHOLDER};
use tests::http::{self, Answer, Wire};
use tests::stack::{LoneAgent, Route};
use tests::upstream::{Authority, Mode, Provider, Upstream};

struct Scene {
    agent: LoneAgent,
    upstream: Upstream,
    _dir: TempDir,
}

impl Scene {
    async fn start() -> anyhow::Result<Self> {
        Self::start_trusting(None).await
    }

    /// With `ca_file` holding another certificate than the provider's.
    async fn start_trusting(ca_pem: Option<&str>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let upstream = Upstream::start(fixture::provider()).await?;
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, ca_pem.unwrap_or(upstream.ca_pem()))?;
        let agent = LoneAgent::start(dir.path(), &routes(dir.path())?, &upstream.url(), &ca)?;
        Ok(Scene {
            agent,
            upstream,
            _dir: dir,
        })
    }

    fn post(&self, path: &str, headers: &str, body: &Value) -> anyhow::Result<Answer> {
        http::post(&format!("{}{path}", self.agent.url), headers, body)
    }
}

fn routes(dir: &Path) -> anyhow::Result<Vec<Route>> {
    Provider::SHARED
        .into_iter()
        .map(|provider| {
            Ok(Route::file(
                provider.name(),
                fixture::key_file(dir, provider)?,
            ))
        })
        .collect()
}

fn chat(stream: bool) -> Value {
    json!({"model": "gpt-5.4-mini", "stream": stream, "messages": [{"role": "user", "content": "one two"}]})
}

fn message() -> Value {
    json!({"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "one two"}]})
}

fn content() -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": "one two"}]}]})
}

const CHAT: &str = "/openai/v1/chat/completions";
const MESSAGES: &str = "/anthropic/v1/messages";
const GENERATE: &str = "/gemini/v1beta/models/gemini-3.6-flash:generateContent";

#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_app_puts_its_placeholder_the_key_stands_in_its_one_slot() -> anyhow::Result<()>
{
    let scene = Scene::start().await?;
    let bearer = format!("authorization: Bearer {PLACEHOLDER}\r\n");
    let everywhere = format!(
        "{bearer}x-api-key: {PLACEHOLDER}\r\napi-key: {PLACEHOLDER}\r\nx-goog-api-key: {PLACEHOLDER}\r\ncookie: k={PLACEHOLDER}\r\n"
    );
    let in_query = format!("{GENERATE}?key={PLACEHOLDER}");
    for (path, body) in [
        (CHAT, chat(false)),
        (MESSAGES, message()),
        (GENERATE, content()),
    ] {
        for headers in ["", &bearer, &everywhere] {
            let answer = scene.post(path, headers, &body)?;
            let seen = scene.upstream.requests().pop().unwrap();
            assert_eq!(
                (answer.status, seen.refused),
                (200, None),
                "{path} with {headers:?}: {}",
                answer.text()
            );
            assert!(answer.text().contains("You said: one two"));
        }
    }
    let answer = scene.post(&in_query, "", &content())?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(scene.upstream.requests().pop().unwrap().refused, None);
    let wire = scene.upstream.wire().concat();
    assert!(
        !wire
            .windows(PLACEHOLDER.len())
            .any(|window| window == PLACEHOLDER.as_bytes())
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_reaches_the_app_event_by_event() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    scene.upstream.hold_streams();
    let mut wire = Wire::open(&scene.agent.url)?;
    wire.send(http::post_bytes(
        &format!("{}{CHAT}", scene.agent.url),
        "",
        &chat(true),
    )?)?;
    // The provider is holding the rest: an agent that buffers would never let this line out.
    let first = wire.read_until("\n\n")?;
    assert!(first.contains("\"role\":\"assistant\""), "{first}");
    scene.upstream.streams_held(1).await;
    scene.upstream.release_streams();
    let rest = wire.read_until("data: [DONE]")?;
    assert!(rest.contains("two"), "{rest}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_the_provider_cuts_is_cut_for_the_app() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    scene.upstream.set_mode(Mode::CutStreamAfter(3));
    let answer = scene.post(CHAT, "", &chat(true));
    assert!(
        answer.is_err(),
        "an app must not take a broken stream for a whole one: {answer:?}"
    );
    scene.upstream.set_mode(Mode::Normal);
    assert!(
        scene
            .post(CHAT, "", &chat(true))?
            .text()
            .ends_with("data: [DONE]\n\n")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_reported_without_any_part_of_it() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    scene.upstream.set_mode(Mode::KeyRejected);
    for (path, body, key) in [
        (CHAT, chat(false), fixture::key(Provider::OpenAi)),
        (MESSAGES, message(), fixture::key(Provider::Anthropic)),
        (GENERATE, content(), fixture::key(Provider::Gemini)),
    ] {
        let answer = scene.post(path, "", &body)?;
        assert_eq!(answer.status, 502, "{path}: {}", answer.text());
        assert_eq!(
            answer.header("x-tacit-error"),
            Some("upstream_credentials_rejected"),
            "{}",
            answer.head
        );
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        // The provider's text shows eight characters at the front and four at the end.
        for part in [&key[..8], &key[key.len() - 4..]] {
            assert!(
                !answer.text().contains(part) && !answer.head.contains(part),
                "{path}: {}",
                answer.text()
            );
        }
        assert!(
            answer.json().is_ok(),
            "the route's own envelope is JSON: {}",
            answer.text()
        );
    }
    // Its neighbour: errors that are not about the key are the app's to see.
    scene.upstream.set_mode(Mode::Status(429));
    let answer = scene.post(CHAT, "", &chat(false))?;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.json()?["error"]["code"], "rate_limit_exceeded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_goes_to_no_server_that_cannot_prove_its_name() -> anyhow::Result<()> {
    let other = Authority::new()?;
    let scene = Scene::start_trusting(Some(other.ca_pem())).await?;
    let answer = scene.post(CHAT, "", &chat(false))?;
    assert_eq!(
        answer.header("x-tacit-error"),
        Some("upstream_unreachable"),
        "{} {}",
        answer.head,
        answer.text()
    );
    assert_eq!(scene.upstream.request_count(), 0);
    assert!(
        scene.upstream.wire().iter().all(Vec::is_empty),
        "bytes left for a server without proof"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_counted_arrives_unchanged() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let answer = scene.post(MESSAGES, "", &message())?;
    let usage = &answer.json()?["usage"];
    let counted = scene.upstream.tokens(Provider::Anthropic);
    assert_eq!(usage["input_tokens"], counted.input);
    assert_eq!(usage["output_tokens"], counted.output);
    assert_eq!(usage["cache_read_input_tokens"], counted.cache_read);
    Ok(())
}
