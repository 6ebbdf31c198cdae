//! The answers as an SDK and as our own meters see them.
#![allow(clippy::unwrap_used)]

use serde_json::Value;

use super::*;
use crate::{Endpoint, Meter, Metered};

/// A request of a provider that Tacit knows: provider, method, path, query, body.
type Asked = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const CHAT: &str = r#"{"model":"m-1","messages":[{"role":"user","content":"one two three"}]}"#;
const CHAT_STREAM: &str = r#"{"model":"m-1","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"one two three"}]}"#;
const UNASKED: &str =
    r#"{"model":"m-1","stream":true,"messages":[{"role":"user","content":"one two three"}]}"#;
const INPUT: &str = r#"{"model":"m-1","input":"one two three"}"#;
const INPUT_STREAM: &str = r#"{"model":"m-1","input":"one two three","stream":true}"#;
const CONTENTS: &str = r#"{"contents":[{"role":"user","parts":[{"text":"one two three"}]}]}"#;
const PACKED: &str = r#"{"messages":[{"role":"user","content":[{"text":"one two three"}]}]}"#;

/// Thirteen bytes are four tokens, and three for the road.
const IN: u64 = 7;
/// `mock: you said one two three`.
const OUT: u64 = 6;

fn ask_for(asked: Asked, wish: Option<&str>) -> Answer {
    let (provider, method, path, query, body) = asked;
    let family = Api::known(provider).unwrap().family();
    answer(
        family,
        Some(provider),
        method,
        path,
        query,
        body.as_bytes(),
        wish,
    )
}

fn ask(asked: Asked) -> Answer {
    ask_for(asked, None)
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer
        .headers
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("", |(_, value)| value)
}

/// What our meter reads from an answer, as the agent would set it up.
fn metered(asked: Asked, answer: &Answer) -> Metered {
    let (provider, method, path, query, _) = asked;
    let call = Api::known(provider)
        .unwrap()
        .call(method, path, query, false);
    let mut meter = Meter::new(call.usage, header(answer, "content-type"), false);
    for (name, value) in &answer.headers {
        meter.header(name, value.as_bytes());
    }
    let mut out = Vec::new();
    for piece in &answer.pieces {
        meter.feed(piece, &mut out);
    }
    assert_eq!(out, answer.pieces.concat());
    meter.finish(!answer.cut, &mut out)
}

/// Every chat, in every form.
const CHATS: [Asked; 25] = [
    ("openai", "POST", "/v1/chat/completions", "", CHAT),
    ("openai", "POST", "/v1/chat/completions", "", CHAT_STREAM),
    ("openai", "POST", "/v1/responses", "", INPUT),
    ("openai", "POST", "/v1/responses", "", INPUT_STREAM),
    ("groq", "POST", "/openai/v1/chat/completions", "", UNASKED),
    ("mistral", "POST", "/v1/chat/completions", "", UNASKED),
    ("deepseek", "POST", "/chat/completions", "", CHAT),
    ("deepseek", "POST", "/anthropic/v1/messages", "", CHAT),
    ("xai", "POST", "/v1/chat/completions", "", UNASKED),
    ("together", "POST", "/v1/chat/completions", "", CHAT),
    (
        "fireworks",
        "POST",
        "/inference/v1/chat/completions",
        "",
        CHAT,
    ),
    (
        "openrouter",
        "POST",
        "/api/v1/chat/completions",
        "",
        UNASKED,
    ),
    ("perplexity", "POST", "/chat/completions", "", UNASKED),
    (
        "azure",
        "POST",
        "/openai/deployments/gpt/chat/completions",
        "api-version=2024-10-21",
        CHAT_STREAM,
    ),
    ("azure", "POST", "/anthropic/v1/messages", "", CHAT_STREAM),
    ("anthropic", "POST", "/v1/messages", "", CHAT),
    ("anthropic", "POST", "/v1/messages", "", CHAT_STREAM),
    (
        "gemini",
        "POST",
        "/v1beta/models/g:generateContent",
        "",
        CONTENTS,
    ),
    (
        "gemini",
        "POST",
        "/v1beta/models/g:streamGenerateContent",
        "alt=sse",
        CONTENTS,
    ),
    (
        "gemini",
        "POST",
        "/v1/models/g:streamGenerateContent",
        "",
        CONTENTS,
    ),
    (
        "vertex",
        "POST",
        "/v1/projects/p/locations/l/publishers/anthropic/models/c:streamRawPredict",
        "",
        CHAT,
    ),
    ("bedrock", "POST", "/model/anthropic.c/converse", "", PACKED),
    ("bedrock", "POST", "/model/x/converse-stream", "", PACKED),
    ("cohere", "POST", "/v2/chat", "", CHAT),
    ("cohere", "POST", "/v2/chat", "", UNASKED),
];

/// Bedrock's other door, by model.
const INVOKED: [Asked; 4] = [
    ("bedrock", "POST", "/model/anthropic.c/invoke", "", PACKED),
    (
        "bedrock",
        "POST",
        "/model/anthropic.c/invoke-with-response-stream",
        "",
        PACKED,
    ),
    ("bedrock", "POST", "/model/amazon.nova/invoke", "", PACKED),
    (
        "bedrock",
        "POST",
        "/model/amazon.nova/invoke-with-response-stream",
        "",
        PACKED,
    ),
];

#[test]
fn our_meters_read_back_what_an_answer_says() {
    for asked in CHATS.into_iter().chain(INVOKED) {
        let answer = ask(asked);
        assert_eq!(answer.status, 200, "{asked:?}");
        let metered = metered(asked, &answer);
        assert!(!metered.estimated && !metered.failed, "{asked:?}");
        let usage = metered.usage;
        assert_eq!(
            (usage.input, usage.output),
            (Some(IN), Some(OUT)),
            "{asked:?}"
        );
        assert!(matches!(usage.cache_read, None | Some(0)), "{asked:?}");
    }
}

#[test]
fn the_text_repeats_what_was_said_in_one_piece_or_in_many() {
    for asked in CHATS {
        let answer = ask(asked);
        let is_stream = answer.pieces.len() > 1;
        let body = String::from_utf8_lossy(&answer.pieces.concat()).into_owned();
        let wanted = if is_stream {
            "\"two \""
        } else {
            "mock: you said one two three"
        };
        assert!(body.contains(wanted), "{asked:?}\n{body}");
        assert_eq!(header(&answer, "x-tacit-mock"), "true");
        assert_eq!(answer, ask(asked), "the same request, the same answer");
    }
}

#[test]
fn the_other_endpoints_answer_in_their_own_form() {
    let cases: [(Asked, &str, Option<u64>); 24] = [
        (
            ("openai", "POST", "/v1/embeddings", "", INPUT),
            "/data/0/embedding/7",
            Some(IN),
        ),
        (
            (
                "openai",
                "POST",
                "/v1/completions",
                "",
                r#"{"prompt":"one two three"}"#,
            ),
            "/choices/0/text",
            Some(IN),
        ),
        (
            ("openai", "POST", "/v1/moderations", "", INPUT),
            "/results/0/flagged",
            None,
        ),
        (("openai", "GET", "/v1/models", "", ""), "/data/0/id", None),
        (("openai", "GET", "/v1/models/gpt", "", ""), "/id", None),
        (("openai", "POST", "/v1/files", "", "--form"), "/id", None),
        (
            ("openai", "GET", "/v1/files/file-mock", "", ""),
            "/filename",
            None,
        ),
        (
            ("openai", "DELETE", "/v1/files/file-mock", "", ""),
            "/deleted",
            None,
        ),
        (
            (
                "openai",
                "POST",
                "/v1/images/generations",
                "",
                r#"{"prompt":"one two three"}"#,
            ),
            "/data/0/b64_json",
            Some(IN),
        ),
        (
            ("openai", "POST", "/v1/audio/transcriptions", "", "--form"),
            "/text",
            Some(3),
        ),
        (
            ("anthropic", "POST", "/v1/messages/count_tokens", "", CHAT),
            "/input_tokens",
            None,
        ),
        (
            ("anthropic", "GET", "/v1/models", "limit=1", ""),
            "/data/0/display_name",
            None,
        ),
        (("anthropic", "GET", "/v1/models/c", "", ""), "/id", None),
        (
            ("anthropic", "GET", "/v1/files", "", ""),
            "/data/0/filename",
            None,
        ),
        (
            (
                "gemini",
                "POST",
                "/v1beta/models/g:countTokens",
                "",
                CONTENTS,
            ),
            "/totalTokens",
            None,
        ),
        (
            (
                "gemini",
                "POST",
                "/v1beta/models/g:embedContent",
                "",
                r#"{"content":{"parts":[{"text":"one two three"}]}}"#,
            ),
            "/embedding/values/0",
            Some(IN),
        ),
        (
            (
                "gemini",
                "POST",
                "/v1beta/models/g:batchEmbedContents",
                "",
                r#"{"requests":[{},{}]}"#,
            ),
            "/embeddings/1/values/0",
            None,
        ),
        (
            ("gemini", "GET", "/v1beta/models", "", ""),
            "/models/0/name",
            None,
        ),
        (
            (
                "gemini",
                "POST",
                "/v1beta/openai/chat/completions",
                "",
                CHAT,
            ),
            "/choices/0/message/content",
            Some(IN),
        ),
        (
            (
                "bedrock",
                "POST",
                "/model/amazon.titan-embed/invoke",
                "",
                r#"{"inputText":"one two three"}"#,
            ),
            "/embedding/0",
            Some(IN),
        ),
        (
            ("bedrock", "POST", "/model/x/count-tokens", "", PACKED),
            "/inputTokens",
            None,
        ),
        (
            (
                "cohere",
                "POST",
                "/v2/embed",
                "",
                r#"{"texts":["a","b"],"model":"e"}"#,
            ),
            "/embeddings/float/1/0",
            Some(3),
        ),
        (
            ("cohere", "POST", "/v1/check-api-key", "", ""),
            "/valid",
            None,
        ),
        (
            ("cohere", "GET", "/v1/models", "", ""),
            "/models/0/name",
            None,
        ),
    ];
    for (asked, pointer, input) in cases {
        let answer = ask(asked);
        let [piece] = answer.pieces.as_slice() else {
            panic!("{asked:?} is no stream");
        };
        let document: Value = serde_json::from_slice(piece).unwrap();
        assert!(document.pointer(pointer).is_some(), "{asked:?}\n{document}");
        assert_eq!(metered(asked, &answer).usage.input, input, "{asked:?}");
    }
}

#[test]
fn an_unknown_endpoint_gets_the_apis_own_404() {
    let cases: [(&str, &str, &str, &str); 8] = [
        ("openai", "POST", "/v1/chat/completion", "/error/message"),
        ("openai", "GET", "/v1/chat/completions", "/error/message"),
        ("openai", "GET", "/v1/files/file-other", "/error/message"),
        ("anthropic", "POST", "/v1/messages/batches", "/error/type"),
        ("gemini", "POST", "/v1beta/models/g:other", "/error/status"),
        ("vertex", "GET", "/v1/projects/p", "/error/status"),
        ("bedrock", "POST", "/model/x/other", "/message"),
        ("cohere", "POST", "/v3/chat", "/message"),
    ];
    for (provider, method, path, pointer) in cases {
        let answer = ask((provider, method, path, "", CHAT));
        assert_eq!(answer.status, 404, "{provider} {path}");
        let document: Value = serde_json::from_slice(&answer.pieces.concat()).unwrap();
        assert!(document.pointer(pointer).is_some(), "{document}");
    }
}

#[test]
fn what_is_answered_is_an_endpoint_that_a_policy_may_allow() {
    for (provider, method, path, query, _) in CHATS.into_iter().chain(INVOKED) {
        let call = Api::known(provider)
            .unwrap()
            .call(method, path, query, false);
        assert!(
            matches!(call.endpoint, Endpoint::Needs(_)),
            "{provider} {path}"
        );
    }
}

#[test]
fn wishes_come_true() {
    for asked in CHATS {
        let good = ask(asked);
        let limited = ask_for(asked, Some("status=429"));
        assert_eq!(limited.status, 429);
        assert_eq!(header(&limited, "retry-after"), "1");
        assert_eq!(
            header(&ask_for(asked, Some("status=500")), "retry-after"),
            ""
        );

        let bad_key = ask_for(asked, Some("error=invalid_api_key"));
        assert!((400..404).contains(&bad_key.status), "{asked:?}");
        let api = Api::known(asked.0).unwrap();
        let fault = api.classify(bad_key.status, &bad_key.pieces.concat());
        assert_eq!(fault, crate::UpstreamFault::AuthBad, "{asked:?}");

        let failing = ask_for(asked, Some("error=mid_stream"));
        if good.pieces.len() > 1 {
            assert_eq!(failing.status, 200);
            assert!(metered(asked, &failing).failed, "{asked:?}");
        } else {
            assert_eq!(failing.status, 500);
        }

        let cut = ask_for(asked, Some("cut"));
        assert!(cut.cut && cut.status == 200);
        assert!(good.pieces.concat().starts_with(&cut.pieces.concat()));
        assert!(metered(asked, &cut).estimated, "{asked:?}");

        let slow = ask_for(asked, Some("slow"));
        assert_eq!((slow.pause_ms, slow.pieces), (SLOW_PAUSE_MS, good.pieces));
        assert_eq!(ask_for(asked, Some("fast")).status, 400);
    }
}

#[test]
fn the_extra_chunk_is_there_exactly_when_asked_for() {
    let extra = r#""choices":[]"#;
    let body = |asked| String::from_utf8(ask(asked).pieces.concat()).unwrap();
    let path = "/v1/chat/completions";
    assert!(body(("openai", "POST", path, "", CHAT_STREAM)).contains(extra));
    let unasked = body(("openai", "POST", path, "", UNASKED));
    assert!(!unasked.contains(extra) && !unasked.contains("usage"));
}

#[test]
fn an_embedding_in_base64_is_the_same_vector() {
    use base64::Engine as _;
    let asked = (
        "openai",
        "POST",
        "/v1/embeddings",
        "",
        r#"{"input":["a","b"],"dimensions":2,"encoding_format":"base64"}"#,
    );
    let document: Value = serde_json::from_slice(&ask(asked).pieces.concat()).unwrap();
    let digits = document["data"][1]["embedding"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(digits)
        .unwrap();
    assert_eq!(bytes, [0, 0, 0x80, 0x3f, 0, 0, 0, 0]);
}

#[test]
fn a_request_that_makes_no_sense_is_still_answered() {
    for body in ["", "null", "[]", "{\"messages\":7,\"model\":[]}", "\u{0}"] {
        let answer = ask(("openai", "POST", "/v1/chat/completions", "", body));
        let document: Value = serde_json::from_slice(&answer.pieces.concat()).unwrap();
        let text = &document["choices"][0]["message"]["content"];
        assert_eq!(text, "mock: you said nothing", "{body}");
        assert_eq!(document["model"], MODEL);
    }
}
