//! Cohere's answers: what is billed stands beside what was counted, and only the first is right.

use serde_json::{Value, json};

use super::record::Tokens;
use super::reply::{EVENTS, Reply, count, last_message, typed};
use super::turn::{MISSING_MODEL, Turn};
use super::wire::Request;

/// Tokens of Cohere's own prompt around the app's: counted, not billed.
const PREAMBLE: u64 = 60;

pub(super) fn answer(request: &Request) -> Reply {
    let body = request.json();
    if body["model"] == MISSING_MODEL {
        let message =
            format!("model '{MISSING_MODEL}' not found, make sure the correct model ID was used");
        return error(404, &message);
    }
    match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/v2/chat") => chat(&body),
        ("POST", "/v2/embed") => embed(&body),
        ("POST", "/v1/check-api-key") => Reply::json(json!({"valid": true})),
        ("GET", "/v1/models") => Reply::json(json!({"models": [
            {"name": "command-a-03-2025", "endpoints": ["chat"], "context_length": 256_000}]})),
        _ => error(404, "page not found"),
    }
}

pub(super) fn key_rejected() -> Reply {
    error(401, "invalid api token")
}

pub(super) fn failed(status: u16) -> Reply {
    error(status, "internal server error")
}

fn error(status: u16, message: &str) -> Reply {
    Reply::json(json!({"id": "test", "message": message})).status(status)
}

fn chat(body: &Value) -> Reply {
    let Some(prompt) = last_message(body) else {
        return error(
            400,
            "invalid request: messages must have at least one entry",
        );
    };
    let turn = Turn::new(&prompt, Tokens::default());
    let usage = json!({
        "billed_units": {"input_tokens": turn.tokens.input, "output_tokens": turn.tokens.output},
        "tokens": {"input_tokens": turn.tokens.input + PREAMBLE, "output_tokens": turn.tokens.output},
    });
    if body["stream"] == true {
        return stream(&turn, &usage);
    }
    Reply::json(json!({
        "id": "chat-test", "finish_reason": "COMPLETE", "usage": usage,
        "message": {"role": "assistant", "content": [{"type": "text", "text": turn.answer}]},
    }))
    .costing(turn.tokens)
}

fn stream(turn: &Turn, usage: &Value) -> Reply {
    let delta = |piece: &&str| {
        typed(&json!({"type": "content-delta", "index": 0,
            "delta": {"message": {"content": {"text": piece}}}}))
    };
    let opening = [
        json!({"id": "chat-test", "type": "message-start", "delta": {"message": {"role": "assistant", "content": [],
            "tool_plan": "", "tool_calls": [], "citations": []}}}),
        json!({"type": "content-start", "index": 0,
            "delta": {"message": {"content": {"type": "text", "text": ""}}}}),
    ];
    let closing = [
        json!({"type": "content-end", "index": 0}),
        json!({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}}),
    ];
    let failure = json!({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "the model failed"}});
    turn.stream(
        EVENTS,
        opening.iter().map(typed).collect(),
        turn.pieces().iter().map(delta).collect(),
        closing.iter().map(typed).collect(),
        typed(&failure),
    )
}

fn embed(body: &Value) -> Reply {
    let texts: Vec<&str> = body["texts"]
        .as_array()
        .map(|texts| texts.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let tokens = Tokens {
        input: texts.iter().map(|text| count(text)).sum(),
        ..Tokens::default()
    };
    Reply::json(json!({
        "id": "embed-test", "response_type": "embeddings_by_type", "texts": texts,
        "embeddings": {"float": vec![[0.5, -0.25, 1.0]; texts.len()]},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens.input}},
    }))
    .costing(tokens)
}
