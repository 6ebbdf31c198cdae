//! OpenAI's API and the many like it: which call is meant, and the small answers.

use base64::Engine as _;
use serde_json::{Value, json};

use super::record::Tokens;
use super::reply::{Reply, count, text};
use super::turn::MISSING_MODEL;
use super::wire::Request;
use super::{Provider, chat, flavour, form, responses};

/// Second of creation of everything here.
pub(super) const CREATED: u64 = 1_790_000_000;

pub(super) fn answer(provider: Provider, request: &Request) -> Reply {
    let reply = match place(provider, request) {
        Some((path, deployment)) => call(provider, request, path, deployment),
        None => unknown(request),
    };
    reply
        .header("x-request-id", "req_test_openai")
        .header("openai-organization", "org-test")
        .header("x-ratelimit-remaining-requests", "9999")
}

/// The path below the API's base and, on Azure's classic routes, the deployment that it names.
fn place(provider: Provider, request: &Request) -> Option<(&str, Option<&str>)> {
    if provider == Provider::Azure
        && let Some(rest) = request.path.strip_prefix("/openai/deployments/")
    {
        // The classic routes want an API version; the new ones refuse none.
        request.parameter("api-version")?;
        let (deployment, _) = rest.split_once('/')?;
        return Some((&rest[deployment.len()..], Some(deployment)));
    }
    if provider == Provider::Vertex {
        let (_, rest) = request.path.split_once("/endpoints/openapi")?;
        return Some((rest, None));
    }
    let fits = |base: &&str| {
        let rest = request.path.strip_prefix(*base)?;
        rest.starts_with('/').then_some((rest, None))
    };
    flavour::bases(provider).iter().find_map(fits)
}

fn call(provider: Provider, request: &Request, path: &str, deployment: Option<&str>) -> Reply {
    let mut body = request.json();
    if let Some(deployment) = deployment {
        body["model"] = json!(deployment);
    }
    if body["model"] == MISSING_MODEL {
        return flavour::model_missing(provider, MISSING_MODEL);
    }
    if deployment.is_some() {
        // A deployment's name is the operator's; the answer says which model it is.
        body["model"] = json!("gpt-5.4-mini-2026-03-17");
    }
    match (request.method.as_str(), path) {
        ("POST", "/chat/completions") => chat::answer(provider, &body),
        ("POST", "/responses") => responses::answer(&body),
        ("POST", "/embeddings") => embeddings(provider, &body),
        ("POST", "/files") => form::upload(request),
        ("POST", "/audio/transcriptions") => form::transcription(provider, request),
        ("GET", "/models") => models(),
        // The zero-token calls with which keys are tried.
        ("GET", "/api-key") if provider == Provider::Xai => Reply::json(
            json!({"acls": ["api-key:model:*"], "api_key_blocked": false, "team_blocked": false}),
        ),
        ("GET", "/key") if provider == Provider::OpenRouter => {
            Reply::json(json!({"data": {"label": "test", "usage": 0, "limit": null}}))
        }
        _ => unknown(request),
    }
}

fn unknown(request: &Request) -> Reply {
    let message = format!("Invalid URL ({} {})", request.method, request.path);
    flavour::error(404, &message, "invalid_request_error", None)
}

fn embeddings(provider: Provider, body: &Value) -> Reply {
    let inputs: Vec<String> = match &body["input"] {
        Value::Array(all) => all.iter().map(text).collect(),
        one => vec![text(one)],
    };
    let vector: [f32; 3] = [0.5, -0.25, 1.0];
    // OpenAI's SDKs ask for base64 unless told otherwise: little-endian floats.
    let packed: Vec<u8> = vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let embedding = match body["encoding_format"].as_str() {
        Some("base64") => json!(base64::engine::general_purpose::STANDARD.encode(packed)),
        // Perplexity's are bytes, whatever is asked.
        Some("base64_int8") | None if provider == Provider::Perplexity => json!("QABA"),
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
        "id": "embd-test", "object": "list", "data": list, "model": body["model"],
        "usage": {"prompt_tokens": tokens.input, "total_tokens": tokens.input},
    }))
    .costing(tokens)
}

fn models() -> Reply {
    let model =
        |id: &str| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "openai"});
    Reply::json(
        json!({"object": "list", "data": [model("gpt-5.4-mini"), model("text-embedding-3-small")]}),
    )
}
