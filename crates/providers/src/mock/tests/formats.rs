//! Each endpoint in its own form, with usage that adds up.

use super::*;

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
    let cases: [(Asked, &str, Option<u64>); 27] = [
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
        (
            ("mistral", "GET", "/v1/models", "", ""),
            "/data/0/capabilities",
            None,
        ),
        (
            ("mistral", "POST", "/v1/embeddings", "", INPUT),
            "/id",
            Some(IN),
        ),
        (("together", "GET", "/v1/models", "", ""), "/0/type", None),
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
