//! Google's answers: Gemini, and Vertex with its publishers.

use serde_json::{Value, json};

use super::said::vector;
use super::{CREATED_AT, MODEL, Reply, Request, anthropic, data, named, openai};

/// Dimensions of a made-up vector.
const DIMENSIONS: usize = 8;
/// As many as the real API takes in one request.
const EMBEDDINGS_MAX: usize = 250;

pub(super) fn reply(request: &Request<'_>) -> Option<Reply> {
    let (version, rest) = request.path.strip_prefix('/')?.split_once('/')?;
    if !matches!(version, "v1" | "v1beta" | "v1alpha") {
        return None;
    }
    if let Some(rest) = rest.strip_prefix("openai/") {
        return openai::endpoint(request, rest, None);
    }
    match (request.method, rest) {
        ("GET", "models") => Some(Reply::json(&json!({"models": [model(MODEL)]}))),
        ("GET", "files") => Some(Reply::json(&json!({"files": []}))),
        ("GET", rest) => {
            let id = rest.strip_prefix("models/")?;
            (!id.contains(['/', ':'])).then(|| Reply::json(&model(id)))
        }
        (_, rest) => {
            let (name, verb) = rest.rsplit_once(':')?;
            let name = name
                .strip_prefix("models/")
                .or_else(|| name.strip_prefix("tunedModels/"))?;
            call(request, name, verb)
        }
    }
}

/// Vertex: the publisher of a model says whose API it speaks.
pub(super) fn vertex(request: &Request<'_>) -> Option<Reply> {
    if let Some((_, rest)) = request.path.split_once("/endpoints/openapi/") {
        return openai::endpoint(request, rest, None);
    }
    let (_, rest) = request.path.split_once("/publishers/")?;
    let (publisher, rest) = rest.split_once("/models/")?;
    let (name, verb) = rest.rsplit_once(':')?;
    match (request.is_post(), publisher, verb) {
        (true, "anthropic", "rawPredict" | "streamRawPredict") => {
            Some(claude(request, name, verb == "streamRawPredict"))
        }
        (true, "google", "predict") => Some(predict(request)),
        (true, "google", verb) => call(request, name, verb),
        _ => None,
    }
}

fn claude(request: &Request<'_>, name: &str, streams: bool) -> Reply {
    if streams || request.said.streams() {
        let pieces = anthropic::events(request, name).iter().map(named).collect();
        return Reply::sse(pieces, named(&anthropic::failure()));
    }
    Reply::json(&anthropic::message(request, name))
}

fn model(id: &str) -> Value {
    json!({
        "name": format!("models/{id}"),
        "version": "001",
        "displayName": "Mock",
        "description": "mock: no model",
        "inputTokenLimit": 1_000_000,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens", "embedContent"],
    })
}

fn call(request: &Request<'_>, name: &str, verb: &str) -> Option<Reply> {
    if !request.is_post() {
        return None;
    }
    let input = request.said.input_tokens();
    let embedding = || json!({"values": vector(DIMENSIONS)});
    Some(match verb {
        "generateContent" => {
            let text = request.said.text();
            Reply::json(&content(
                &text,
                Some("STOP"),
                usage(request, request.said.output_tokens()),
                name,
            ))
        }
        "streamGenerateContent" => stream(request, name),
        "countTokens" => Reply::json(&json!({"totalTokens": input})),
        "embedContent" => Reply::json(&json!({
            "embedding": embedding(),
            "usageMetadata": {"promptTokenCount": input, "totalTokenCount": input},
        })),
        "batchEmbedContents" => {
            let requests = request.said.body["requests"].as_array();
            let number = requests.map_or(0, Vec::len).min(EMBEDDINGS_MAX);
            Reply::json(&json!({"embeddings": vec![embedding(); number]}))
        }
        _ => return None,
    })
}

fn usage(request: &Request<'_>, output: u64) -> Value {
    let input = request.said.input_tokens();
    json!({
        "promptTokenCount": input,
        "candidatesTokenCount": output,
        "totalTokenCount": input + output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": input}],
    })
}

fn content(text: &str, finish: Option<&str>, usage: Value, model: &str) -> Value {
    let mut candidate = json!({
        "index": 0,
        "content": {"role": "model", "parts": [{"text": text}]},
    });
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": model,
        "createTime": CREATED_AT,
        "responseId": "mock",
    })
}

/// With `alt=sse` server-sent events, without it one array that grows.
fn stream(request: &Request<'_>, name: &str) -> Reply {
    let words = request.said.words();
    let chunks: Vec<Value> = (1_u64..)
        .zip(&words)
        .map(|(number, word)| {
            let finish = (number == words.len() as u64).then_some("STOP");
            content(word, finish, usage(request, number), name)
        })
        .collect();
    let failure =
        json!({"error": {"code": 503, "message": "mock: as you wished", "status": "UNAVAILABLE"}});
    if request.query.split('&').any(|pair| pair == "alt=sse") {
        return Reply::sse(chunks.iter().map(data).collect(), data(&failure));
    }
    let mut pieces: Vec<Vec<u8>> = chunks
        .iter()
        .enumerate()
        .map(|(at, chunk)| format!("{}{chunk}", if at == 0 { "[" } else { ",\r\n" }).into_bytes())
        .collect();
    pieces.push(b"]".to_vec());
    Reply::stream(
        "application/json",
        pieces,
        format!(",\r\n{failure}]").into_bytes(),
    )
}

/// Vertex's older form of embeddings.
fn predict(request: &Request<'_>) -> Reply {
    let instances = request.said.body["instances"].as_array();
    let number = instances.map_or(0, Vec::len).min(EMBEDDINGS_MAX);
    let prediction = json!({
        "embeddings": {
            "values": vector(DIMENSIONS),
            "statistics": {"truncated": false, "token_count": 3},
        },
    });
    Reply::json(&json!({"predictions": vec![prediction; number]}))
}
