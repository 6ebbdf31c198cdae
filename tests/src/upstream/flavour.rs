//! In what the providers with an OpenAI-like API differ: paths, usage, errors. Data first.

use serde_json::{Value, json};

use super::record::Tokens;
use super::reply::Reply;
use super::wire::Request;
use super::{Provider, credential};

/// Where the API begins; the longest that fits counts. OpenAI's own stands for providers that have no such API.
pub(super) fn bases(provider: Provider) -> &'static [&'static str] {
    match provider {
        Provider::Gemini => &["/v1beta/openai"],
        Provider::Azure => &["/openai/v1"],
        Provider::Groq => &["/openai/v1"],
        Provider::DeepSeek => &["/v1", "/beta", ""],
        Provider::Perplexity => &["/v1", ""],
        Provider::Fireworks => &["/inference/v1"],
        Provider::OpenRouter => &["/api/v1"],
        Provider::OpenAi
        | Provider::Anthropic
        | Provider::Vertex
        | Provider::Bedrock
        | Provider::Mistral
        | Provider::Cohere
        | Provider::Xai
        | Provider::Together => &["/v1"],
    }
}

/// What a chat costs beyond its words. Zeros are real for some: "not said" and "none" are different things.
pub(super) fn extra(provider: Provider) -> Tokens {
    let (cache_read, cache_write, reasoning) = match provider {
        Provider::Mistral | Provider::Fireworks | Provider::Azure => (2, 0, 0),
        Provider::Groq | Provider::Together => (1, 0, 0),
        Provider::DeepSeek => (5, 0, 2),
        Provider::Xai => (3, 0, 2),
        Provider::OpenRouter => (2, 1, 1),
        Provider::OpenAi
        | Provider::Anthropic
        | Provider::Gemini
        | Provider::Vertex
        | Provider::Bedrock
        | Provider::Cohere
        | Provider::Perplexity => (0, 0, 0),
    };
    Tokens {
        cache_read,
        cache_write,
        reasoning,
        ..Tokens::default()
    }
}

/// Whether a stream says its usage only when asked (`stream_options.include_usage`), in a chunk of its own;
/// the others put it unasked into the last chunk that has a choice.
pub(super) fn usage_when_asked(provider: Provider) -> bool {
    !matches!(
        provider,
        Provider::Mistral
            | Provider::Xai
            | Provider::Fireworks
            | Provider::OpenRouter
            | Provider::Perplexity
    )
}

/// `usage`, as this provider says it. Cached tokens are a part of the prompt's here.
pub(super) fn usage(provider: Provider, tokens: Tokens) -> Value {
    let prompt = tokens.input + tokens.cache_read + tokens.cache_write;
    let mut usage = json!({
        "prompt_tokens": prompt, "completion_tokens": tokens.output, "total_tokens": prompt + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    });
    match provider {
        Provider::Mistral => usage["num_cached_tokens"] = json!(tokens.cache_read),
        Provider::DeepSeek => {
            usage["prompt_cache_hit_tokens"] = json!(tokens.cache_read);
            usage["prompt_cache_miss_tokens"] = json!(tokens.input);
        }
        Provider::Xai => usage["cost_in_usd_ticks"] = json!(37_500),
        Provider::OpenRouter => {
            usage["prompt_tokens_details"]["cache_write_tokens"] = json!(tokens.cache_write);
            usage["cost"] = json!(0.000_125);
            usage["cost_details"] = json!({"upstream_inference_cost": null});
            usage["is_byok"] = json!(false);
        }
        Provider::Perplexity => {
            usage["search_context_size"] = json!("low");
            usage["cost"] = json!({"input_tokens_cost": 0.000_01, "output_tokens_cost": 0.000_01,
                "request_cost": 0.005, "total_cost": 0.005_02});
        }
        Provider::OpenAi
        | Provider::Anthropic
        | Provider::Gemini
        | Provider::Vertex
        | Provider::Azure
        | Provider::Bedrock
        | Provider::Cohere
        | Provider::Groq
        | Provider::Together
        | Provider::Fireworks => {}
    }
    usage
}

/// OpenAI's error envelope, which most others took over.
pub(super) fn error(status: u16, message: &str, kind: &str, code: Option<&str>) -> Reply {
    Reply::json(json!({"error": {"message": message, "type": kind, "param": null, "code": code}}))
        .status(status)
}

/// The answer to a bad key. Several repeat part of it; an agent must never relay that.
pub(super) fn key_rejected(provider: Provider, request: &Request) -> Reply {
    const INVALID: &str = "invalid_request_error";
    match provider {
        Provider::Azure => Reply::json(json!({"error": {"code": "401", "message":
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription."}}))
        .status(401),
        Provider::Mistral => Reply::json(json!({"detail": "Unauthorized"})).status(401),
        Provider::Groq => error(401, "Invalid API Key", INVALID, Some("invalid_api_key")),
        Provider::DeepSeek => {
            let mask = credential::masked(request, 0, 4);
            let message = format!("Authentication Fails, Your api key: {mask} is invalid");
            error(401, &message, "authentication_error", Some("invalid_request_error"))
        }
        Provider::Xai => {
            let mask = credential::masked(request, 2, 2);
            let message = format!("Incorrect API key provided: {mask}. You can obtain an API key from https://console.x.ai.");
            Reply::json(json!({"code": "Client specified an invalid argument", "error": message})).status(400)
        }
        Provider::OpenRouter => {
            Reply::json(json!({"error": {"message": "User not found.", "code": 401}})).status(401)
        }
        Provider::Fireworks => Reply::json(
            json!({"error": {"message": "The API key you provided is invalid.", "code": "UNAUTHORIZED"}}),
        )
        .status(401),
        Provider::OpenAi
        | Provider::Anthropic
        | Provider::Gemini
        | Provider::Vertex
        | Provider::Bedrock
        | Provider::Cohere
        | Provider::Together
        | Provider::Perplexity => {
            let mask = credential::masked(request, 8, 4);
            let message = format!(
                "Incorrect API key provided: {mask}. You can find your API key at https://platform.openai.com/account/api-keys."
            );
            error(401, &message, INVALID, Some("invalid_api_key"))
        }
    }
}

/// The answer to a model that does not exist: 404 with most, 400 with some.
pub(super) fn model_missing(provider: Provider, model: &str) -> Reply {
    const INVALID: &str = "invalid_request_error";
    let message = format!("The model `{model}` does not exist or you do not have access to it.");
    match provider {
        Provider::Azure => error(
            404,
            "The API deployment for this resource does not exist.",
            INVALID,
            Some("DeploymentNotFound"),
        ),
        Provider::Mistral => Reply::json(json!({
            "object": "error", "message": format!("Invalid model: {model}"), "type": "invalid_model", "code": "1500"}))
        .status(400),
        Provider::DeepSeek => error(400, "Model Not Exist", INVALID, Some(INVALID)),
        Provider::Xai => {
            Reply::json(json!({"code": "Some requested entity was not found", "error": message})).status(404)
        }
        Provider::OpenRouter => Reply::json(
            json!({"error": {"message": format!("{model} is not a valid model ID"), "code": 400}}),
        )
        .status(400),
        Provider::Perplexity => error(400, &format!("Invalid model '{model}'."), "invalid_model", None),
        Provider::OpenAi
        | Provider::Anthropic
        | Provider::Gemini
        | Provider::Vertex
        | Provider::Bedrock
        | Provider::Cohere
        | Provider::Groq
        | Provider::Together
        | Provider::Fireworks => error(404, &message, INVALID, Some("model_not_found")),
    }
}

/// The answer when the provider itself is in trouble.
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
