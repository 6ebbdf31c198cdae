//! What bodies of every kind say.
#![allow(clippy::unwrap_used)]

mod asked;
mod beside;
mod edits;
mod forms;
mod properties;
mod refused;
mod remote;

use super::*;

fn call(provider: &str, line: &str) -> (Api, Call) {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let api = Api::known(provider).unwrap();
    let call = api.call(method, path, query, false);
    assert!(matches!(call.endpoint, crate::Endpoint::Needs(_)), "{line}");
    (api, call)
}

fn read(provider: &str, line: &str, body: &str) -> Result<Inspected, BodyFault> {
    let (api, call) = call(provider, line);
    inspect(api, &call, "application/json", body.as_bytes())
}

fn chat(body: &str) -> Result<Inspected, BodyFault> {
    read("openai", "POST /v1/chat/completions", body)
}

#[test]
fn models_are_found_wherever_an_api_names_them() {
    for (provider, line, body, wanted) in [
        (
            "openai",
            "POST /v1/chat/completions",
            r#"{"model":"m","messages":[{"model":"x"}]}"#,
            &["m"][..],
        ),
        (
            "openai",
            "POST /v1/chat/completions",
            r#"{"messages":[],"mod\u0065l":"\u006d"}"#,
            &["m"],
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"prompt":{"id":"p"}}"#,
            &[],
        ),
        ("openai", "POST /v1/responses", r#"{"model":null}"#, &[]),
        ("openai", "POST /v1/responses/r/cancel", "", &[]),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"m","tools":[{"type":"image_generation","model":"i"}]}"#,
            &["m", "i"],
        ),
        (
            "openai",
            "POST /v1/realtime/client_secrets",
            r#"{"session":{"model":"r","audio":{"input":{"transcription":{"model":"t"}}}}}"#,
            &["r", "t"],
        ),
        (
            "openrouter",
            "POST /api/v1/chat/completions",
            r#"{"model":"a","models":["b","a","c"],"preset":"p"}"#,
            &["a", "b", "c", "@preset/p"],
        ),
        (
            "openrouter",
            "POST /api/v1/messages",
            r#"{"model":"a","models":["b"]}"#,
            &["a", "b"],
        ),
        (
            "perplexity",
            "POST /async/chat/completions",
            r#"{"request":{"model":"s"}}"#,
            &["s"],
        ),
        (
            "groq",
            "POST /openai/v1/chat/completions",
            r#"{"model":"c","compound_custom":{"models":{"answering_model":"a","reasoning_model":"r"}}}"#,
            &["c", "a", "r"],
        ),
        (
            "mistral",
            "POST /v1/agents/completions",
            r#"{"agent_id":"a","messages":[]}"#,
            &[],
        ),
        ("anthropic", "POST /v1/messages", r#"{"model":"c"}"#, &["c"]),
        (
            "anthropic",
            "POST /v1/messages/batches",
            r#"{"requests":[{"params":{"model":"a"}},{"params":{"model":"b"}},{"params":{"model":"a"}}]}"#,
            &["a", "b"],
        ),
        (
            "bedrock",
            "POST /async-invoke",
            r#"{"modelId":"arn:aws:x/y"}"#,
            &["arn:aws:x/y"],
        ),
        (
            "bedrock",
            "POST /model/m/invoke",
            r#"{"model":"x","messages":[]}"#,
            &[],
        ),
        (
            "azure",
            "POST /openai/deployments/d/chat/completions",
            r#"{"model":"x"}"#,
            &[],
        ),
        (
            "azure",
            "POST /openai/v1/chat/completions",
            r#"{"model":"x"}"#,
            &["x"],
        ),
        ("cohere", "POST /v2/chat", r#"{"model":"c"}"#, &["c"]),
        (
            "gemini",
            "POST /v1beta/cachedContents",
            r#"{"model":"models/g"}"#,
            &["g"],
        ),
        (
            "gemini",
            "POST /v1beta/cachedContents",
            r#"{"model":"tunedModels/t"}"#,
            &["tunedModels/t"],
        ),
        (
            "gemini",
            "POST /v1beta/interactions",
            r#"{"model":"g"}"#,
            &["g"],
        ),
        (
            "gemini",
            "POST /v1beta/interactions",
            r#"{"agent":"deep"}"#,
            &["deep"],
        ),
        (
            "gemini",
            "POST /v1beta/models/g:batchEmbedContents",
            r#"{"requests":[{"model":"models/g"},{}]}"#,
            &["g"],
        ),
        (
            "gemini",
            "POST /v1beta/models/g:generateContent",
            r#"{"contents":[]}"#,
            &[],
        ),
        (
            "gemini",
            "POST /v1beta/openai/chat/completions",
            r#"{"model":"models/g"}"#,
            &["g"],
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/batchPredictionJobs",
            r#"{"model":"publishers/google/models/g"}"#,
            &["g"],
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/cachedContents",
            r#"{"model":"projects/p/locations/l/publishers/google/models/g"}"#,
            &["g"],
        ),
        // What somebody put into a project under that name is another model.
        (
            "vertex",
            "POST /v1/projects/p/locations/l/batchPredictionJobs",
            r#"{"model":"projects/q/locations/l/models/g"}"#,
            &["projects/q/locations/l/models/g"],
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/batchPredictionJobs",
            r#"{"model":"projects/q/locations/l/x/publishers/google/models/g"}"#,
            &["projects/q/locations/l/x/publishers/google/models/g"],
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/batchPredictionJobs",
            r#"{"model":"publishers/google/models/g/models/h"}"#,
            &["publishers/google/models/g/models/h"],
        ),
        (
            "gemini",
            "POST /v1beta/cachedContents",
            r#"{"model":"tunedModels/t/models/g"}"#,
            &["tunedModels/t/models/g"],
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/cachedContents",
            r#"{"model":"projects/p/locations/l/endpoints/7"}"#,
            &["endpoints/7"],
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/publishers/mistralai/models/m@1:rawPredict",
            r#"{"model":"m"}"#,
            &["m"],
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
            r#"{"model":"c"}"#,
            &["c"],
        ),
    ] {
        let found = read(provider, line, body).unwrap();
        assert_eq!(found.models, wanted, "{provider} {line} {body}");
    }
}

#[test]
fn what_cannot_be_seen_is_said() {
    let unseen = |provider, line, body| read(provider, line, body).unwrap().unseen;
    assert!(unseen(
        "openai",
        "POST /v1/uploads",
        r#"{"purpose":"batch"}"#
    ));
    assert!(!unseen(
        "openai",
        "POST /v1/uploads",
        r#"{"purpose":"assistants"}"#
    ));
    assert!(unseen(
        "openai",
        "POST /v1/evals",
        r#"{"data_source_config":{}}"#
    ));
    assert!(!unseen("openai", "POST /v1/responses", r#"{"model":"m"}"#));
}

#[test]
fn a_model_that_is_not_named_is_told_from_none() {
    for (provider, line, body, wanted) in [
        (
            "openai",
            "POST /v1/responses",
            r#"{"prompt":{"id":"p"}}"#,
            true,
        ),
        ("openai", "POST /v1/responses", r#"{"model":"m"}"#, false),
        ("openai", "POST /v1/responses/r/cancel", "", false),
        (
            "openai",
            "POST /v1/images/generations",
            r#"{"prompt":"x"}"#,
            true,
        ),
        (
            "openai",
            "POST /v1/threads/t/runs",
            r#"{"assistant_id":"a"}"#,
            true,
        ),
        (
            "openai",
            "POST /v1/threads/t/messages",
            r#"{"content":"x"}"#,
            false,
        ),
        (
            "openai",
            "POST /v1/batches",
            r#"{"input_file_id":"f"}"#,
            false,
        ),
        (
            "openai",
            "POST /v1/uploads",
            r#"{"purpose":"assistants"}"#,
            false,
        ),
        (
            "mistral",
            "POST /v1/agents/completions",
            r#"{"agent_id":"a"}"#,
            true,
        ),
        (
            "gemini",
            "POST /v1beta/models/g:generateContent",
            "{}",
            false,
        ),
        (
            "azure",
            "POST /openai/deployments/d/chat/completions",
            "{}",
            false,
        ),
    ] {
        let found = read(provider, line, body).unwrap();
        assert_eq!(found.unnamed, wanted, "{provider} {line}");
    }
    let batch = read(
        "together",
        "POST /v1/batches",
        r#"{"input_file_id":"f","model_id":"m"}"#,
    );
    assert_eq!(batch.unwrap().models, ["m"]);
}
