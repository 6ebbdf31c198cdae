//! Gemini's answers, under `/v1/` (current SDKs) and `/v1beta/` (the generation before).

use serde_json::{Value, json};

use super::openai;
use super::record::Tokens;
use super::reply::{self, Reply, count, data, pieces};
use super::wire::Request;

pub(super) fn answer(request: &Request) -> Reply {
    if request.path.starts_with("/v1beta/openai/") {
        return openai::answer(request);
    }
    let path = request
        .path
        .strip_prefix("/v1beta/")
        .or(request.path.strip_prefix("/v1/"))
        .unwrap_or_default();
    if (request.method.as_str(), path) == ("GET", "models") {
        return models();
    }
    let Some((model, verb)) = path
        .strip_prefix("models/")
        .and_then(|rest| rest.split_once(':'))
    else {
        return error(404, "NOT_FOUND", "Requested entity was not found.", None);
    };
    let events = request
        .query
        .as_deref()
        .unwrap_or_default()
        .split('&')
        .any(|parameter| parameter == "alt=sse");
    match verb {
        "generateContent" => generate(model, &request.json()),
        "streamGenerateContent" if events => stream(model, &request.json()),
        "embedContent" | "batchEmbedContents" => embed(verb, &request.json()),
        _ => error(
            404,
            "NOT_FOUND",
            &format!("models/{model} does not support {verb}"),
            None,
        ),
    }
}

/// Google says 400 for a bad key, not 401: an agent that looks at the status alone relays it.
pub(super) fn key_rejected() -> Reply {
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

fn prompt(body: &Value) -> String {
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

fn chunk(model: &str, text: &str, last: bool, tokens: Tokens) -> Value {
    let mut candidate =
        json!({"index": 0, "content": {"role": "model", "parts": [{"text": text}]}});
    if last {
        candidate["finishReason"] = json!("STOP");
    }
    json!({
        "candidates": [candidate], "modelVersion": model, "responseId": "resp-test",
        "usageMetadata": {
            "promptTokenCount": tokens.input, "candidatesTokenCount": tokens.output,
            "totalTokenCount": tokens.input + tokens.output,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens.input}],
        },
    })
}

fn generate(model: &str, body: &Value) -> Reply {
    let prompt = prompt(body);
    let answer = reply::answer(&prompt);
    let tokens = Tokens {
        input: count(&prompt),
        output: count(&answer),
        ..Tokens::default()
    };
    Reply::json(chunk(model, &answer, true, tokens)).costing(tokens)
}

fn stream(model: &str, body: &Value) -> Reply {
    let prompt = prompt(body);
    let answer = reply::answer(&prompt);
    let pieces = pieces(&answer);
    let mut tokens = Tokens {
        input: count(&prompt),
        ..Tokens::default()
    };
    let mut events = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        // The counts are cumulative: the last chunk's are the truth.
        tokens.output += 1;
        events.push(data(&chunk(
            model,
            piece,
            index + 1 == pieces.len(),
            tokens,
        )));
    }
    Reply::events(events).costing(tokens)
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

fn models() -> Reply {
    Reply::json(json!({"models": [{
        "name": "models/gemini-3.6-flash", "version": "3.6", "displayName": "Gemini 3.6 Flash",
        "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }]}))
}
