//! The test provider's own strictness: what it must refuse, or no other story proves anything.

#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use tests::plain_tls::{connect, exchange};
use tests::upstream::{Mode, Options, Provider, Tokens, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn start() -> Upstream {
    let mut options = Options::default();
    for provider in Provider::SHARED {
        options = options.key(provider, &*KEY);
    }
    Upstream::start(options).await.unwrap()
}

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"one two"}]}"#;
const MESSAGE: &str =
    r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"one two"}]}"#;
const CONTENT: &str = r#"{"contents":[{"parts":[{"text":"one two"}]}]}"#;
const GENERATE: &str = "/v1beta/models/g:generateContent";

#[tokio::test]
async fn takes_the_key_only_in_its_slot_once_and_alone() {
    let upstream = start().await;
    let bearer = format!("authorization: Bearer {KEY}\r\n");
    let (anthropic, google) = (
        format!("x-api-key: {KEY}\r\n"),
        format!("x-goog-api-key: {KEY}\r\n"),
    );
    let both = format!("{bearer}x-api-key: placeholder\r\n");
    let twice = format!("{bearer}{bearer}");
    let elsewhere = format!("{bearer}x-note: {KEY}\r\n");
    let cookie = format!("{bearer}cookie: session=1\r\n");
    let in_query = format!("{GENERATE}?key={KEY}");
    let in_body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{KEY}"}}]}}"#);
    let cases: [(&str, &str, &str, Option<&str>); 15] = [
        ("/v1/chat/completions", &bearer, CHAT, None),
        ("/v1/messages", &anthropic, MESSAGE, None),
        (GENERATE, &google, CONTENT, None),
        ("/v1/chat/completions", "", CHAT, Some("0 credential slots")),
        (
            "/v1/chat/completions",
            "authorization: Bearer sk-placeholder\r\n",
            CHAT,
            Some("not a valid key"),
        ),
        (
            "/v1/chat/completions",
            &anthropic,
            CHAT,
            Some("not openai's slot"),
        ),
        (
            "/v1/messages",
            &bearer,
            MESSAGE,
            Some("not anthropic's slot"),
        ),
        (GENERATE, &bearer, CONTENT, Some("not gemini's slot")),
        (
            "/v1/chat/completions",
            &both,
            CHAT,
            Some("2 credential slots"),
        ),
        (
            "/v1/chat/completions",
            &twice,
            CHAT,
            Some("2 credential slots"),
        ),
        ("/v1/chat/completions", &elsewhere, CHAT, Some("2 times")),
        (
            "/v1/chat/completions",
            &cookie,
            CHAT,
            Some("2 credential slots"),
        ),
        ("/v1/chat/completions", &bearer, &in_body, Some("2 times")),
        (&in_query, "", CONTENT, Some("query parameter key")),
        (&in_query, &google, CONTENT, Some("query parameter key")),
    ];
    for (path, headers, body, refused) in cases {
        let answer = exchange(&upstream, path, headers, body).await.unwrap();
        let seen = upstream.requests().pop().unwrap();
        match refused {
            None => {
                assert_eq!(seen.refused, None, "{path} {headers}");
                assert!(answer.contains("You said: one two"), "{answer}");
            }
            Some(reason) => {
                assert!(
                    seen.refused.as_deref().unwrap().contains(reason),
                    "{:?} for {reason}",
                    seen.refused
                );
                assert!(!answer.contains("You said"), "{answer}");
                assert!(!answer.contains(&*KEY), "a refusal repeats the key");
            }
        }
    }
}

#[tokio::test]
async fn keeps_every_byte_and_counts_what_it_served() {
    let upstream = start().await;
    exchange(
        &upstream,
        "/v1/chat/completions",
        &format!("authorization: Bearer {KEY}\r\n"),
        CHAT,
    )
    .await
    .unwrap();
    exchange(
        &upstream,
        "/v1/messages",
        &format!("x-api-key: {KEY}\r\n"),
        MESSAGE,
    )
    .await
    .unwrap();
    let wire = upstream.wire();
    assert_eq!(wire.len(), 2);
    assert!(wire[0].starts_with(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"));
    assert!(wire[0].ends_with(CHAT.as_bytes()));
    assert_eq!(
        upstream.tokens(Provider::OpenAi),
        Tokens {
            input: 2,
            output: 4,
            ..Tokens::default()
        }
    );
    let expected = Tokens {
        input: 2,
        output: 4,
        cache_read: 7,
        cache_write: 3,
        reasoning: 0,
    };
    assert_eq!(upstream.tokens(Provider::Anthropic), expected);
    assert_eq!(upstream.tokens(Provider::Gemini), Tokens::default());
    assert_eq!(
        upstream.last_request("/v1/messages").unwrap().body,
        MESSAGE.as_bytes()
    );
}

#[tokio::test]
async fn a_rejected_key_gets_each_providers_own_answer() {
    let upstream = start().await;
    upstream.set_mode(Mode::KeyRejected);
    let openai = exchange(
        &upstream,
        "/v1/chat/completions",
        &format!("authorization: Bearer {KEY}\r\n"),
        CHAT,
    )
    .await
    .unwrap();
    assert!(
        openai.starts_with("HTTP/1.1 401 ") && openai.contains("invalid_api_key"),
        "{openai}"
    );
    let (head, tail) = (&KEY[..8], &&KEY[KEY.len() - 4..]);
    assert!(
        openai.contains(head) && openai.contains(tail),
        "the mask shows both ends, as in the world: {openai}"
    );
    let anthropic = exchange(
        &upstream,
        "/v1/messages",
        &format!("x-api-key: {KEY}\r\n"),
        MESSAGE,
    )
    .await
    .unwrap();
    assert!(
        anthropic.starts_with("HTTP/1.1 401 ") && anthropic.contains("authentication_error"),
        "{anthropic}"
    );
    let gemini = exchange(
        &upstream,
        GENERATE,
        &format!("x-goog-api-key: {KEY}\r\n"),
        CONTENT,
    )
    .await
    .unwrap();
    assert!(
        gemini.starts_with("HTTP/1.1 400 ") && gemini.contains("API_KEY_INVALID"),
        "{gemini}"
    );
    upstream.set_mode(Mode::Normal);
    upstream.refuse_key(Provider::Gemini, KEY.as_bytes());
    let gone = exchange(
        &upstream,
        GENERATE,
        &format!("x-goog-api-key: {KEY}\r\n"),
        CONTENT,
    )
    .await
    .unwrap();
    assert!(gone.starts_with("HTTP/1.1 400 "), "{gone}");
    upstream.accept_key(Provider::Gemini, &*KEY);
    let back = exchange(
        &upstream,
        GENERATE,
        &format!("x-goog-api-key: {KEY}\r\n"),
        CONTENT,
    )
    .await
    .unwrap();
    assert!(back.starts_with("HTTP/1.1 200 "), "{back}");
}

#[tokio::test]
async fn a_held_stream_sends_its_first_event_and_waits() {
    let upstream = start().await;
    upstream.hold_streams();
    let mut stream = connect(&upstream).await.unwrap();
    let body = CHAT.replace(r#""model":"m""#, r#""model":"m","stream":true"#);
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let request = format!(
        "{head}authorization: Bearer {KEY}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    upstream.streams_held(1).await;
    let mut first = vec![0; 4096];
    let mut got = 0;
    while !first[..got].windows(2).any(|pair| pair == b"\n\n") {
        got += stream.read(&mut first[got..]).await.unwrap();
    }
    let text = String::from_utf8_lossy(&first[..got]).into_owned();
    assert!(
        text.contains("\"role\":\"assistant\"") && !text.contains("You "),
        "{text}"
    );
    upstream.release_streams();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(
        rest.contains("data: [DONE]") && rest.ends_with("0\r\n\r\n"),
        "{rest}"
    );
}

#[tokio::test]
async fn a_cut_stream_has_no_end() {
    let upstream = start().await;
    upstream.set_mode(Mode::CutStreamAfter(3));
    let body = CHAT.replace(r#""model":"m""#, r#""model":"m","stream":true"#);
    let headers = format!("authorization: Bearer {KEY}\r\n");
    let answer = exchange(&upstream, "/v1/chat/completions", &headers, &body)
        .await
        .unwrap();
    assert_eq!(answer.matches("data: ").count(), 3);
    assert!(!answer.contains("[DONE]") && !answer.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn refuses_ambiguous_framing() {
    let upstream = start().await;
    let bearer = format!("authorization: Bearer {KEY}\r\n");
    for smuggle in [
        "transfer-encoding: chunked\r\n",
        "content-length: 3\r\n",
        "host: y\r\n",
        "x: a\nb: c\r\n",
    ] {
        let answer = exchange(
            &upstream,
            "/v1/chat/completions",
            &format!("{bearer}{smuggle}"),
            CHAT,
        )
        .await
        .unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("bad_http"),
            "{smuggle:?}: {answer}"
        );
    }
    assert_eq!(upstream.request_count(), 0);
}

/// One key for all three providers of these tests.
static KEY: Key = Key(LazyLock::new(tests::fixture::openai));

struct Key(LazyLock<String>);

impl std::ops::Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_str()
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self)
    }
}
