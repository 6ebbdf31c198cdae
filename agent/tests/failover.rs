//! Several keys for one route, and routes that take over: who is tried when, what the app sees of it, and what must never be sent twice.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use support::{PATIENCE, Running, Upstream, field, fields, patient, status};
use tempfile::TempDir;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
const BAD_KEY: &str = "HTTP/1.1 401 Unauthorized\r\nx-first: 1\r\ncontent-type: application/json\r\ncontent-length: 68\r\n\r\n{\"error\":{\"message\":\"Incorrect API key\",\"code\":\"invalid_api_key\"}}   ";
const LIMITED: &str = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-type: application/json\r\ncontent-length: 60\r\n\r\n{\"error\":{\"message\":\"slow\",\"code\":\"rate_limit_exceeded\"}}    ";
const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
const SCOPE: &str = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: 43\r\n\r\n{\"error\":{\"message\":\"not in your region\"}}  ";
const CUT: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";

/// Which key gets which answer; the rest is answered with [`OK`].
type Script = Arc<Mutex<HashMap<&'static str, &'static str>>>;

struct Scene {
    _dir: TempDir,
    upstream: Upstream,
    agent: Running,
    script: Script,
}

impl Scene {
    /// Two keys for openai, `key-one-…` and `key-two-…`, and groq as its fallback.
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let script: Script = Arc::default();
        let answers = Arc::clone(&script);
        let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
            let answers = Arc::clone(&answers);
            async move {
                while let Some(head) = conn.head().await {
                    if let Some(length) = field(&head, "content-length")
                        && conn.body(length.parse().unwrap()).await.is_none()
                    {
                        return;
                    }
                    let key = field(&head, "authorization").unwrap_or_default();
                    let answer = answers
                        .lock()
                        .unwrap()
                        .iter()
                        .find(|(name, _)| key.contains(**name))
                        .map_or(OK, |(_, answer)| *answer);
                    conn.write(answer).await;
                    if answer == CUT {
                        return;
                    }
                }
            }
        })
        .await;
        let mut text =
            "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[providers.openai]\nfallback = [\"groq\"]\naliases = { fast = \"gpt-5.4-mini\" }\n"
                .to_owned();
        let common = format!(
            "base_url = \"https://localhost:{}\"\nca_file = {:?}\n",
            upstream.port, upstream.ca_file
        );
        text += &common;
        for (name, weight) in [("one", 1000), ("two", 1)] {
            let file = dir.path().join(name);
            std::fs::write(&file, format!("sk-key-{name}-0123456789abcdef")).unwrap();
            text += &format!(
                "[[providers.openai.target]]\nid = \"{name}\"\nweight = {weight}\nsecret_key_ref = {{ file = {file:?} }}\n"
            );
        }
        let file = dir.path().join("groq");
        std::fs::write(&file, "gsk-key-groq-0123456789abcdef").unwrap();
        text += &format!(
            "[providers.groq]\n{common}secret_key_ref = {{ file = {file:?} }}\naliases = {{ \"gpt-5.4-mini\" = \"llama\", fast = \"llama\" }}\n"
        );
        let agent = Running::from_text(&text).await;
        Self {
            _dir: dir,
            upstream,
            agent,
            script,
        }
    }

    fn answers(&self, key: &'static str, answer: &'static str) {
        self.script.lock().unwrap().insert(key, answer);
    }

    async fn chat(&self, extra: &str) -> (String, String) {
        let body = r#"{"model":"fast","messages":[]}"#;
        self.agent
            .ask(&format!(
                "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n{extra}content-length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await
    }

    /// The keys that the upstream saw, in order.
    fn tried(&self) -> Vec<String> {
        fields(&self.upstream.received(), "authorization")
            .iter()
            .map(|value| value.split('-').nth(2).unwrap().to_owned())
            .collect()
    }

    fn failovers(&self, provider: &str, reason: &str) -> u64 {
        let line =
            format!("tacit_agent_failovers_total{{provider=\"{provider}\",reason=\"{reason}\"}} ");
        let metrics = self.agent.metrics();
        metrics
            .lines()
            .find_map(|found| found.strip_prefix(&line))
            .map_or(0, |count| count.parse().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_followed_by_the_next_and_rests() {
    let scene = Scene::start().await;
    scene.answers("one", BAD_KEY);
    let (head, body) = scene.chat("").await;
    assert_eq!((status(&head), body.as_str()), (200, "{}"));
    assert_eq!(field(&head, "x-first"), None, "nothing of the first answer");
    assert_eq!(scene.tried(), ["one", "two"]);
    scene.chat("").await;
    assert_eq!(scene.tried(), ["one", "two", "two"], "one rests");
    assert_eq!(scene.failovers("openai", "credentials"), 1);
    // Counted when all is over, which the app may hear before.
    let counted = "tacit_agent_requests_total{key=\"two\",outcome=\"ok\",provider=\"openai\"} 2";
    let began = std::time::Instant::now();
    while !scene.agent.metrics().contains(counted) {
        assert!(began.elapsed() < PATIENCE, "{}", scene.agent.metrics());
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_key_is_followed_by_the_next_and_rests() {
    let scene = Scene::start().await;
    scene.answers("one", LIMITED);
    assert_eq!(status(&scene.chat("").await.0), 200);
    assert_eq!(status(&scene.chat("").await.0), 200);
    assert_eq!(scene.tried(), ["one", "two", "two"]);
    assert_eq!(scene.failovers("openai", "rate"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_provider_is_tried_once_more_with_the_same_key() {
    let scene = Scene::start().await;
    scene.answers("one", FAILED);
    assert_eq!(status(&scene.chat("").await.0), 200);
    assert_eq!(scene.tried(), ["one", "one", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_route_takes_over_with_its_own_path_model_and_key() {
    let scene = Scene::start().await;
    scene.answers("one", BAD_KEY);
    scene.answers("two", SCOPE);
    assert_eq!(status(&scene.chat("").await.0), 200);
    assert_eq!(scene.tried(), ["one", "two", "groq"]);
    let seen = scene.upstream.received();
    assert!(
        seen.contains("POST /openai/v1/chat/completions HTTP/1.1\r\n"),
        "{seen}"
    );
    assert_eq!(
        seen.matches(r#"{"model":"gpt-5.4-mini","messages":[]}"#)
            .count(),
        2
    );
    assert_eq!(
        seen.matches(r#"{"model":"llama","messages":[]}"#).count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_key_is_refused_the_app_is_told_in_our_words() {
    let scene = Scene::start().await;
    for key in ["one", "two", "groq"] {
        scene.answers(key, BAD_KEY);
    }
    let (head, body) = scene.chat("").await;
    assert_eq!(
        (status(&head), field(&head, "x-tacit-error").as_deref()),
        (502, Some("upstream_credentials_rejected"))
    );
    assert!(!body.contains("Incorrect"), "{body}");
    assert_eq!(scene.tried(), ["one", "two", "groq"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_last_key_is_told_the_app_is_told() {
    let scene = Scene::start().await;
    for key in ["one", "two", "groq"] {
        scene.answers(key, LIMITED);
    }
    let (head, body) = scene.chat("").await;
    assert_eq!(
        (status(&head), field(&head, "retry-after").as_deref()),
        (429, Some("60"))
    );
    assert!(body.contains("rate_limit_exceeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_begun_is_never_begun_again() {
    let scene = Scene::start().await;
    scene.answers("one", CUT);
    let mut app = scene.agent.connect().await;
    let body = r#"{"model":"fast","stream":true,"messages":[]}"#;
    app.send(format!("POST /openai/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    let all = String::from_utf8(patient(app.rest()).await).unwrap();
    assert!(
        all.contains("data: 1") && !all.ends_with("0\r\n\r\n"),
        "{all}"
    );
    assert_eq!(scene.tried(), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_passing_is_sent_once() {
    let scene = Scene::start().await;
    scene.answers("one", FAILED);
    let (head, _) = scene
        .agent
        .ask("POST /openai/v1/files HTTP/1.1\r\nHost: localhost\r\ncontent-length: 4\r\n\r\nabcd")
        .await;
    assert_eq!(status(&head), 500);
    assert_eq!(scene.tried(), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_may_name_its_target_and_no_other_header_of_ours_goes_on() {
    let scene = Scene::start().await;
    let (head, _) = scene.chat("x-tacit-target: two\r\n").await;
    assert_eq!(status(&head), 200);
    assert_eq!(scene.tried(), ["two"]);
    assert!(!scene.upstream.received().contains("x-tacit"));
    let (head, _) = scene.chat("x-tacit-target: three\r\n").await;
    assert_eq!(status(&head), 400);
    // Pinned is pinned: no other key takes over.
    scene.answers("two", BAD_KEY);
    let (head, _) = scene.chat("x-tacit-target: two\r\n").await;
    assert_eq!(status(&head), 502);
    assert_eq!(scene.tried(), ["two", "two"]);
}
