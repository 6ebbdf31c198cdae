//! The Responses API.

use serde_json::{Value, json};

use super::{CREATED, Reply, Request, named};

pub(super) fn reply(request: &Request<'_>, model: &str) -> Reply {
    let text = request.said.text();
    let output = json!([message(&text, "completed")]);
    let whole = response(request, model, "completed", &output, usage(request));
    if request.said.streams() {
        stream(request, model, &text, &whole)
    } else {
        Reply::json(&whole)
    }
}

fn usage(request: &Request<'_>) -> Value {
    let (input, output) = (request.said.input_tokens(), request.said.output_tokens());
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input + output,
    })
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": []})
}

fn message(text: &str, status: &str) -> Value {
    let content = if text.is_empty() {
        json!([])
    } else {
        json!([part(text)])
    };
    json!({"id": "msg_mock", "type": "message", "status": status, "role": "assistant", "content": content})
}

fn response(
    request: &Request<'_>,
    model: &str,
    status: &str,
    output: &Value,
    usage: Value,
) -> Value {
    json!({
        "id": "resp_mock",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": null,
        "incomplete_details": null,
        "instructions": request.said.body["instructions"],
        "metadata": {},
        "model": model,
        "output": output,
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "store": false,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
    })
}

fn stream(request: &Request<'_>, model: &str, text: &str, whole: &Value) -> Reply {
    let begun = response(request, model, "in_progress", &json!([]), Value::Null);
    let at = json!({"item_id": "msg_mock", "output_index": 0, "content_index": 0});
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": message("", "in_progress")}),
        with(
            &at,
            json!({"type": "response.content_part.added", "part": part("")}),
        ),
    ];
    for word in request.said.words() {
        let delta = json!({"type": "response.output_text.delta", "delta": word, "logprobs": []});
        events.push(with(&at, delta));
    }
    events.extend([
        with(&at, json!({"type": "response.output_text.done", "text": text, "logprobs": []})),
        with(&at, json!({"type": "response.content_part.done", "part": part(text)})),
        json!({"type": "response.output_item.done", "output_index": 0, "item": message(text, "completed")}),
        json!({"type": "response.completed", "response": whole}),
    ]);
    let pieces = events
        .iter_mut()
        .enumerate()
        .map(|(number, event)| {
            event["sequence_number"] = json!(number);
            named(event)
        })
        .collect();
    let failure = json!({"type": "error", "code": "server_error", "message": "mock: as you wished", "param": null, "sequence_number": events.len()});
    Reply::sse(pieces, named(&failure))
}

/// An event at a place in the output.
fn with(at: &Value, mut event: Value) -> Value {
    if let (Some(event), Some(at)) = (event.as_object_mut(), at.as_object()) {
        event.extend(at.clone());
    }
    event
}
