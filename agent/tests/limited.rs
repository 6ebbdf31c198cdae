//! Ways round a limited key, and what must not be sent twice or wait: each was open once.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proto::v1::Terms;
use support::daemon::{Daemon, Script};
use support::store::{Set, set};
use support::{OK, Running, Upstream, field, patient, status};
use tempfile::TempDir;

async fn limited() -> (Set, Daemon) {
    let set = set("", OK).await;
    let words = ["files", "batches", "ephemeral-keys", "responses"];
    let daemon = set.daemon(Script {
        terms: Some(Terms {
            permissions: words.map(str::to_owned).to_vec(),
            models: vec!["allowed".to_owned()],
            attributes: Vec::new(),
            digest: vec![1; 32],
        }),
        ..set.script()
    });
    daemon.until(|script| !script.acks.is_empty()).await;
    (set, daemon)
}

async fn post(set: &Set, path: &str, types: &str, body: &str) -> (u16, Option<String>) {
    let length = body.len();
    let request = format!(
        "POST /openai{path} HTTP/1.1\r\nHost: localhost\r\n{types}Content-Length: {length}\r\n\r\n{body}"
    );
    let (head, _) = set.agent.ask(&request).await;
    (status(&head), field(&head, "x-tacit-error"))
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_file_that_comes_in_parts_is_not_for_a_key_of_certain_models() {
    let (set, _daemon) = limited().await;
    let body = r#"{"purpose":"batch","filename":"b.jsonl","bytes":10,"mime_type":"text/jsonl"}"#;
    assert_eq!(post(&set, "/v1/uploads", JSON, body).await.0, 403);
    assert_eq!(set.upstream.received(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_file_under_two_content_types_is_read() {
    let (set, _daemon) = limited().await;
    let body = concat!(
        "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n",
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n",
        "{\"body\":{\"model\":\"forbidden\"}}\r\n--XX--\r\n"
    );
    let form = "Content-Type: multipart/form-data; boundary=XX\r\n";
    assert_eq!(post(&set, "/v1/files", form, body).await.0, 403);
    let types = format!("Content-Type: text/plain\r\n{form}");
    assert_eq!(post(&set, "/v1/files", &types, body).await.0, 400);
    assert_eq!(set.upstream.received(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_models_nobody_sees_is_not_for_a_key_of_certain_models() {
    let (set, _daemon) = limited().await;
    let body = r#"{"workflow":{"id":"wf_1"},"user":"u"}"#;
    assert_eq!(post(&set, "/v1/chatkit/sessions", JSON, body).await.0, 403);
    // The provider's default model.
    assert_eq!(
        post(&set, "/v1/realtime/client_secrets", "", "").await.0,
        403
    );
    assert_eq!(set.upstream.received(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_long_answers_do_not_keep_a_ninth_large_request_waiting() {
    const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        let head = conn.head().await.unwrap();
        let length = field(&head, "content-length").unwrap().parse().unwrap();
        conn.body(length).await.unwrap();
        conn.write(STREAM).await;
        conn.closed().await;
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let text = "x".repeat(300 * 1024);
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let mut apps = Vec::new();
    for n in 0..9 {
        let mut app = agent.connect().await;
        app.send(format!(
            "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        let event = tokio::time::timeout(Duration::from_secs(10), app.until(b"data: 1\n\n")).await;
        assert!(event.is_ok(), "request {n} waits");
        apps.push(app);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_with_an_empty_chunked_body_is_never_sent_twice() {
    let dir = TempDir::new().unwrap();
    let posts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&posts);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let posts = Arc::clone(&counted);
        async move {
            while let Some(head) = conn.head().await {
                if head.starts_with("POST") {
                    // It is carried out, and the connection ends before the answer.
                    posts.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                conn.write(OK).await;
            }
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let (head, _) = agent
        .ask("GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(status(&head), 200);
    let mut app = agent.connect().await;
    app.send("POST /openai/v1/threads/t/runs/r/cancel HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
    patient(app.response()).await;
    assert_eq!(posts.load(Ordering::SeqCst), 1);
}
