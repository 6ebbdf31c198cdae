//! Anthropic's answers. Input and cache counts are disjoint there, and the stream's usage is
//! cumulative: both are shown with numbers that a meter which sums them would get wrong.

use serde_json::{Value, json};

use super::record::Tokens;
use super::reply::{EVENTS, Reply, text, typed};
use super::turn::{MISSING_MODEL, Turn};
use super::wire::Request;

pub(super) fn answer(request: &Request) -> Reply {
    let reply = match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/v1/messages") => messages(&request.json()),
        ("GET", "/v1/models") => models(),
        _ => error(404, "not_found_error", "Not found"),
    };
    reply.header("request-id", "req_test_anthropic")
}

pub(super) fn key_rejected() -> Reply {
    error(401, "authentication_error", "invalid x-api-key")
}

pub(super) fn failed(status: u16) -> Reply {
    match status {
        429 => error(
            429,
            "rate_limit_error",
            "This request would exceed your rate limit",
        )
        .header("retry-after", "1"),
        529 => error(529, "overloaded_error", "Overloaded"),
        _ => error(status, "api_error", "Internal server error"),
    }
}

fn error(status: u16, kind: &str, message: &str) -> Reply {
    let error = json!({"type": kind, "message": message});
    Reply::json(json!({"type": "error", "error": error, "request_id": "req_test_anthropic"}))
        .status(status)
}

/// The Messages API, at Anthropic or under another provider's path.
pub(super) fn messages(body: &Value) -> Reply {
    if body["model"] == MISSING_MODEL {
        return error(404, "not_found_error", &format!("model: {MISSING_MODEL}"));
    }
    let turn = match turn(body) {
        Some(turn) => turn,
        None => return error(400, "invalid_request_error", "messages: Field required"),
    };
    if body["stream"] != true {
        return Reply::json(whole(body, &turn)).costing(turn.tokens);
    }
    let events = Events::of(body, &turn);
    turn.stream(
        EVENTS,
        events.opening.iter().map(typed).collect(),
        events.deltas.iter().map(typed).collect(),
        events.closing.iter().map(typed).collect(),
        typed(&events.failure),
    )
}

/// What is asked, if anything.
pub(super) fn turn(body: &Value) -> Option<Turn> {
    let content = &body["messages"][0]["content"];
    let extra = Tokens {
        cache_read: 7,
        cache_write: 3,
        ..Tokens::default()
    };
    (content.is_string() || content.is_array()).then(|| Turn::new(&text(content), extra))
}

/// The answer as one message.
pub(super) fn whole(body: &Value, turn: &Turn) -> Value {
    let content = json!([{"type": "text", "text": turn.answer}]);
    message(body, turn, &content, &json!("end_turn"), turn.tokens.output)
}

/// The answer as events, not yet framed: Bedrock frames them otherwise.
pub(super) struct Events {
    pub opening: Vec<Value>,
    pub deltas: Vec<Value>,
    pub closing: Vec<Value>,
    pub failure: Value,
}

impl Events {
    pub fn of(body: &Value, turn: &Turn) -> Self {
        let delta = |piece: &&str| {
            let delta = json!({"type": "text_delta", "text": piece});
            json!({"type": "content_block_delta", "index": 0, "delta": delta})
        };
        Events {
            opening: vec![
                json!({"type": "message_start", "message": message(body, turn, &json!([]), &Value::Null, 1)}),
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                json!({"type": "ping"}),
            ],
            deltas: turn.pieces().iter().map(delta).collect(),
            closing: vec![
                json!({"type": "content_block_stop", "index": 0}),
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
                    "usage": usage(turn, turn.tokens.output)}),
                json!({"type": "message_stop"}),
            ],
            failure: json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        }
    }
}

fn usage(turn: &Turn, output: u64) -> Value {
    let tokens = turn.tokens;
    json!({
        "input_tokens": tokens.input, "output_tokens": output,
        "cache_read_input_tokens": tokens.cache_read, "cache_creation_input_tokens": tokens.cache_write,
        "cache_creation": {"ephemeral_5m_input_tokens": tokens.cache_write, "ephemeral_1h_input_tokens": 0},
        "service_tier": "standard",
    })
}

fn message(body: &Value, turn: &Turn, content: &Value, stop: &Value, output: u64) -> Value {
    json!({
        "id": "msg_test", "type": "message", "role": "assistant", "model": body["model"],
        "content": content, "stop_reason": stop, "stop_sequence": null, "usage": usage(turn, output),
    })
}

fn models() -> Reply {
    let model = json!({
        "type": "model", "id": "claude-haiku-4-5", "display_name": "Claude Haiku 4.5",
        "created_at": "2025-10-01T00:00:00Z",
    });
    Reply::json(json!({
        "data": [model], "has_more": false, "first_id": "claude-haiku-4-5", "last_id": "claude-haiku-4-5",
    }))
}
