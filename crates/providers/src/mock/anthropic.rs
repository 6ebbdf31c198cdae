//! Anthropic's answers, for whoever hosts its models.

use serde_json::{Value, json};

use super::{CREATED_AT, MODEL, Reply, Request, named};

/// An endpoint by the end of its path, after `/v1/`.
pub(super) fn reply(request: &Request<'_>, rest: &str) -> Option<Reply> {
    let said = &request.said;
    Some(match (request.method, rest) {
        ("POST", "messages") if said.streams() => {
            let pieces = events(request, said.model()).iter().map(named).collect();
            Reply::sse(pieces, named(&failure()))
        }
        ("POST", "messages") => Reply::json(&message(request, said.model())),
        ("POST", "messages/count_tokens") => {
            Reply::json(&json!({"input_tokens": said.input_tokens()}))
        }
        ("GET", "models") => Reply::json(&json!({
            "data": [model(MODEL)],
            "has_more": false,
            "first_id": MODEL,
            "last_id": MODEL,
        })),
        ("POST", "files") => Reply::json(&file()),
        ("GET", "files") => Reply::json(&json!({
            "data": [file()],
            "has_more": false,
            "first_id": "file_mock",
            "last_id": "file_mock",
        })),
        ("GET", "files/file_mock") => Reply::json(&file()),
        ("DELETE", "files/file_mock") => {
            Reply::json(&json!({"id": "file_mock", "type": "file_deleted"}))
        }
        ("GET", rest) => {
            let id = rest.strip_prefix("models/")?;
            Reply::json(&model(Some(id).filter(|id| !id.contains('/'))?))
        }
        _ => return None,
    })
}

fn model(id: &str) -> Value {
    json!({"type": "model", "id": id, "display_name": "Mock", "created_at": CREATED_AT})
}

fn file() -> Value {
    json!({
        "id": "file_mock",
        "type": "file",
        "filename": "mock.txt",
        "mime_type": "text/plain",
        "size_bytes": 0,
        "created_at": CREATED_AT,
        "downloadable": false,
    })
}

fn usage(request: &Request<'_>, output: u64) -> Value {
    json!({
        "input_tokens": request.said.input_tokens(),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    })
}

/// The whole message.
pub(super) fn message(request: &Request<'_>, model: &str) -> Value {
    json!({
        "id": "msg_mock",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": request.said.text()}],
        "stop_reason": "end_turn",
        "stop_sequence": null,
        "usage": usage(request, request.said.output_tokens()),
    })
}

/// The message as it grows: a first count of 1, as the real one has it, and the right one at the end.
pub(super) fn events(request: &Request<'_>, model: &str) -> Vec<Value> {
    let mut begun = message(request, model);
    begun["content"] = json!([]);
    begun["stop_reason"] = Value::Null;
    begun["usage"] = usage(request, 1);
    let mut events = vec![
        json!({"type": "message_start", "message": begun}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    for word in request.said.words() {
        events.push(json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}));
    }
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": request.said.output_tokens()},
        }),
        json!({"type": "message_stop"}),
    ]);
    events
}

pub(super) fn failure() -> Value {
    json!({"type": "error", "error": {"type": "overloaded_error", "message": "mock: as you wished"}, "request_id": "req_mock"})
}
