//! Bedrock's answers: Converse, and InvokeModel with the bodies of a few models.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::said::vector;
use super::{Reply, Request, anthropic, frame, openai};

/// Dimensions of a made-up vector.
const DIMENSIONS: usize = 8;

pub(super) fn reply(request: &Request<'_>) -> Option<Reply> {
    // Mantle.
    if let Some(rest) = request.path.strip_prefix("/openai/v1/") {
        return openai::endpoint(request, rest, None);
    }
    if let Some(rest) = request.path.strip_prefix("/anthropic/v1/") {
        return anthropic::reply(request, rest);
    }
    if request.is_get() {
        return (request.path == "/foundation-models")
            .then(|| Reply::json(&json!({"modelSummaries": []})));
    }
    let (model, verb) = request.path.strip_prefix("/model/")?.rsplit_once('/')?;
    if !request.is_post() || model.is_empty() {
        return None;
    }
    Some(match verb {
        "converse" => Reply::json(&converse(request)),
        "converse-stream" => converse_stream(request),
        "invoke" => invoke(request, model),
        "invoke-with-response-stream" => invoke_stream(request, model),
        "count-tokens" => Reply::json(&json!({"inputTokens": request.said.input_tokens()})),
        _ => return None,
    })
}

fn usage(request: &Request<'_>) -> Value {
    let (input, output) = (request.said.input_tokens(), request.said.output_tokens());
    json!({"inputTokens": input, "outputTokens": output, "totalTokens": input + output})
}

fn converse(request: &Request<'_>) -> Value {
    json!({
        "output": {"message": {"role": "assistant", "content": [{"text": request.said.text()}]}},
        "stopReason": "end_turn",
        "usage": usage(request),
        "metrics": {"latencyMs": 1},
    })
}

/// How a stream fails after its status said 200.
fn failure() -> Vec<u8> {
    frame::exception(
        "modelStreamErrorException",
        &json!({"message": "mock: as you wished"}),
    )
}

fn converse_stream(request: &Request<'_>) -> Reply {
    let mut pieces = vec![frame::event("messageStart", &json!({"role": "assistant"}))];
    for word in request.said.words() {
        let delta = json!({"contentBlockIndex": 0, "delta": {"text": word}});
        pieces.push(frame::event("contentBlockDelta", &delta));
    }
    pieces.extend([
        frame::event("contentBlockStop", &json!({"contentBlockIndex": 0})),
        frame::event("messageStop", &json!({"stopReason": "end_turn"})),
        frame::event(
            "metadata",
            &json!({"usage": usage(request), "metrics": {"latencyMs": 1}}),
        ),
    ]);
    Reply::stream(frame::CONTENT_TYPE, pieces, failure())
}

/// The body of the model's own API: Claude's, an embedding in Titan's words, or else Nova's.
fn invoke(request: &Request<'_>, model: &str) -> Reply {
    let input = request.said.input_tokens();
    let is_embedding = model.contains("embed");
    let body = if model.contains("anthropic") {
        anthropic::message(request, model)
    } else if is_embedding {
        json!({"embedding": vector(DIMENSIONS), "inputTextTokenCount": input})
    } else {
        converse(request)
    };
    let output = if is_embedding {
        0
    } else {
        request.said.output_tokens()
    };
    let mut reply = Reply::json(&body);
    reply.headers.extend([
        ("x-amzn-bedrock-input-token-count", input.to_string()),
        ("x-amzn-bedrock-output-token-count", output.to_string()),
        ("x-amzn-bedrock-invocation-latency", "1".to_owned()),
    ]);
    reply
}

/// The events of the model's own API, each in base64; the last one with Bedrock's own counts.
fn invoke_stream(request: &Request<'_>, model: &str) -> Reply {
    let mut events = if model.contains("anthropic") {
        anthropic::events(request, model)
    } else {
        nova_events(request)
    };
    if let Some(last) = events.last_mut() {
        last["amazon-bedrock-invocationMetrics"] = json!({
            "inputTokenCount": request.said.input_tokens(),
            "outputTokenCount": request.said.output_tokens(),
            "invocationLatency": 1,
            "firstByteLatency": 1,
        });
    }
    let pieces = events
        .iter()
        .map(|event| {
            let digits = STANDARD.encode(event.to_string());
            frame::event("chunk", &json!({"bytes": digits}))
        })
        .collect();
    let mut reply = Reply::stream(frame::CONTENT_TYPE, pieces, failure());
    let inner = ("x-amzn-bedrock-content-type", "application/json".to_owned());
    reply.headers.push(inner);
    reply
}

fn nova_events(request: &Request<'_>) -> Vec<Value> {
    let mut events = vec![json!({"messageStart": {"role": "assistant"}})];
    for word in request.said.words() {
        events
            .push(json!({"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": word}}}));
    }
    events.push(json!({"messageStop": {"stopReason": "end_turn"}}));
    events.push(json!({"metadata": {"usage": usage(request), "metrics": {}}}));
    events
}
