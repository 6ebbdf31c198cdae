//! Streams that are made to report usage.

use super::*;

#[test]
fn streams_are_made_to_report_usage_where_the_provider_takes_the_question() {
    const ASKED: &str = r#""stream_options":{"include_usage":true}"#;
    for (body, wanted) in [
        (r#"{"stream":true,"model":"m"}"#, Some(format!(r#"{{{ASKED},"stream":true,"model":"m"}}"#))),
        (" {\n\"stream\" : true}", Some(format!(" {{{ASKED},\n\"stream\" : true}}"))),
        (r#"{"stream":true,"stream_options":null}"#, Some(format!(r#"{{"stream":true,{ASKED}}}"#))),
        (r#"{"stream":true,"stream_options":{ }}"#, Some(format!(r#"{{"stream":true,{ASKED}}}"#))),
        (r#"{"stream":true,"stream_options":{"include_usage":false}}"#, Some(format!(r#"{{"stream":true,{ASKED}}}"#))),
        (r#"{"stream":true,"stream_options":{"include_usage":null}}"#, Some(format!(r#"{{"stream":true,{ASKED}}}"#))),
        (
            r#"{"stream":true,"stream_options":{"include_obfuscation":false}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}"#.to_owned()),
        ),
        (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, None),
        (r#"{"stream":true,"stream_options":"x"}"#, None),
        (r#"{"stream":false,"model":"m"}"#, None),
        (r#"{"model":"m"}"#, None),
    ] {
        let found = chat(body).unwrap();
        let edited = found.usage_edit.map(|edit| apply(body.as_bytes(), &[edit]));
        assert_eq!(edited.map(|edited| String::from_utf8(edited).unwrap()), wanted, "{body}");
    }
    let twice = r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#;
    assert_eq!(chat(twice), Err(BodyFault::Duplicate));
}

#[test]
fn the_question_is_asked_of_those_who_take_it() {
    let asks = |provider: &str, line: &str| {
        let found = read(provider, line, r#"{"model":"g","stream":true}"#).unwrap();
        assert!(found.stream);
        found.usage_edit.is_some()
    };
    for (provider, line, wanted) in [
        ("openai", "POST /v1/chat/completions", true),
        ("openai", "POST /v1/completions", true),
        ("openai", "POST /v1/responses", false),
        ("azure", "POST /openai/v1/chat/completions", true),
        (
            "azure",
            "POST /openai/deployments/d/chat/completions?api-version=2024-10-21",
            true,
        ),
        (
            "azure",
            "POST /openai/deployments/d/chat/completions?api-version=2024-06-01",
            false,
        ),
        (
            "azure",
            "POST /openai/deployments/d/chat/completions",
            false,
        ),
        ("deepseek", "POST /chat/completions", true),
        ("together", "POST /v1/chat/completions", true),
        ("gemini", "POST /v1beta/openai/chat/completions", true),
        ("bedrock", "POST /openai/v1/chat/completions", true),
        ("mistral", "POST /v1/chat/completions", false),
        ("groq", "POST /openai/v1/chat/completions", false),
        ("openrouter", "POST /api/v1/chat/completions", false),
        ("anthropic", "POST /v1/messages", false),
    ] {
        assert_eq!(asks(provider, line), wanted, "{provider} {line}");
    }
}
