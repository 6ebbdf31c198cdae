//! Anthropic's answers. Input and cache counts are disjoint there, and the stream's usage is
//! cumulative: both are shown with numbers that a meter which sums them would get wrong.

use serde_json::{Value, json};

use super::record::Tokens;
use super::reply::{self, Reply, count, pieces, typed};
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

fn messages(body: &Value) -> Reply {
    let prompt = match &body["messages"][0]["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => return error(400, "invalid_request_error", "messages: Field required"),
    };
    let answer = reply::answer(&prompt);
    let tokens = Tokens {
        input: count(&prompt),
        output: count(&answer),
        cache_read: 7,
        cache_write: 3,
    };
    let usage = |output: u64| {
        json!({
            "input_tokens": tokens.input, "output_tokens": output,
            "cache_read_input_tokens": tokens.cache_read, "cache_creation_input_tokens": tokens.cache_write,
            "cache_creation": {"ephemeral_5m_input_tokens": tokens.cache_write, "ephemeral_1h_input_tokens": 0},
            "service_tier": "standard",
        })
    };
    let message = |content: Value, stop: Value, output: u64| {
        json!({
            "id": "msg_test", "type": "message", "role": "assistant", "model": body["model"],
            "content": content, "stop_reason": stop, "stop_sequence": null, "usage": usage(output),
        })
    };
    if body["stream"] != true {
        let content = json!([{"type": "text", "text": answer}]);
        return Reply::json(message(content, json!("end_turn"), tokens.output)).costing(tokens);
    }
    let mut events = vec![
        json!({"type": "message_start", "message": message(json!([]), Value::Null, 1)}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    for piece in pieces(&answer) {
        let delta = json!({"type": "text_delta", "text": piece});
        events.push(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
    }
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": usage(tokens.output)}),
        json!({"type": "message_stop"}),
    ]);
    Reply::events(events.iter().map(typed).collect()).costing(tokens)
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
