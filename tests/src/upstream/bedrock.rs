//! Bedrock's answers: Converse in its own words, Invoke in the model's, streams as event-stream frames.

use base64::Engine as _;
use serde_json::{Value, json};

use super::anthropic;
use super::eventstream::{self, CONTENT_TYPE};
use super::record::Tokens;
use super::reply::{Reply, count, text};
use super::turn::{MISSING_MODEL, Turn};
use super::wire::Request;

pub(super) fn answer(request: &Request) -> Reply {
    let reply = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/foundation-models") => Reply::json(json!({"modelSummaries": []})),
        ("POST", path) => match path
            .strip_prefix("/model/")
            .and_then(|rest| rest.rsplit_once('/'))
        {
            Some((model, _)) if model == MISSING_MODEL => error(
                400,
                "ValidationException",
                "The provided model identifier is invalid.",
            ),
            Some((model, verb)) => call(&request.json(), model, verb),
            None => unknown(),
        },
        _ => unknown(),
    };
    reply.header("x-amzn-requestid", "req-test-bedrock")
}

fn call(body: &Value, model: &str, verb: &str) -> Reply {
    match verb {
        "converse" => converse(body),
        "converse-stream" => converse_stream(body),
        "invoke" if model.contains("embed") => embed(body),
        "invoke" => invoke(body, model),
        "invoke-with-response-stream" => invoke_stream(body, model),
        _ => unknown(),
    }
}

pub(super) fn key_rejected() -> Reply {
    let message = "Authentication failed: Please make sure your API Key is valid.";
    Reply::json(json!({"Message": message})).status(403)
}

pub(super) fn failed(status: u16) -> Reply {
    match status {
        429 => error(
            429,
            "ThrottlingException",
            "Too many requests, please wait before trying again.",
        ),
        _ => error(
            status,
            "InternalServerException",
            "The system encountered an unexpected error.",
        ),
    }
}

fn unknown() -> Reply {
    error(404, "UnknownOperationException", "Unknown operation")
}

fn error(status: u16, kind: &str, message: &str) -> Reply {
    Reply::json(json!({"message": message}))
        .status(status)
        .header("x-amzn-errortype", kind)
}

fn converse_turn(body: &Value) -> Turn {
    let last = body["messages"].as_array().and_then(|all| all.last());
    let prompt = last.map(|last| text(&last["content"])).unwrap_or_default();
    let extra = Tokens {
        cache_read: 4,
        cache_write: 1,
        ..Tokens::default()
    };
    Turn::new(&prompt, extra)
}

/// Caches stand beside the input here, as with Anthropic.
fn usage(tokens: Tokens) -> Value {
    let total = tokens.input + tokens.cache_read + tokens.cache_write + tokens.output;
    json!({
        "inputTokens": tokens.input, "outputTokens": tokens.output, "totalTokens": total,
        "cacheReadInputTokens": tokens.cache_read, "cacheWriteInputTokens": tokens.cache_write,
    })
}

fn converse(body: &Value) -> Reply {
    let turn = converse_turn(body);
    Reply::json(json!({
        "output": {"message": {"role": "assistant", "content": [{"text": turn.answer}]}},
        "stopReason": "end_turn", "usage": usage(turn.tokens), "metrics": {"latencyMs": 5},
    }))
    .costing(turn.tokens)
}

fn converse_stream(body: &Value) -> Reply {
    let turn = converse_turn(body);
    let delta = |piece: &&str| {
        eventstream::event(
            "contentBlockDelta",
            &json!({"contentBlockIndex": 0, "delta": {"text": piece}}),
        )
    };
    let metadata = json!({"usage": usage(turn.tokens), "metrics": {"latencyMs": 5}});
    let closing = vec![
        eventstream::event("contentBlockStop", &json!({"contentBlockIndex": 0})),
        eventstream::event("messageStop", &json!({"stopReason": "end_turn"})),
        eventstream::event("metadata", &metadata),
    ];
    turn.stream(
        CONTENT_TYPE,
        vec![eventstream::event(
            "messageStart",
            &json!({"role": "assistant"}),
        )],
        turn.pieces().iter().map(delta).collect(),
        closing,
        failure(),
    )
}

fn failure() -> Vec<u8> {
    let message = json!({"message": "The system encountered an unexpected error."});
    eventstream::exception("internalServerException", &message)
}

/// The model's own reply; its token counts stand in headers too.
fn invoke(body: &Value, model: &str) -> Reply {
    let Some(turn) = anthropic::turn(body) else {
        return error(400, "ValidationException", "messages: Field required");
    };
    let mut body = body.clone();
    body["model"] = json!(model);
    let reply = Reply::json(anthropic::whole(&body, &turn)).costing(turn.tokens);
    counted(reply, turn.tokens)
}

fn counted(reply: Reply, tokens: Tokens) -> Reply {
    reply
        .header("x-amzn-bedrock-input-token-count", tokens.input.to_string())
        .header(
            "x-amzn-bedrock-output-token-count",
            tokens.output.to_string(),
        )
}

/// The model's own events, each in a `chunk` frame; the last carries Bedrock's count.
fn invoke_stream(body: &Value, model: &str) -> Reply {
    let Some(turn) = anthropic::turn(body) else {
        return error(400, "ValidationException", "messages: Field required");
    };
    let mut body = body.clone();
    body["model"] = json!(model);
    let mut events = anthropic::Events::of(&body, &turn);
    if let Some(last) = events.closing.last_mut() {
        last["amazon-bedrock-invocationMetrics"] = json!({
            "inputTokenCount": turn.tokens.input, "outputTokenCount": turn.tokens.output,
            "cacheReadInputTokenCount": turn.tokens.cache_read, "cacheWriteInputTokenCount": turn.tokens.cache_write,
            "invocationLatency": 5, "firstByteLatency": 1,
        });
    }
    let chunk = |event: &Value| {
        let bytes = base64::engine::general_purpose::STANDARD.encode(event.to_string());
        eventstream::event("chunk", &json!({"bytes": bytes, "p": "abcdefgh"}))
    };
    turn.stream(
        CONTENT_TYPE,
        events.opening.iter().map(chunk).collect(),
        events.deltas.iter().map(chunk).collect(),
        events.closing.iter().map(chunk).collect(),
        failure(),
    )
}

/// An embedding model's reply names no output.
fn embed(body: &Value) -> Reply {
    let tokens = Tokens {
        input: body["inputText"].as_str().map(count).unwrap_or_default(),
        ..Tokens::default()
    };
    let reply = json!({"embedding": [0.5, -0.25, 1.0], "inputTextTokenCount": tokens.input});
    Reply::json(reply)
        .costing(tokens)
        .header("x-amzn-bedrock-input-token-count", tokens.input.to_string())
}
