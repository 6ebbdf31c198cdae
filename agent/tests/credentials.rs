//! The key reaches the upstream exactly once, in the right slot, and never the app.
#![allow(clippy::unwrap_used)]

mod support;

use support::{KEY, OK, Running, Upstream, field, fields, patient, status};
use tempfile::TempDir;

/// Every place where an app could put a credential of its own.
const OWN: &str = "Authorization: Bearer own-1\r\nX-Api-Key: own-2\r\napi-key: own-3\r\nx-goog-api-key: own-4\r\nCookie: own-5\r\nProxy-Authorization: own-6\r\nx_api_key: own-7\r\n";

async fn start(answer: &'static str) -> (TempDir, Upstream, Running) {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), answer).await;
    let agent = Running::start(&dir, &upstream).await;
    (dir, upstream, agent)
}

fn request(line: &str, extra: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_fills_its_own_slot_whatever_the_app_sent() {
    for (line, header, value) in [
        (
            "GET /openai/v1/models",
            "authorization",
            format!("Bearer {KEY}"),
        ),
        ("GET /anthropic/v1/models", "x-api-key", KEY.to_owned()),
        (
            "GET /gemini/v1/models?key=own-8&%6Bey=own-9&access_token=own-10&alt=sse",
            "x-goog-api-key",
            KEY.to_owned(),
        ),
        (
            "GET /gemini/v1beta/openai/models",
            "authorization",
            format!("Bearer {KEY}"),
        ),
    ] {
        let (_dir, upstream, agent) = start(OK).await;
        let (head, body) = agent.ask(&request(line, OWN)).await;
        assert_eq!((status(&head), body.as_str()), (200, "{}"), "{line}");
        let seen = upstream.received();
        assert_eq!(fields(&seen, header), [value], "{line}");
        assert_eq!(seen.matches(KEY).count(), 1, "{line}");
        assert!(!seen.contains("own-"), "{seen}");
        assert!(!head.contains(KEY) && !body.contains(KEY));
        assert_eq!(field(&seen, "accept-encoding").as_deref(), Some("identity"));
        assert_eq!(
            field(&seen, "host"),
            Some(format!("localhost:{}", upstream.port))
        );
        if line.contains("alt=sse") {
            assert!(
                seen.starts_with("GET /v1/models?alt=sse HTTP/1.1\r\n"),
                "{seen}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_generations_of_anthropic_sdks_end_in_the_same_slot() {
    for own in [
        "Authorization: Bearer own\r\nanthropic-version: 2026-10-21\r\n",
        "x-api-key: own\r\nanthropic-version: 2023-06-01\r\n",
    ] {
        let (_dir, upstream, agent) = start(OK).await;
        agent.ask(&request("GET /anthropic/v1/models", own)).await;
        let seen = upstream.received();
        assert_eq!(fields(&seen, "x-api-key"), [KEY]);
        assert!(fields(&seen, "authorization").is_empty());
        assert!(field(&seen, "anthropic-version").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nominating_our_slot_as_hop_by_hop_cannot_remove_it() {
    let (_dir, upstream, agent) = start(OK).await;
    let extra = "Connection: authorization, x-extra\r\nX-Extra: gone\r\nX-Kept: stays\r\n";
    agent.ask(&request("GET /openai/v1/models", extra)).await;
    let seen = upstream.received();
    assert_eq!(fields(&seen, "authorization"), [format!("Bearer {KEY}")]);
    assert!(
        field(&seen, "x-extra").is_none()
            && field(&seen, "x-kept").is_some()
            && field(&seen, "connection").is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_organisation_goes_to_openai_alone() {
    let (_dir, upstream, agent) = start(OK).await;
    agent
        .ask(&request(
            "GET /openai/v1/models",
            "OpenAI-Organization: org\r\n",
        ))
        .await;
    assert_eq!(upstream.received().matches("org").count(), 1);
    agent
        .ask(&request(
            "GET /gemini/v1beta/openai/models",
            "OpenAI-Organization: org\r\nX-HTTP-Method-Override: DELETE\r\n",
        ))
        .await;
    assert_eq!(upstream.received().matches("org").count(), 1);
    assert!(!upstream.received().contains("DELETE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_our_key_is_replaced_and_its_neighbours_pass() {
    const BAD: &str = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 97\r\n\r\n{\"error\":{\"message\":\"Incorrect API key provided: sk-proj-****3210.\",\"code\":\"invalid_api_key\"}}    ";
    let (_dir, _upstream, agent) = start(BAD).await;
    let (head, body) = agent.ask(&request("GET /openai/v1/models", "")).await;
    assert_eq!(
        (status(&head), field(&head, "x-tacit-error").as_deref()),
        (502, Some("upstream_credentials_rejected"))
    );
    assert!(
        !body.contains("sk-proj")
            && !body.contains("3210")
            && field(&head, "www-authenticate").is_none()
    );
    assert!(agent.metrics().contains(r#"tacit_agent_requests_total{key="openai",outcome="credentials_rejected",provider="openai"} 1"#));

    const GEMINI: &str = "HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n4b\r\n{\"error\":{\"message\":\"bad\",\"details\":[{\"reason\":\"API_KEY_INVALID\"}]}}       \r\n0\r\n\r\n";
    let (_dir, _upstream, agent) = start(GEMINI).await;
    let (head, _) = agent.ask(&request("GET /gemini/v1/models", "")).await;
    assert_eq!(status(&head), 502);

    const SCOPE: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 49\r\n\r\n{\"error\":{\"message\":\"Missing scopes: model.read\"}}";
    let (_dir, _upstream, agent) = start(SCOPE).await;
    let (head, body) = agent.ask(&request("GET /openai/v1/models", "")).await;
    assert_eq!(status(&head), 403);
    assert!(body.contains("Missing scopes") && field(&head, "x-tacit-error").is_none());

    const OTHER: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 37\r\n\r\n{\"error\":{\"message\":\"no such model\"}}";
    let (_dir, _upstream, agent) = start(OTHER).await;
    let (head, body) = agent.ask(&request("GET /openai/v1/models", "")).await;
    assert_eq!(status(&head), 400);
    assert!(body.contains("no such model"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_passed_on_and_not_followed() {
    const MOVED: &str = "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/evil\r\nset-cookie: a=b\r\nalt-svc: h3=\":443\"\r\ncontent-length: 0\r\n\r\n";
    let (_dir, upstream, agent) = start(MOVED).await;
    let (head, _) = agent.ask(&request("GET /openai/v1/models", "")).await;
    assert_eq!(
        (status(&head), field(&head, "location").as_deref()),
        (307, Some("http://127.0.0.1:9/evil"))
    );
    assert!(
        field(&head, "set-cookie").is_none()
            && field(&head, "alt-svc").is_none()
            && !head.contains(KEY)
    );
    assert_eq!(upstream.received().matches(KEY).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_the_right_name_gets_no_byte() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["other.example"], |mut conn| async move {
        conn.head().await;
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let (head, _) = agent.ask(&request("GET /openai/v1/models", "")).await;
    assert_eq!(
        (status(&head), field(&head, "x-tacit-error").as_deref()),
        (502, Some("upstream_unreachable"))
    );
    assert_eq!(upstream.received(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumable_upload_stays_with_us() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        let head = conn.head().await.unwrap();
        let host = field(&head, "host").unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nx-goog-upload-url: https://{host}/upload/v1beta/files?upload_id=u&key=leak\r\ncontent-length: 0\r\n\r\n");
        conn.write(answer).await;
        conn.closed().await;
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let (head, _) = patient(agent.ask("POST /gemini/upload/v1beta/files HTTP/1.1\r\nHost: localhost:4100\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(
        field(&head, "x-goog-upload-url").as_deref(),
        Some("http://localhost:4100/gemini/upload/v1beta/files?upload_id=u")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_mint_credentials_are_refused_and_their_neighbours_pass() {
    let (_dir, upstream, agent) = start(OK).await;
    for line in [
        "POST /openai/v1/realtime/client_secrets",
        "POST /openai/v1/realtime/sessions",
        "POST /openai/v1/realtime/transcription_sessions",
        "POST /openai/v1/realtime/%63lient_secrets",
        "POST /openai/v1/chatkit/sessions",
        "POST /gemini/v1alpha/auth_tokens",
        "POST /gemini/v1beta/openai/realtime/client_secrets",
    ] {
        let (head, _) = agent.ask(&request(line, "Content-Length: 0\r\n")).await;
        assert_eq!(
            (status(&head), field(&head, "x-tacit-error").as_deref()),
            (403, Some("permission_denied")),
            "{line}"
        );
    }
    assert_eq!(upstream.received(), "", "no key was used for any of them");
    for line in [
        "POST /openai/v1/responses",
        "POST /openai/v1/audio/transcriptions",
        "GET /openai/v1/realtime",
        "POST /gemini/v1beta/models/g:generateContent",
        "POST /gemini/v1beta/openai/chat/completions",
    ] {
        let (head, _) = agent.ask(&request(line, "Content-Length: 0\r\n")).await;
        assert_eq!(status(&head), 200, "{line}");
    }
}
