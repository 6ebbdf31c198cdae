//! The gate, from outside: each request that must be refused beside its nearest neighbour that must pass. What is refused reaches no upstream.
#![allow(clippy::unwrap_used)]

mod support;

use support::{OK, Running, Upstream, field, patient, status};
use tempfile::TempDir;

/// Sends raw bytes and returns the status and the code.
async fn knock(agent: &Running, bytes: &[u8]) -> (u16, Option<String>) {
    let mut app = agent.connect().await;
    app.send(bytes).await;
    let (head, _) = patient(app.response()).await;
    (status(&head), field(&head, "x-tacit-error"))
}

fn get(path: &str, extra: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n").into_bytes()
}

fn post(extra: &str, body: &str) -> Vec<u8> {
    format!("POST /openai/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n{body}")
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_pass_is_refused_and_its_neighbour_passes() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        while let Some(head) = conn.head().await {
            if field(&head, "transfer-encoding").is_some() {
                if conn.until(b"\r\n0\r\n").await.is_none() {
                    return;
                }
            } else if let Some(length) = field(&head, "content-length") {
                conn.body(length.parse().unwrap()).await.unwrap();
            }
            conn.write(OK).await;
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let many = |n: usize| (0..n).map(|i| format!("x-{i}: a\r\n")).collect::<String>();
    let chunked = "Transfer-Encoding: chunked\r\n";
    let models = "/openai/v1/models";
    #[rustfmt::skip]
    let refused: Vec<(&str, Vec<u8>, u16)> = vec![
        ("absolute-form", b"GET http://evil/openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 400),
        ("two hosts", get(models, "Host: localhost\r\n"), 400),
        ("no host", format!("GET {models} HTTP/1.1\r\n\r\n").into_bytes(), 400),
        ("empty host", format!("GET {models} HTTP/1.1\r\nHost:\r\n\r\n").into_bytes(), 400),
        ("userinfo", format!("GET {models} HTTP/1.1\r\nHost: api.openai.com:x@evil\r\n\r\n").into_bytes(), 400),
        ("another host", format!("GET {models} HTTP/1.1\r\nHost: evil.example\r\n\r\n").into_bytes(), 421),
        ("an origin", get(models, "Origin: https://evil.example\r\n"), 403),
        ("double slash", get("//evil/v1/models", ""), 400),
        ("backslash", get("/\\evil/v1", ""), 400),
        ("at sign", b"GET @evil/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 400),
        ("dot segments", get("/openai/v1/../organization/x", ""), 400),
        ("encoded dots", get("/openai/v1/%2e%2e/organization/x", ""), 400),
        ("encoded slash", get("/openai/v1%2fmodels", ""), 400),
        ("CONNECT", b"CONNECT api.openai.com:443 HTTP/1.1\r\nHost: api.openai.com:443\r\n\r\n".to_vec(), 400),
        ("CL and TE", post(&format!("Content-Length: 4\r\n{chunked}"), "0\r\n\r\n"), 400),
        ("two CL", post("Content-Length: 4\r\nContent-Length: 5\r\n", "abcd"), 400),
        ("equal CL", post("Content-Length: 4\r\nContent-Length: 4\r\n", "abcd"), 400),
        ("CL list", post("Content-Length: 4, 4\r\n", "abcd"), 400),
        ("CL sign", post("Content-Length: +4\r\n", "abcd"), 400),
        ("TE identity", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), 400),
        ("TE xchunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 400),
        ("TE gzip", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 400),
        ("TE twice", post(&format!("{chunked}{chunked}"), "0\r\n\r\n"), 400),
        ("TE on 1.0", b"POST /openai/v1/embeddings HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), 400),
        ("bare LF all", b"GET /openai/v1/models HTTP/1.1\nHost: localhost\n\n".to_vec(), 400),
        ("bare LF one", b"GET /openai/v1/models HTTP/1.1\r\nHost: localhost\nx: y\r\n\r\n".to_vec(), 400),
        ("bare CR", get(models, "x: a\rb\r\n"), 400),
        ("NUL", get(models, "x: a\0b\r\n"), 400),
        ("obs-fold", get(models, "x: a\r\n b\r\n"), 400),
        ("space before colon", get(models, "x : a\r\n"), 400),
        ("chunk size sign", post(chunked, "+4\r\nabcd\r\n0\r\n\r\n"), 400),
        ("chunk size huge", post(chunked, "ffffffffffffffffff\r\nabcd"), 400),
        ("chunk extension LF", post(chunked, "4;a\nb\r\nabcd\r\n0\r\n\r\n"), 400),
        ("upgrade", get("/openai/v1/realtime", "Connection: upgrade\r\nUpgrade: websocket\r\n"), 400),
        ("101 headers", get(models, &many(100)), 431),
        ("large head", get(models, &format!("x: {}\r\n", "a".repeat(33 * 1024))), 431),
        ("no route", get("/groq/v1/models", ""), 400),
        ("admin", get("/openai/v1/organization/admin_api_keys", ""), 403),
        ("admin by encoding", get("/openai/v1/%6frganization/admin_api_keys", ""), 403),
        ("unknown endpoint", get("/openai/v1/nothing", ""), 403),
    ];
    for (name, bytes, wanted) in refused {
        let (status, code) = knock(&agent, &bytes).await;
        assert_eq!(status, wanted, "{name}");
        assert!(code.is_some(), "{name} has a code");
    }
    // A chunked body is judged while it is under way, so an upstream may have seen those heads; nothing of them was ever completed.
    assert!(
        !upstream.received().contains("\r\n0\r\n\r\n"),
        "no refused request was made to look complete"
    );
    assert!(!upstream.received().contains("organization"));

    #[rustfmt::skip]
    let passes: Vec<(&str, Vec<u8>)> = vec![
        ("plain", get(models, "")),
        ("address as host", format!("GET {models} HTTP/1.1\r\nHost: 127.0.0.1:4100\r\n\r\n").into_bytes()),
        ("encoded letter", get("/openai/v1/%6Dodels", "")),
        ("length", post("Content-Length: 4\r\n", "{  }")),
        ("chunked", post(chunked, "4\r\n{  }\r\n0\r\n\r\n")),
        ("chunk extension", post(chunked, "4;a=b\r\n{  }\r\n0\r\n\r\n")),
        ("trailers", post(chunked, "4\r\n{  }\r\n0\r\nauthorization: Bearer x\r\n\r\n")),
        ("99 headers", get(models, &many(99))),
        ("HTTP/1.0", b"GET /openai/v1/models HTTP/1.0\r\nHost: localhost\r\n\r\n".to_vec()),
    ];
    for (name, bytes) in passes {
        assert_eq!(knock(&agent, &bytes).await, (200, None), "{name}");
    }
    assert!(
        !upstream.received().contains("Bearer x"),
        "trailers are dropped"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_behind_a_refused_one_is_never_read() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    let smuggled = "GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";
    app.send(format!(
        "GET /openai/v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{smuggled}"
    ))
    .await;
    let all = String::from_utf8(patient(app.rest()).await).unwrap();
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    assert!(field(&all, "connection").unwrap() == "close");
    assert_eq!(upstream.received(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_good_requests_are_answered_in_order() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    let one = String::from_utf8(post("Content-Length: 4\r\n", "{  }")).unwrap();
    app.send(one.repeat(3)).await;
    for _ in 0..3 {
        let (head, body) = patient(app.response()).await;
        assert_eq!((status(&head), body.as_str()), (200, "{}"));
    }
    assert_eq!(
        upstream
            .connections
            .load(std::sync::atomic::Ordering::SeqCst),
        1,
        "the upstream connection is reused"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_envelope_of_their_route() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let agent = Running::start(&dir, &upstream).await;
    for (path, mark) in [
        ("/openai/v1/organization/x", r#""type":"permission_error""#),
        (
            "/anthropic/v1/organizations/x",
            r#"{"type":"error","error":{"type":"permission_error""#,
        ),
        (
            "/gemini/v1alpha/auth_tokens",
            r#""status":"PERMISSION_DENIED""#,
        ),
    ] {
        let (head, body) = agent.ask(&String::from_utf8(get(path, "")).unwrap()).await;
        assert_eq!(
            (status(&head), field(&head, "x-tacit-error").as_deref()),
            (403, Some("permission_denied"))
        );
        assert_eq!(field(&head, "x-should-retry").as_deref(), Some("false"));
        assert!(field(&head, "x-tacit-request-id").is_some());
        assert!(body.contains(mark), "{body}");
    }
}
