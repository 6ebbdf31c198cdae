//! OpenAI's answers: shapes as the SDKs of two generations parse them.

use base64::Engine as _;
use serde_json::{Value, json};

use super::credential;
use super::record::Tokens;
use super::reply::{self, Reply, count, data, pieces, typed};
use super::wire::{Request, find};

const CREATED: u64 = 1_790_000_000;

pub(super) fn answer(request: &Request) -> Reply {
    let path = request
        .path
        .strip_prefix("/v1beta/openai")
        .or(request.path.strip_prefix("/v1"))
        .unwrap_or_default();
    let reply = match (request.method.as_str(), path) {
        ("POST", "/chat/completions") => chat(&request.json()),
        ("POST", "/responses") => responses(&request.json()),
        ("POST", "/embeddings") => embeddings(&request.json()),
        ("POST", "/files") => files(request),
        ("GET", "/models") => models(),
        _ => error(
            404,
            &format!("Invalid URL ({} {})", request.method, request.path),
            "invalid_request_error",
            None,
        ),
    };
    reply
        .header("x-request-id", "req_test_openai")
        .header("openai-organization", "org-test")
        .header("x-ratelimit-remaining-requests", "9999")
}

/// The real 401 repeats part of the key; an agent must never relay it.
pub(super) fn key_rejected(request: &Request) -> Reply {
    let message = format!(
        "Incorrect API key provided: {}. You can find your API key at https://platform.openai.com/account/api-keys.",
        credential::masked(request)
    );
    error(
        401,
        &message,
        "invalid_request_error",
        Some("invalid_api_key"),
    )
}

pub(super) fn failed(status: u16) -> Reply {
    match status {
        429 => error(
            429,
            "Rate limit reached for requests",
            "requests",
            Some("rate_limit_exceeded"),
        )
        .header("retry-after", "1"),
        _ => error(
            status,
            "The server had an error while processing your request",
            "server_error",
            None,
        ),
    }
}

fn error(status: u16, message: &str, kind: &str, code: Option<&str>) -> Reply {
    Reply::json(json!({"error": {"message": message, "type": kind, "param": null, "code": code}}))
        .status(status)
}

fn chat(body: &Value) -> Reply {
    let prompt = body["messages"]
        .as_array()
        .and_then(|all| all.last())
        .map(|last| text(&last["content"]));
    let Some(prompt) = prompt else {
        return error(400, "messages is missing", "invalid_request_error", None);
    };
    let answer = reply::answer(&prompt);
    let tokens = Tokens {
        input: count(&prompt),
        output: count(&answer),
        ..Tokens::default()
    };
    let usage = json!({
        "prompt_tokens": tokens.input, "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    });
    if body["stream"] == true {
        return chat_stream(body, &answer, &usage).costing(tokens);
    }
    Reply::json(json!({
        "id": "chatcmpl-test", "object": "chat.completion", "created": CREATED, "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": null,
            "message": {"role": "assistant", "content": answer, "refusal": null, "annotations": []}}],
        "usage": usage, "service_tier": "default", "system_fingerprint": "fp_test",
    }))
    .costing(tokens)
}

fn chat_stream(body: &Value, answer: &str, usage: &Value) -> Reply {
    let with_usage = body["stream_options"]["include_usage"] == true;
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": "chatcmpl-test", "object": "chat.completion.chunk", "created": CREATED,
            "model": body["model"], "system_fingerprint": "fp_test", "choices": choices,
        });
        if with_usage {
            chunk["usage"] = usage;
        }
        data(&chunk)
    };
    let delta = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
    let mut events = vec![chunk(
        delta(json!({"role": "assistant", "content": ""}), Value::Null),
        Value::Null,
    )];
    for piece in pieces(answer) {
        events.push(chunk(
            delta(json!({"content": piece}), Value::Null),
            Value::Null,
        ));
    }
    events.push(chunk(delta(json!({}), json!("stop")), Value::Null));
    if with_usage {
        events.push(chunk(json!([]), usage.clone()));
    }
    events.push("data: [DONE]\n\n".to_owned());
    Reply::events(events)
}

fn responses(body: &Value) -> Reply {
    let prompt = match &body["input"] {
        Value::Array(items) => items
            .last()
            .map(|item| text(&item["content"]))
            .unwrap_or_default(),
        other => text(other),
    };
    let answer = reply::answer(&prompt);
    let tokens = Tokens {
        input: count(&prompt),
        output: count(&answer),
        ..Tokens::default()
    };
    let part = json!({"type": "output_text", "text": answer, "annotations": [], "logprobs": []});
    let item = json!({"id": "msg_test", "type": "message", "status": "completed", "role": "assistant", "content": [part]});
    let whole = |status: &str, output: Value, usage: Value| {
        json!({
            "id": "resp_test", "object": "response", "created_at": CREATED, "status": status, "error": null,
            "incomplete_details": null, "instructions": null, "metadata": {}, "model": body["model"],
            "output": output, "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto",
            "tools": [], "top_p": 1.0, "usage": usage,
        })
    };
    let usage = json!({
        "input_tokens": tokens.input, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": tokens.output, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens.input + tokens.output,
    });
    let done = whole("completed", json!([item]), usage);
    if body["stream"] != true {
        return Reply::json(done).costing(tokens);
    }
    let opened = whole("in_progress", json!([]), Value::Null);
    let empty = json!({"id": "msg_test", "type": "message", "status": "in_progress", "role": "assistant", "content": []});
    let at = json!({"item_id": "msg_test", "output_index": 0, "content_index": 0});
    let mut events = vec![
        json!({"type": "response.created", "response": opened}),
        json!({"type": "response.in_progress", "response": opened}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": empty}),
        with(
            &at,
            json!({"type": "response.content_part.added",
            "part": {"type": "output_text", "text": "", "annotations": [], "logprobs": []}}),
        ),
    ];
    for piece in pieces(&answer) {
        events.push(with(
            &at,
            json!({"type": "response.output_text.delta", "delta": piece, "logprobs": []}),
        ));
    }
    events.extend([
        with(
            &at,
            json!({"type": "response.output_text.done", "text": answer, "logprobs": []}),
        ),
        with(
            &at,
            json!({"type": "response.content_part.done", "part": part}),
        ),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": done}),
    ]);
    let numbered = events
        .into_iter()
        .enumerate()
        .map(|(number, event)| typed(&with(&event, json!({"sequence_number": number}))));
    Reply::events(numbered.collect()).costing(tokens)
}

fn embeddings(body: &Value) -> Reply {
    let inputs: Vec<String> = match &body["input"] {
        Value::Array(all) => all.iter().map(text).collect(),
        one => vec![text(one)],
    };
    let vector: [f32; 3] = [0.5, -0.25, 1.0];
    // Both SDKs ask for base64 unless told otherwise: little-endian floats.
    let packed: Vec<u8> = vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let embedding = match body["encoding_format"].as_str() {
        Some("base64") => json!(base64::engine::general_purpose::STANDARD.encode(packed)),
        _ => json!(vector),
    };
    let tokens = Tokens {
        input: inputs.iter().map(|input| count(input)).sum(),
        ..Tokens::default()
    };
    let list: Vec<Value> = (0..inputs.len())
        .map(|index| json!({"object": "embedding", "index": index, "embedding": embedding}))
        .collect();
    Reply::json(json!({
        "object": "list", "data": list, "model": body["model"],
        "usage": {"prompt_tokens": tokens.input, "total_tokens": tokens.input},
    }))
    .costing(tokens)
}

/// The answer carries a digest of the content, so that a story can hold upload against receipt.
fn files(request: &Request) -> Reply {
    let Some(parts) = multipart(request) else {
        return error(
            400,
            "the body is no multipart form",
            "invalid_request_error",
            None,
        );
    };
    let named = |name: &str| parts.iter().find(|part| part.name == name);
    let (Some(file), Some(purpose)) = (named("file"), named("purpose")) else {
        return error(
            400,
            "file or purpose is missing",
            "invalid_request_error",
            None,
        );
    };
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, file.content);
    Reply::json(json!({
        "id": "file-test", "object": "file", "bytes": file.content.len(), "created_at": CREATED,
        "filename": file.filename, "purpose": String::from_utf8_lossy(purpose.content),
        "status": "processed", "status_details": null, "expires_at": null, "sha256": hex::encode(digest),
    }))
}

fn models() -> Reply {
    let model =
        |id: &str| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "openai"});
    Reply::json(
        json!({"object": "list", "data": [model("gpt-5.4-mini"), model("text-embedding-3-small")]}),
    )
}

/// A content that is a string, or a list of parts with `text`.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => String::new(),
    }
}

fn with(base: &Value, more: Value) -> Value {
    let mut value = base.clone();
    if let (Some(into), Value::Object(from)) = (value.as_object_mut(), more) {
        into.extend(from);
    }
    value
}

struct Part<'a> {
    name: String,
    filename: Option<String>,
    content: &'a [u8],
}

/// Enough of RFC 7578 for what SDKs send.
fn multipart(request: &Request) -> Option<Vec<Part<'_>>> {
    let boundary = request
        .header("content-type")?
        .split_once("boundary=")?
        .1
        .trim_matches('"');
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut rest = &request.body[find(&request.body, delimiter.as_bytes())? + delimiter.len()..];
    let next = format!("\r\n{delimiter}");
    while let Some(body) = rest.strip_prefix(b"\r\n") {
        let head_end = find(body, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&body[..head_end]).ok()?;
        let content = &body[head_end + 4..];
        let end = find(content, next.as_bytes())?;
        parts.push(Part {
            name: quoted(head, "name=\"")?,
            filename: quoted(head, "filename=\""),
            content: &content[..end],
        });
        rest = &content[end + next.len()..];
    }
    rest.starts_with(b"--").then_some(parts)
}

fn quoted(head: &str, after: &str) -> Option<String> {
    // `name="` also ends `filename="`; the blank or semicolon before it tells them apart.
    let start = head
        .match_indices(after)
        .find(|(at, _)| !head[..*at].ends_with("file"))?
        .0
        + after.len();
    Some(head[start..].split('"').next()?.to_owned())
}
