//! Mock mode: a route answers by itself, in its provider's format, without a key and without network; the same gate and table stand before it.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Running, field, patient, status};

const CONFIG: &str = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[providers.openai]\nmode = \"mock\"\n[providers.anthropic]\nmode = \"mock\"\n[providers.gemini]\nmode = \"mock\"\n";

fn post(path: &str, extra: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n{extra}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

const CHAT: &str = "/openai/v1/chat/completions";
const SAY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_is_answered_in_its_own_format_and_always_alike() {
    let agent = Running::from_text(CONFIG).await;
    for (path, body, mark) in [
        (CHAT, SAY, "chat.completion"),
        (
            "/anthropic/v1/messages",
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}"#,
            r#""type":"message""#,
        ),
        (
            "/gemini/v1beta/models/g:generateContent",
            r#"{"contents":[{"parts":[{"text":"hello"}]}]}"#,
            "usageMetadata",
        ),
    ] {
        let (head, answer) = agent.ask(&post(path, "", body)).await;
        assert_eq!(status(&head), 200, "{answer}");
        assert!(field(&head, "x-tacit-request-id").is_some());
        assert!(
            answer.contains(mark) && answer.contains("hello"),
            "{answer}"
        );
        let (_, again) = agent.ask(&post(path, "", body)).await;
        assert_eq!(answer, again, "deterministic");
    }
    let metrics = agent.metrics();
    assert!(
        metrics.contains(
            "tacit_agent_requests_total{key=\"mock\",outcome=\"ok\",provider=\"openai\"} 2"
        ),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_comes_in_pieces_and_may_be_cut_on_demand() {
    let agent = Running::from_text(CONFIG).await;
    let body = SAY.replacen('{', "{\"stream\":true,", 1);
    let mut app = agent.connect().await;
    app.send(post(CHAT, "", &body)).await;
    let all = patient(app.until(b"0\r\n\r\n")).await.unwrap();
    let all = String::from_utf8(all).unwrap();
    assert!(
        all.contains("text/event-stream") && all.contains("data: [DONE]"),
        "{all}"
    );
    // The connection goes on after a whole answer, and ends within one that is cut.
    app.send(post(CHAT, "x-tacit-mock: cut\r\n", &body)).await;
    let all = String::from_utf8(patient(app.rest()).await).unwrap();
    assert!(
        all.contains("data: {") && !all.contains("[DONE]") && !all.ends_with("0\r\n\r\n"),
        "{all}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_come_on_demand_and_what_is_refused_live_is_refused_here() {
    let agent = Running::from_text(CONFIG).await;
    let (head, answer) = agent
        .ask(&post(CHAT, "x-tacit-mock: status=429\r\n", SAY))
        .await;
    assert_eq!(status(&head), 429, "{answer}");
    assert!(serde_json::from_str::<serde_json::Value>(&answer).unwrap()["error"].is_object());
    let (head, _) = agent
        .ask(&post(CHAT, "x-tacit-mock: status=four\r\n", SAY))
        .await;
    assert_eq!(status(&head), 400);
    for path in ["/openai/v1/organization/keys", "/openai/v1/nothing"] {
        let (head, _) = agent.ask(&post(path, "", "{}")).await;
        assert_eq!(
            (status(&head), field(&head, "x-tacit-error").as_deref()),
            (403, Some("permission_denied")),
            "{path}"
        );
    }
}
