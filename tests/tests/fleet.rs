//! The other providers' strictness and bookkeeping: what they must refuse, and what they must count.

#![allow(clippy::unwrap_used)]

use aws_lc_rs::digest;
use futures_util::{SinkExt as _, StreamExt as _};
use tests::fixture;
use tests::plain_tls::{connect, exchange, post};
use tests::process::eventually;
use tests::upstream::{Fleet, Options, Provider, Slots, Tally, Tokens, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"one two"}]}"#;
const CONVERSE: &str = r#"{"messages":[{"role":"user","content":[{"text":"one two"}]}]}"#;
const CONTENT: &str = r#"{"contents":[{"parts":[{"text":"one two"}]}]}"#;
const GOOGLE: &str = "/v1/projects/p/locations/l/publishers/google/models/g:generateContent";

async fn alone(provider: Provider) -> Upstream {
    let options = Options::default().alone(provider);
    Upstream::start(options.key(provider, fixture::key(provider)))
        .await
        .unwrap()
}

fn bearer(provider: Provider) -> String {
    format!("authorization: Bearer {}\r\n", fixture::key(provider))
}

/// A call that each provider knows: path, body, and the path of a neighbour that it does not know.
fn call(provider: Provider) -> (&'static str, &'static str, &'static str) {
    match provider {
        Provider::OpenAi | Provider::Mistral | Provider::Xai | Provider::Together => {
            ("/v1/chat/completions", CHAT, "/openai/v1/chat/completions")
        }
        Provider::Anthropic => ("/v1/messages", CHAT, "/v1/chat/completions"),
        Provider::Gemini => (
            "/v1beta/models/g:generateContent",
            CONTENT,
            "/v1beta/g:generateContent",
        ),
        Provider::Vertex => (GOOGLE, CONTENT, "/v1beta/models/g:generateContent"),
        Provider::Azure => (
            "/openai/deployments/d/chat/completions?api-version=2025-04-01-preview",
            CHAT,
            "/openai/deployments/d/chat/completions",
        ),
        Provider::Bedrock => ("/model/m/converse", CONVERSE, "/model/m/speak"),
        Provider::Cohere => ("/v2/chat", CHAT, "/v1/chat/completions"),
        Provider::Groq => ("/openai/v1/chat/completions", CHAT, "/v1/chat/completions"),
        Provider::DeepSeek | Provider::Perplexity => {
            ("/chat/completions", CHAT, "/api/v1/chat/completions")
        }
        Provider::Fireworks => (
            "/inference/v1/chat/completions",
            CHAT,
            "/v1/chat/completions",
        ),
        Provider::OpenRouter => ("/api/v1/chat/completions", CHAT, "/v1/chat/completions"),
    }
}

/// The header in which an agent is to put the key, and one that would be wrong.
fn slots(provider: Provider) -> (String, String) {
    let key = fixture::key(provider);
    match provider {
        Provider::Anthropic => (format!("x-api-key: {key}\r\n"), bearer(provider)),
        Provider::Azure => (format!("api-key: {key}\r\n"), bearer(provider)),
        Provider::Gemini => (format!("x-goog-api-key: {key}\r\n"), bearer(provider)),
        _ => (bearer(provider), format!("x-api-key: {key}\r\n")),
    }
}

#[tokio::test]
async fn each_provider_takes_its_key_in_its_slot_at_its_path() {
    let fleet = Fleet::start(Slots::Canonical).await.unwrap();
    for provider in Provider::ALL {
        let upstream = fleet.of(provider);
        let ((path, body, elsewhere), (right, wrong)) = (call(provider), slots(provider));
        let served = exchange(upstream, path, &right, body).await.unwrap();
        assert!(
            served.contains("You said: one two"),
            "{provider:?}: {served}"
        );
        let unknown = exchange(upstream, elsewhere, &right, body).await.unwrap();
        assert!(
            unknown.starts_with("HTTP/1.1 404 "),
            "{provider:?}: {unknown}"
        );
        let placeholder = right.replace(fixture::key(provider), "placeholder");
        let both = format!("{right}x-goog-api-key: placeholder\r\n{wrong}");
        for headers in [&wrong, &placeholder, &both, &String::new()] {
            let refused = exchange(upstream, path, headers, body).await.unwrap();
            assert!(
                !refused.contains("You said"),
                "{provider:?} {headers}: {refused}"
            );
            assert!(upstream.requests().pop().unwrap().refused.is_some());
        }
        let tally = upstream.served(provider);
        assert_eq!(
            (tally.complete.calls, tally.failed.calls),
            (1, 5),
            "{provider:?}"
        );
        assert_eq!(tally.complete.tokens.input, 2, "{provider:?}");
        assert_eq!(tally.failed.tokens, Tokens::default(), "{provider:?}");
    }
}

#[tokio::test]
async fn another_providers_key_and_openais_organisation_are_refused() {
    let upstream = alone(Provider::Groq).await;
    let path = "/openai/v1/chat/completions";
    let foreign = exchange(&upstream, path, &bearer(Provider::Xai), CHAT)
        .await
        .unwrap();
    assert!(foreign.starts_with("HTTP/1.1 401 "), "{foreign}");
    let organisation = format!("{}openai-organization: org-1\r\n", bearer(Provider::Groq));
    exchange(&upstream, path, &organisation, CHAT)
        .await
        .unwrap();
    let refused = upstream.requests().pop().unwrap().refused.unwrap();
    assert!(
        refused.contains("openai-organization went to groq"),
        "{refused}"
    );
    // The neighbour: OpenAI itself may hear of it.
    let openai = alone(Provider::OpenAi).await;
    let organisation = format!("{}openai-organization: org-1\r\n", bearer(Provider::OpenAi));
    let answer = exchange(&openai, "/v1/chat/completions", &organisation, CHAT)
        .await
        .unwrap();
    assert!(answer.contains("You said"), "{answer}");
}

#[tokio::test]
async fn streams_say_their_usage_when_asked_and_some_unasked() {
    let stream = CHAT.replace(r#""model""#, r#""stream":true,"model""#);
    let asking = stream.replace(
        r#""model""#,
        r#""stream_options":{"include_usage":true},"model""#,
    );
    for (provider, unasked) in [
        (Provider::OpenAi, false),
        (Provider::DeepSeek, false),
        (Provider::Mistral, true),
        (Provider::Perplexity, true),
    ] {
        let upstream = alone(provider).await;
        let path = call(provider).0;
        let silent = exchange(&upstream, path, &bearer(provider), &stream)
            .await
            .unwrap();
        assert_eq!(
            silent.contains("completion_tokens"),
            unasked,
            "{provider:?}: {silent}"
        );
        let said = exchange(&upstream, path, &bearer(provider), &asking)
            .await
            .unwrap();
        assert!(said.contains("completion_tokens"), "{provider:?}: {said}");
        assert_eq!(
            said.contains(r#""choices":[]"#),
            !unasked,
            "{provider:?}: {said}"
        );
    }
}

#[tokio::test]
async fn a_stream_that_is_left_costs_what_was_written() {
    let upstream = alone(Provider::Together).await;
    let body = CHAT
        .replace("one two", "one HOLD-STREAM two three")
        .replace(r#""model""#, r#""stream":true,"model""#);
    let mut stream = connect(&upstream).await.unwrap();
    let request = post("/v1/chat/completions", &bearer(Provider::Together), &body);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.windows(11).any(|window| window == b"HOLD-STREAM") {
        assert!(stream.read_buf(&mut got).await.unwrap() > 0);
    }
    assert_eq!(
        upstream.served(Provider::Together).cancelled,
        Tally::default()
    );
    drop(stream);
    let left = tokio::task::spawn_blocking(move || {
        eventually("the departure is noticed", || {
            let served = upstream.served(Provider::Together);
            (served.cancelled.calls == 1).then_some(served)
        })
    });
    let served = left.await.unwrap().unwrap();
    let expected = Tokens {
        input: 4,
        output: 4,
        cache_read: 1,
        ..Tokens::default()
    };
    assert_eq!(served.cancelled.tokens, expected);
    assert_eq!(served.complete, Tally::default());
}

#[tokio::test]
async fn an_event_stream_ends_with_its_usage_or_with_an_exception() {
    let upstream = alone(Provider::Bedrock).await;
    let path = "/model/m/converse-stream";
    let whole = exchange(&upstream, path, &bearer(Provider::Bedrock), CONVERSE)
        .await
        .unwrap();
    assert!(
        whole.contains("metadata") && whole.contains(r#""outputTokens":4"#),
        "{whole}"
    );
    let failing = CONVERSE.replace("one two", "FAIL-STREAM");
    let broken = exchange(&upstream, path, &bearer(Provider::Bedrock), &failing)
        .await
        .unwrap();
    assert!(
        broken.contains("internalServerException") && !broken.contains("outputTokens"),
        "{broken}"
    );
    let served = upstream.served(Provider::Bedrock);
    assert_eq!((served.complete.calls, served.failed.calls), (1, 1));
    assert_eq!(
        (served.failed.tokens.input, served.failed.tokens.output),
        (1, 2)
    );
}

/// Opens a Realtime session and returns it with its greeting.
async fn session(
    upstream: &Upstream,
) -> WebSocketStream<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> {
    let mut stream = connect(upstream).await.unwrap();
    let head = format!(
        "GET /v1/realtime?model=m HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-protocol: realtime\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
        bearer(Provider::OpenAi)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    // The example of RFC 6455, section 1.3.
    assert!(
        answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{answer}"
    );
    assert!(
        answer.contains("sec-websocket-protocol: realtime\r\n"),
        "{answer}"
    );
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

#[tokio::test]
async fn a_session_counts_each_response_and_knows_a_key_in_a_frame() {
    let upstream = alone(Provider::OpenAi).await;
    let mut socket = session(&upstream).await;
    let item = r#"{"type":"conversation.item.create","item":{"content":[{"text":"one two"}]}}"#;
    for frame in [item, r#"{"type":"response.create"}"#] {
        socket.send(Message::text(frame)).await.unwrap();
    }
    loop {
        let frame = socket.next().await.unwrap().unwrap().into_text().unwrap();
        if frame.contains("response.done") {
            assert!(frame.contains(r#""output_tokens":4"#), "{frame}");
            break;
        }
    }
    let complete = upstream.served(Provider::OpenAi).complete;
    assert_eq!(
        (
            complete.calls,
            complete.tokens.input,
            complete.tokens.output
        ),
        (1, 2, 4)
    );
    assert_eq!(upstream.requests()[0].refused, None);
    let leak = format!(
        r#"{{"type":"session.update","note":"{}"}}"#,
        fixture::key(Provider::OpenAi)
    );
    socket.send(Message::text(leak)).await.unwrap();
    while let Some(Ok(frame)) = socket.next().await {
        assert!(frame.is_close(), "{frame:?}");
    }
    assert_eq!(
        upstream.requests()[0].refused.as_deref(),
        Some("the key stands in a frame")
    );
}

#[tokio::test]
async fn an_upload_goes_to_the_address_that_it_was_given() {
    let upstream = alone(Provider::Gemini).await;
    let key = format!("x-goog-api-key: {}\r\n", fixture::key(Provider::Gemini));
    let start = format!("{key}x-goog-upload-command: start\r\n");
    let answer = exchange(&upstream, "/upload/v1beta/files", &start, "{}")
        .await
        .unwrap();
    let address = "x-goog-upload-url: https://x/upload/v1beta/files?upload_id=test";
    assert!(answer.contains(address), "{answer}");
    let to = "/upload/v1beta/files?upload_id=test&upload_protocol=resumable";
    let end = format!("{key}x-goog-upload-command: upload, finalize\r\n");
    let answer = exchange(&upstream, to, &end, "content").await.unwrap();
    let digest = hex::encode(digest::digest(&digest::SHA256, b"content"));
    assert!(
        answer.contains(&digest) && answer.contains("x-goog-upload-status: final"),
        "{answer}"
    );
    // An agent is to put its key here too; without one it is refused.
    exchange(&upstream, to, "", "content").await.unwrap();
    assert!(upstream.requests().pop().unwrap().refused.is_some());
}
