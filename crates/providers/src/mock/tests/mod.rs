//! The answers as an SDK and as our own meters see them.
#![allow(clippy::unwrap_used)]

mod formats;
mod wishes;

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
