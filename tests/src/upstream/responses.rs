//! The Responses API: whole, as server-sent events, and as frames of a WebSocket (the same events).

use serde_json::{Value, json};

use super::openai::CREATED;
use super::record::Tokens;
use super::reply::{EVENTS, Reply, text, typed};
use super::turn::Turn;

pub(super) fn answer(body: &Value) -> Reply {
    let turn = turn(body);
    if body["stream"] != true {
        return Reply::json(done(body, &turn)).costing(turn.tokens);
    }
    let framed = |events: &[Value]| events.iter().map(typed).collect();
    let events = Events::of(body, &turn);
    turn.stream(
        EVENTS,
        framed(&events.opening),
        framed(&events.deltas),
        framed(&events.closing),
        typed(&events.failure),
    )
}

/// What is asked.
pub(super) fn turn(body: &Value) -> Turn {
    let prompt = match &body["input"] {
        Value::Array(items) => items
            .last()
            .map(|item| text(&item["content"]))
            .unwrap_or_default(),
        other => text(other),
    };
    // A reasoning model with a warm cache: what is billed differs from what is read.
    let extra = Tokens {
        cache_read: 4,
        cache_write: 2,
        reasoning: 3,
        ..Tokens::default()
    };
    Turn::new(&prompt, extra)
}

/// The answer as events with their numbers, not yet framed.
pub(super) struct Events {
    pub opening: Vec<Value>,
    pub deltas: Vec<Value>,
    pub closing: Vec<Value>,
    pub failure: Value,
}

impl Events {
    pub fn of(body: &Value, turn: &Turn) -> Self {
        let part =
            json!({"type": "output_text", "text": turn.answer, "annotations": [], "logprobs": []});
        let opened = response(body, "in_progress", &json!([]), &Value::Null);
        let at = json!({"item_id": "msg_test", "output_index": 0, "content_index": 0});
        let mut opening = vec![
            json!({"type": "response.created", "response": opened}),
            json!({"type": "response.in_progress", "response": opened}),
            json!({"type": "response.output_item.added", "output_index": 0, "item": item("in_progress", &json!([]))}),
            with(
                &at,
                json!({"type": "response.content_part.added",
                "part": {"type": "output_text", "text": "", "annotations": [], "logprobs": []}}),
            ),
        ];
        let delta = |piece: &&str| {
            with(
                &at,
                json!({"type": "response.output_text.delta", "delta": piece, "logprobs": []}),
            )
        };
        let mut deltas: Vec<Value> = turn.pieces().iter().map(delta).collect();
        let mut closing = vec![
            with(
                &at,
                json!({"type": "response.output_text.done", "text": turn.answer, "logprobs": []}),
            ),
            with(
                &at,
                json!({"type": "response.content_part.done", "part": part}),
            ),
            json!({"type": "response.output_item.done", "output_index": 0, "item": item("completed", &json!([part]))}),
            json!({"type": "response.completed", "response": done(body, turn)}),
        ];
        let mut failure = json!({"type": "response.failed", "response": broken(body, turn)});
        let mut number = 0;
        for event in opening.iter_mut().chain(&mut deltas).chain(&mut closing) {
            event["sequence_number"] = json!(number);
            number += 1;
        }
        failure["sequence_number"] = json!(number);
        Events {
            opening,
            deltas,
            closing,
            failure,
        }
    }
}

fn item(status: &str, content: &Value) -> Value {
    json!({"id": "msg_test", "type": "message", "status": status, "role": "assistant", "content": content})
}

fn response(body: &Value, status: &str, output: &Value, usage: &Value) -> Value {
    json!({
        "id": "resp_test", "object": "response", "created_at": CREATED, "status": status, "error": null,
        "incomplete_details": null, "instructions": null, "metadata": {}, "model": body["model"],
        "output": output, "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto",
        "tools": [], "top_p": 1.0, "usage": usage,
    })
}

fn usage(tokens: Tokens) -> Value {
    let input = tokens.input + tokens.cache_read + tokens.cache_write;
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": tokens.cache_write},
        "output_tokens": tokens.output, "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": input + tokens.output,
    })
}

fn done(body: &Value, turn: &Turn) -> Value {
    let part =
        json!({"type": "output_text", "text": turn.answer, "annotations": [], "logprobs": []});
    let output = json!([item("completed", &json!([part]))]);
    response(body, "completed", &output, &usage(turn.tokens))
}

/// A failed response still says what it cost until then.
fn broken(body: &Value, turn: &Turn) -> Value {
    let written = Tokens {
        output: turn.pieces().len() as u64,
        ..turn.tokens
    };
    let mut response = response(body, "failed", &json!([]), &usage(written));
    response["error"] =
        json!({"code": "server_error", "message": "The model failed to generate a response."});
    response
}

fn with(base: &Value, more: Value) -> Value {
    let mut value = base.clone();
    if let (Some(into), Value::Object(from)) = (value.as_object_mut(), more) {
        into.extend(from);
    }
    value
}
