//! Cohere's answers.

use serde_json::{Value, json};

use super::said::{count, vector};
use super::{MODEL, Reply, Request, named};

/// Dimensions of a made-up vector.
const DIMENSIONS: usize = 8;
/// As many as the real API takes in one request.
const TEXTS_MAX: usize = 96;
/// As many as the real API recommends for one request.
const DOCUMENTS_MAX: usize = 1000;

pub(super) fn reply(request: &Request<'_>) -> Option<Reply> {
    let body = &request.said.body;
    Some(match (request.method, request.path) {
        ("POST", "/v2/chat") if request.said.streams() => stream(request),
        ("POST", "/v2/chat") => Reply::json(&json!({
            "id": "mock",
            "finish_reason": "COMPLETE",
            "message": message(&request.said.text()),
            "usage": usage(request),
        })),
        ("POST", "/v2/embed" | "/v1/embed") => {
            let number = count(&body["texts"]).min(TEXTS_MAX);
            let input = request.said.input_tokens();
            Reply::json(&json!({
                "id": "mock",
                "response_type": "embeddings_by_type",
                "embeddings": {"float": vec![vector(DIMENSIONS); number]},
                "texts": body["texts"],
                "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": input}},
            }))
        }
        ("POST", "/v2/rerank" | "/v1/rerank") => {
            let number = count(&body["documents"]).min(DOCUMENTS_MAX);
            let results: Vec<Value> = (0..number)
                .map(|index| json!({"index": index, "relevance_score": 0.5}))
                .collect();
            Reply::json(&json!({
                "id": "mock",
                "results": results,
                "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
            }))
        }
        ("GET", "/v1/models") => Reply::json(&json!({"models": [model(MODEL)]})),
        ("POST", "/v1/check-api-key") => Reply::json(&json!({"valid": true})),
        ("GET", path) => {
            let id = path.strip_prefix("/v1/models/")?;
            Reply::json(&model(Some(id).filter(|id| !id.contains('/'))?))
        }
        _ => return None,
    })
}

fn model(name: &str) -> Value {
    json!({"name": name, "endpoints": ["chat", "embed", "rerank"], "finetuned": false, "context_length": 128_000})
}

fn message(text: &str) -> Value {
    json!({"role": "assistant", "content": [{"type": "text", "text": text}]})
}

fn usage(request: &Request<'_>) -> Value {
    let (input, output) = (request.said.input_tokens(), request.said.output_tokens());
    json!({
        "billed_units": {"input_tokens": input, "output_tokens": output},
        "tokens": {"input_tokens": input + 64, "output_tokens": output},
    })
}

fn stream(request: &Request<'_>) -> Reply {
    let mut events = vec![
        json!({"type": "message-start", "id": "mock", "delta": {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}}}),
        json!({"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}),
    ];
    for word in request.said.words() {
        events.push(json!({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}}));
    }
    events.push(json!({"type": "content-end", "index": 0}));
    events.push(json!({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage(request)}}));
    let failure = json!({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "mock: as you wished"}});
    Reply::sse(events.iter().map(named).collect(), named(&failure))
}
