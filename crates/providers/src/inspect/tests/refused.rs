//! Bodies that are refused.

use super::*;

#[test]
fn bodies_that_two_parsers_could_read_differently_are_refused() {
    use BodyFault as F;
    for (provider, line, body, wanted) in [
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","model":"b"}"#,
            F::Duplicate,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","model":"a"}"#,
            F::Duplicate,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","m\u006fdel":"b"}"#,
            F::Duplicate,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","Model":"b"}"#,
            F::Spelling,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"MODEL":"b"}"#,
            F::Spelling,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":["a"]}"#,
            F::Model,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":{"id":"a"}}"#,
            F::Model,
        ),
        ("openai", "POST /v1/responses", r#"{"model":1}"#, F::Model),
        ("openai", "POST /v1/responses", r#"{"model":""}"#, F::Model),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a\u0000"}"#,
            F::Model,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"\ud800"}"#,
            F::Model,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"[{"model":"a"}]"#,
            F::Json,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a"}{"model":"b"}"#,
            F::Json,
        ),
        ("openai", "POST /v1/responses", "model=a", F::Json),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","tools":[[{"type":"mcp"}]]}"#,
            F::Nesting,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","tools":[{"type":"x","type":"mcp"}]}"#,
            F::Duplicate,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","tools":[],"tools":[{"type":"mcp"}]}"#,
            F::Duplicate,
        ),
        (
            "anthropic",
            "POST /v1/messages/batches",
            r#"{"requests":[{"params":{"model":"a","model":"b"}}]}"#,
            F::Duplicate,
        ),
        (
            "anthropic",
            "POST /v1/messages/batches",
            r#"{"requests":[{"params":{},"params":{"model":"b"}}]}"#,
            F::Duplicate,
        ),
        (
            "gemini",
            "POST /v1beta/models/g:generateContent",
            r#"{"model":"models/h"}"#,
            F::Contradiction,
        ),
        (
            "gemini",
            "POST /v1beta/models/g:batchEmbedContents",
            r#"{"requests":[{"model":"models/g"},{"model":"models/h"}]}"#,
            F::Contradiction,
        ),
        (
            "gemini",
            "POST /v1beta/models/g:countTokens",
            r#"{"generate_content_request":{"model":"models/h"}}"#,
            F::Contradiction,
        ),
        (
            "gemini",
            "POST /v1beta/models/g:countTokens",
            r#"{"generateContentRequest":{},"generate_content_request":{}}"#,
            F::Duplicate,
        ),
    ] {
        assert_eq!(
            read(provider, line, body).err(),
            Some(wanted),
            "{provider} {body}"
        );
    }
}

#[test]
fn content_types_are_those_that_can_be_read() {
    let (api, call) = call("openai", "POST /v1/chat/completions");
    let read =
        |kind: &str| inspect(api, &call, kind, br#"{"model":"m"}"#).map(|found| found.models);
    for kind in [
        "",
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/vnd.x+json",
        "application/json; charset=\"utf-8\"",
    ] {
        assert_eq!(read(kind), Ok(vec!["m".to_owned()]), "{kind}");
    }
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/jsonx",
        "multipart/form-data; boundary=a",
        "application/json, text/plain",
    ] {
        assert_eq!(read(kind), Err(BodyFault::ContentType), "{kind}");
    }
}
