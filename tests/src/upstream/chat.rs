//! Chat completions, whole and streamed, of all who speak like OpenAI.

use serde_json::{Value, json};

use super::Provider;
use super::flavour;
use super::openai::CREATED;
use super::reply::{EVENTS, Reply, data, last_message};
use super::turn::Turn;

pub(super) fn answer(provider: Provider, body: &Value) -> Reply {
    let Some(prompt) = last_message(body) else {
        return flavour::error(400, "messages is missing", "invalid_request_error", None);
    };
    let turn = Turn::new(&prompt, flavour::extra(provider));
    if body["stream"] == true {
        return stream(provider, body, &turn);
    }
    Reply::json(json!({
        "id": "chatcmpl-test", "object": "chat.completion", "created": CREATED, "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": null,
            "message": {"role": "assistant", "content": turn.answer, "refusal": null, "annotations": []}}],
        "usage": flavour::usage(provider, turn.tokens), "service_tier": "default", "system_fingerprint": "fp_test",
    }))
    .costing(turn.tokens)
}

fn stream(provider: Provider, body: &Value, turn: &Turn) -> Reply {
    let when_asked = flavour::usage_when_asked(provider);
    let asked = when_asked && body["stream_options"]["include_usage"] == true;
    let usage = flavour::usage(provider, turn.tokens);
    let chunk = |choices: Value| {
        let mut chunk = json!({
            "id": "chatcmpl-test", "object": "chat.completion.chunk", "created": CREATED,
            "model": body["model"], "system_fingerprint": "fp_test", "choices": choices,
        });
        if asked {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    let delta = |delta: Value, finish: Value| {
        chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]))
    };
    let mut opening = vec![data(&delta(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    ))];
    if provider == Provider::OpenRouter {
        opening.insert(0, b": OPENROUTER PROCESSING\n\n".to_vec());
    }
    let pieces = turn.pieces();
    let deltas = pieces
        .iter()
        .map(|piece| data(&delta(json!({"content": piece}), Value::Null)));
    let mut last = delta(json!({}), json!("stop"));
    match provider {
        // Said in the last chunk even when nobody asked.
        Provider::Groq => last["x_groq"] = json!({"id": "req_test_groq", "usage": usage}),
        _ if !when_asked => last["usage"] = usage.clone(),
        _ => {}
    }
    let mut closing = vec![data(&last)];
    if asked {
        let mut alone = chunk(json!([]));
        alone["usage"] = usage;
        closing.push(data(&alone));
    }
    closing.push(b"data: [DONE]\n\n".to_vec());
    let failure = json!({"error": {"message": "The server had an error processing your request.",
        "type": "server_error", "param": null, "code": null}});
    turn.stream(EVENTS, opening, deltas.collect(), closing, data(&failure))
}
