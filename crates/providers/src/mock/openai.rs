//! OpenAI's answers, and the few words in which its copies differ.

use serde_json::{Value, json};

use super::said::{count, vector};
use super::{CREATED, MODEL, Reply, Request, anthropic, data, openai_media, responses};

/// Where the copies put OpenAI's endpoints; the longest come first.
const PREFIXES: [&str; 6] = [
    "/openai/v1/",
    "/inference/v1/",
    "/api/v1/",
    "/v1/",
    "/beta/",
    "/",
];

pub(super) fn reply(request: &Request<'_>) -> Option<Reply> {
    // DeepSeek.
    if let Some(rest) = request.path.strip_prefix("/anthropic/v1/") {
        return anthropic::reply(request, rest);
    }
    let rest = PREFIXES
        .iter()
        .find_map(|prefix| request.path.strip_prefix(prefix))?;
    // OpenRouter.
    if rest == "messages" {
        return anthropic::reply(request, rest);
    }
    endpoint(request, rest, None)
}

/// An endpoint by the end of its path. `model` is one that the path names.
pub(super) fn endpoint(request: &Request<'_>, rest: &str, model: Option<&str>) -> Option<Reply> {
    let (head, tail) = rest.split_once('/').unwrap_or((rest, ""));
    let model = model.unwrap_or(request.said.model());
    match (request.method, head, tail) {
        ("POST", "chat", "completions") => Some(chat(request, model)),
        ("POST", "completions", "") => Some(completion(request, model)),
        ("POST", "responses", "") => Some(responses::reply(request, model)),
        ("POST", "embeddings", "") => Some(embeddings(request, model)),
        ("POST", "moderations", "") => Some(moderation(request, model)),
        ("GET", "models", "") => Some(Reply::json(&model_list(request))),
        ("GET", "models", id) if !id.contains('/') => Some(Reply::json(&model_entry(request, id))),
        (method, "files", id) => openai_media::files(method, id),
        ("POST", "images", "generations" | "edits") => Some(openai_media::image(request)),
        ("POST", "audio", kind) => openai_media::audio(request, kind),
        _ => None,
    }
}

fn model_entry(request: &Request<'_>, id: &str) -> Value {
    let mut entry =
        json!({"id": id, "object": "model", "created": CREATED, "owned_by": "tacit-mock"});
    match request.provider {
        "mistral" => {
            entry["type"] = json!("base");
            entry["capabilities"] = json!({"completion_chat": true});
        }
        "together" => entry["type"] = json!("chat"),
        _ => {}
    }
    entry
}

fn model_list(request: &Request<'_>) -> Value {
    let entries = json!([model_entry(request, MODEL)]);
    match request.provider {
        // Together's list has nothing around it.
        "together" => entries,
        _ => json!({"object": "list", "data": entries}),
    }
}

/// The usage of a chat, in the words of the copy that speaks.
fn usage(request: &Request<'_>) -> Value {
    let (input, output) = (request.said.input_tokens(), request.said.output_tokens());
    let mut usage = json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": input + output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    });
    match request.provider {
        "deepseek" => {
            usage["prompt_cache_hit_tokens"] = json!(0);
            usage["prompt_cache_miss_tokens"] = json!(input);
        }
        "mistral" => usage["num_cached_tokens"] = json!(0),
        "openrouter" => {
            usage["cost"] = json!(0);
            usage["is_byok"] = json!(false);
        }
        "perplexity" => usage["cost"] = json!({"total_cost": 0}),
        "xai" => usage["cost_in_usd_ticks"] = json!(0),
        _ => {}
    }
    usage
}

fn chat(request: &Request<'_>, model: &str) -> Reply {
    if request.said.streams() {
        return chat_stream(request, model);
    }
    Reply::json(&json!({
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": request.said.text(), "refusal": null, "annotations": []},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": usage(request),
        "service_tier": "default",
        "system_fingerprint": "fp_mock",
    }))
}

fn chat_stream(request: &Request<'_>, model: &str) -> Reply {
    let asked = request.said.body["stream_options"]["include_usage"] == true;
    let chunk = |choices: Value| {
        let mut chunk = json!({
            "id": "chatcmpl-mock",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": model,
            "choices": choices,
            "system_fingerprint": "fp_mock",
        });
        if asked {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    let choice = |delta: Value, finish: Value| {
        chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]))
    };
    let mut pieces = vec![data(&choice(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    ))];
    for word in request.said.words() {
        pieces.push(data(&choice(json!({"content": word}), Value::Null)));
    }
    let mut last = choice(json!({}), json!("stop"));
    match request.provider {
        "groq" => last["x_groq"] = json!({"id": "req_mock", "usage": usage(request)}),
        // These report without being asked, with the last chunk.
        "mistral" | "perplexity" | "xai" | "openrouter" => last["usage"] = usage(request),
        _ => {}
    }
    pieces.push(data(&last));
    if asked {
        let mut extra = chunk(json!([]));
        extra["usage"] = usage(request);
        pieces.push(data(&extra));
    }
    pieces.push(b"data: [DONE]\n\n".to_vec());
    let failure = json!({"error": {"message": "mock: as you wished", "type": "server_error", "param": null, "code": "server_error"}});
    Reply::sse(pieces, data(&failure))
}

/// The old text completion.
fn completion(request: &Request<'_>, model: &str) -> Reply {
    let completion = |text: &str, finish: Value| {
        json!({
            "id": "cmpl-mock",
            "object": "text_completion",
            "created": CREATED,
            "model": model,
            "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": finish}],
        })
    };
    if !request.said.streams() {
        let mut whole = completion(&request.said.text(), json!("stop"));
        whole["usage"] = usage(request);
        return Reply::json(&whole);
    }
    let words = request.said.words();
    let mut pieces: Vec<_> = words
        .iter()
        .map(|word| data(&completion(word, Value::Null)))
        .collect();
    let mut last = completion("", json!("stop"));
    last["usage"] = usage(request);
    pieces.push(data(&last));
    pieces.push(b"data: [DONE]\n\n".to_vec());
    Reply::sse(
        pieces,
        data(&json!({"error": {"message": "mock: as you wished", "type": "server_error"}})),
    )
}

/// Dimensions of a made-up vector when the request names none.
const DIMENSIONS: usize = 8;
/// More than any model has.
const DIMENSIONS_MAX: usize = 8192;
/// As many as the real API takes in one request.
const EMBEDDINGS_MAX: usize = 2048;

fn embeddings(request: &Request<'_>, model: &str) -> Reply {
    use base64::Engine as _;
    let body = &request.said.body;
    let dimensions = body["dimensions"]
        .as_u64()
        .and_then(|dimensions| usize::try_from(dimensions).ok())
        .unwrap_or(DIMENSIONS)
        .min(DIMENSIONS_MAX);
    let vector = vector(dimensions);
    // The Python and Node SDKs ask for this one on their own.
    let embedding = if body["encoding_format"] == "base64" {
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        json!(base64::engine::general_purpose::STANDARD.encode(bytes))
    } else {
        json!(vector)
    };
    let data: Vec<Value> = (0..count(&body["input"]).min(EMBEDDINGS_MAX))
        .map(|index| json!({"object": "embedding", "index": index, "embedding": embedding}))
        .collect();
    let input = request.said.input_tokens();
    let mut list = json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": input, "total_tokens": input},
    });
    if request.provider == "mistral" {
        list["id"] = json!("embd-mock");
    }
    Reply::json(&list)
}

fn moderation(request: &Request<'_>, model: &str) -> Reply {
    const CATEGORIES: [&str; 13] = [
        "harassment",
        "harassment/threatening",
        "hate",
        "hate/threatening",
        "illicit",
        "illicit/violent",
        "self-harm",
        "self-harm/instructions",
        "self-harm/intent",
        "sexual",
        "sexual/minors",
        "violence",
        "violence/graphic",
    ];
    let each = |value: Value| -> Value {
        CATEGORIES
            .iter()
            .map(|category| ((*category).to_owned(), value.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let result = json!({
        "flagged": false,
        "categories": each(json!(false)),
        "category_scores": each(json!(0.0)),
        "category_applied_input_types": each(json!(["text"])),
    });
    let results = vec![result; count(&request.said.body["input"]).min(EMBEDDINGS_MAX)];
    Reply::json(&json!({"id": "modr-mock", "model": model, "results": results}))
}
