//! Gemini's answers, under `/v1/` (current SDKs) and `/v1beta/` (the generation before); Vertex has the same
//! ones under a longer path, and Anthropic's models beside them.

use serde_json::{Value, json};

use super::record::Tokens;
use super::reply::{EVENTS, Reply, data};
use super::turn::{MISSING_MODEL, Turn};
use super::wire::Request;
use super::{Provider, anthropic, openai, upload};

pub(super) fn answer(provider: Provider, request: &Request) -> Reply {
    if request.path.starts_with("/v1beta/openai/") || request.path.contains("/endpoints/openapi/") {
        return openai::answer(provider, request);
    }
    if let Some(reply) = upload::answer(request) {
        return reply;
    }
    let unknown = || error(404, "NOT_FOUND", "Requested entity was not found.", None);
    let Some((_, path)) = request
        .path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
    else {
        return unknown();
    };
    let path = match provider {
        Provider::Vertex => match published(path) {
            Some(path) => path,
            None => return unknown(),
        },
        _ => path,
    };
    if (request.method.as_str(), path) == ("GET", "models") {
        return models();
    }
    let (publisher, path) = match path.strip_prefix("anthropic/") {
        Some(rest) => (Publisher::Anthropic, rest),
        None => (Publisher::Google, path),
    };
    let Some((model, verb)) = path
        .strip_prefix("models/")
        .and_then(|rest| rest.split_once(':'))
    else {
        return unknown();
    };
    if model == MISSING_MODEL {
        let message = format!("models/{model} is not found for API version v1");
        return error(404, "NOT_FOUND", &message, None);
    }
    match publisher {
        Publisher::Google => generative(request, model, verb),
        Publisher::Anthropic => raw(request, model, verb),
    }
}

enum Publisher {
    Google,
    Anthropic,
}

/// `models/…` of Google, `anthropic/models/…` of Anthropic, below a project and a location.
fn published(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("projects/")?.split_once('/')?.1;
    let rest = rest.strip_prefix("locations/")?.split_once('/')?.1;
    let rest = rest.strip_prefix("publishers/")?;
    rest.strip_prefix("google/")
        .or_else(|| rest.starts_with("anthropic/").then_some(rest))
}

fn generative(request: &Request, model: &str, verb: &str) -> Reply {
    let body = request.json();
    match verb {
        "generateContent" => generate(model, &body),
        "streamGenerateContent" if request.parameter("alt") == Some("sse") => {
            stream(model, &body, Framing::Events)
        }
        "streamGenerateContent" => stream(model, &body, Framing::Array),
        "embedContent" | "batchEmbedContents" => embed(verb, &body),
        "predict" => predict(&body),
        _ => error(
            404,
            "NOT_FOUND",
            &format!("models/{model} does not support {verb}"),
            None,
        ),
    }
}

/// Anthropic's Messages API as Vertex serves it: the model is in the path, its version in the body.
fn raw(request: &Request, model: &str, verb: &str) -> Reply {
    let mut body = request.json();
    if body["anthropic_version"].as_str().is_none() || body.get("model").is_some() {
        return error(
            400,
            "INVALID_ARGUMENT",
            "anthropic_version: Field required",
            None,
        );
    }
    body["model"] = json!(model);
    body["stream"] = json!(verb == "streamRawPredict");
    anthropic::messages(&body)
}

/// Google says 400 for a bad key, not 401: an agent that looks at the status alone relays it.
pub(super) fn key_rejected(provider: Provider) -> Reply {
    if provider == Provider::Vertex {
        return error(
            401,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials.",
            None,
        );
    }
    let reason = json!([{
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
        "domain": "googleapis.com", "metadata": {"service": "generativelanguage.googleapis.com"},
    }]);
    error(
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
        Some(reason),
    )
}

pub(super) fn failed(status: u16) -> Reply {
    match status {
        429 => error(
            429,
            "RESOURCE_EXHAUSTED",
            "Resource has been exhausted",
            None,
        ),
        _ => error(status, "INTERNAL", "An internal error has occurred", None),
    }
}

fn error(status: u16, kind: &str, message: &str, details: Option<Value>) -> Reply {
    let mut error = json!({"code": status, "message": message, "status": kind});
    if let Some(details) = details {
        error["details"] = details;
    }
    Reply::json(json!({"error": error})).status(status)
}

/// The text of the last content.
pub(super) fn prompt(body: &Value) -> String {
    let last = body["contents"]
        .as_array()
        .and_then(|all| all.last())
        .unwrap_or(&body["content"]);
    let parts = last["parts"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    parts
        .iter()
        .filter_map(|part| part["text"].as_str())
        .collect()
}

fn turn(body: &Value) -> Turn {
    let extra = Tokens {
        cache_read: 3,
        reasoning: 2,
        ..Tokens::default()
    };
    Turn::new(&prompt(body), extra)
}

/// The prompt's count contains the cached tokens; the candidates' does not contain the thoughts.
fn chunk(model: &str, text: &str, finish: Option<&str>, tokens: Tokens) -> Value {
    let mut candidate =
        json!({"index": 0, "content": {"role": "model", "parts": [{"text": text}]}});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    let prompt = tokens.input + tokens.cache_read;
    json!({
        "candidates": [candidate], "modelVersion": model, "responseId": "resp-test",
        "usageMetadata": {
            "promptTokenCount": prompt, "candidatesTokenCount": tokens.output - tokens.reasoning,
            "thoughtsTokenCount": tokens.reasoning, "cachedContentTokenCount": tokens.cache_read,
            "totalTokenCount": prompt + tokens.output,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        },
    })
}

fn generate(model: &str, body: &Value) -> Reply {
    let turn = turn(body);
    Reply::json(chunk(model, &turn.answer, Some("STOP"), turn.tokens)).costing(turn.tokens)
}

enum Framing {
    Events,
    /// A JSON array that arrives element by element.
    Array,
}

fn stream(model: &str, body: &Value, framing: Framing) -> Reply {
    let turn = turn(body);
    let pieces = turn.pieces();
    let whole = turn.tokens.output - turn.tokens.reasoning == pieces.len() as u64;
    let delta = |(index, piece): (usize, &&str)| {
        // The counts are cumulative: the last chunk's are the truth.
        let tokens = Tokens {
            output: index as u64 + 1 + turn.tokens.reasoning,
            ..turn.tokens
        };
        let last = whole && index + 1 == pieces.len();
        chunk(model, piece, last.then_some("STOP"), tokens)
    };
    let chunks: Vec<Value> = pieces.iter().enumerate().map(delta).collect();
    let failure = json!({"error": {"code": 503, "message": "The model is overloaded. Please try again later.",
        "status": "UNAVAILABLE"}});
    match framing {
        Framing::Events => turn.stream(
            EVENTS,
            vec![],
            chunks.iter().map(data).collect(),
            vec![],
            data(&failure),
        ),
        Framing::Array => {
            let element = |(index, chunk): (usize, &Value)| {
                format!("{}{chunk}", if index == 0 { "[" } else { ",\r\n" }).into_bytes()
            };
            let deltas = chunks.iter().enumerate().map(element).collect();
            let failure = format!(",\r\n{failure}]").into_bytes();
            turn.stream(
                "application/json",
                vec![],
                deltas,
                vec![b"]".to_vec()],
                failure,
            )
        }
    }
}

fn embed(verb: &str, body: &Value) -> Reply {
    let embedding = json!({"values": [0.5, -0.25, 1.0]});
    match verb {
        "embedContent" => Reply::json(json!({"embedding": embedding})),
        _ => {
            let count = body["requests"].as_array().map_or(0, Vec::len);
            Reply::json(json!({"embeddings": vec![embedding; count]}))
        }
    }
}

/// Embeddings as Vertex's older models give them.
fn predict(body: &Value) -> Reply {
    let inputs = body["instances"].as_array().map_or(0, Vec::len);
    let embedding = json!({"embeddings": {"values": [0.5, -0.25, 1.0], "statistics": {"token_count": 6, "truncated": false}}});
    Reply::json(json!({"predictions": vec![embedding; inputs]}))
}

fn models() -> Reply {
    Reply::json(json!({"models": [{
        "name": "models/gemini-3.6-flash", "version": "3.6", "displayName": "Gemini 3.6 Flash",
        "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }]}))
}
