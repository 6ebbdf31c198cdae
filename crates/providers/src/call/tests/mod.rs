//! What the request lines of every provider say.
#![allow(clippy::unwrap_used)]

mod aliases;
mod endpoints;

use super::*;
use crate::Permission as P;
use Endpoint::{Denied, Needs};

fn call(provider: &str, line: &str) -> Call {
    let (method, target) = line.split_once(' ').unwrap();
    let (method, websocket) = match method {
        "WS" => ("GET", true),
        method => (method, false),
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Api::known(provider)
        .unwrap()
        .call(method, path, query, websocket)
}

#[test]
fn the_model_is_found_where_each_api_has_it() {
    let path = |model: &str| ModelPlace::Path(model.to_owned());
    let query = |model: &str| ModelPlace::Query(model.to_owned());
    let (nowhere, body, frame) = (ModelPlace::Nowhere, ModelPlace::Body, ModelPlace::Frame);
    for (provider, line, wanted) in [
        ("openai", "POST /v1/chat/completions", body.clone()),
        ("openai", "POST /v1/audio/transcriptions", body.clone()),
        ("openai", "POST /v1/files", body.clone()),
        ("openai", "GET /v1/files/f", nowhere.clone()),
        ("openai", "GET /v1/models/m", nowhere.clone()),
        ("openai", "WS /v1/responses", frame.clone()),
        (
            "openai",
            "WS /v1/realtime?model=gpt-realtime",
            query("gpt-realtime"),
        ),
        (
            "openai",
            "WS /v1/realtime?%6Dodel=gpt%2Drealtime",
            query("gpt-realtime"),
        ),
        ("openai", "WS /v1/realtime?call_id=c", frame.clone()),
        ("openai", "WS /v1/realtime", frame.clone()),
        (
            "together",
            "WS /v1/realtime?model=openai%2Fwhisper",
            query("openai/whisper"),
        ),
        (
            "azure",
            "WS /openai/realtime?api-version=x&deployment=d",
            query("d"),
        ),
        ("azure", "WS /openai/v1/realtime?model=d", query("d")),
        (
            "azure",
            "POST /openai/deployments/gpt%2D4/chat/completions",
            path("gpt-4"),
        ),
        ("azure", "POST /openai/responses", body.clone()),
        ("gemini", "POST /v1/models/g:generateContent", path("g")),
        (
            "gemini",
            "POST /v1/tunedModels/t:generateContent",
            path("tunedModels/t"),
        ),
        ("gemini", "POST /v1beta/cachedContents", body.clone()),
        ("gemini", "POST /v1beta/interactions", body.clone()),
        (
            "gemini",
            "WS /ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
            frame,
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/publishers/google/models/g-1@2:generateContent",
            path("g-1@2"),
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/publishers/anthropic/models/c:streamRawPredict",
            path("c"),
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
            body.clone(),
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/endpoints/7:predict",
            path("endpoints/7"),
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/endpoints/7/chat/completions",
            path("endpoints/7"),
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/endpoints/openapi/chat/completions",
            body.clone(),
        ),
        (
            "bedrock",
            "POST /model/us.anthropic.claude-v1:0/converse",
            path("us.anthropic.claude-v1:0"),
        ),
        (
            "bedrock",
            "POST /model/us.anthropic.claude-v1%3A0/converse",
            path("us.anthropic.claude-v1:0"),
        ),
        (
            "bedrock",
            "POST /model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Ainference-profile%2Feu.c/invoke",
            path("arn:aws:bedrock:eu-west-1:1:inference-profile/eu.c"),
        ),
        ("bedrock", "POST /async-invoke", body),
        (
            "fireworks",
            "POST /inference/v1/workflows/accounts/fireworks/models/flux/text_to_image",
            path("flux"),
        ),
    ] {
        let call = call(provider, line);
        assert!(matches!(call.endpoint, Needs(_)), "{provider} {line}");
        assert_eq!(call.model, wanted, "{provider} {line}");
    }
}

#[test]
fn a_model_that_two_parsers_could_read_differently_is_refused() {
    for (provider, line) in [
        ("openai", "WS /v1/realtime?model=a&model=b"),
        ("openai", "WS /v1/realtime?model=a&model=a"),
        ("openai", "WS /v1/realtime?model=a&mod%65l=b"),
        ("openai", "WS /v1/realtime?model=a&Model=b"),
        ("openai", "WS /v1/realtime?model=a&model[]=b"),
        ("openai", "WS /v1/realtime?model=a;model=b"),
        ("openai", "WS /v1/realtime?Model=a"),
        ("openai", "WS /v1/realtime?model="),
        ("openai", "WS /v1/realtime?model"),
        ("openai", "WS /v1/realtime?model=a+b"),
        ("openai", "WS /v1/realtime?model=a%00"),
        ("openai", "WS /v1/realtime?model=%zz"),
        ("openai", "WS /v1/realtime?model=a%252Fb"),
        ("azure", "WS /openai/realtime?deployment=a&DEPLOYMENT=b"),
        ("azure", "POST /openai/deployments/a%2Fb/chat/completions"),
        ("azure", "POST /openai/deployments/%2E%2E/chat/completions"),
        ("azure", "POST /openai/deployments/a%3Bb/chat/completions"),
        ("bedrock", "POST /model/a%2Fb/converse"),
        ("bedrock", "POST /model/arn%3Aaws%2F..%2Fx/converse"),
        ("bedrock", "POST /model/arn%3Aaws%2F%2Fx/converse"),
        ("bedrock", "POST /model/a%253A0/converse"),
        ("bedrock", "POST /model/a%0A/converse"),
        ("bedrock", "POST /model/%FF/converse"),
        ("gemini", "POST /v1/models/a%2Fb:generateContent"),
        ("gemini", "POST /v1/models/..:generateContent"),
    ] {
        let call = call(provider, line);
        assert_eq!(call.endpoint, Denied, "{provider} {line}");
        assert_eq!(call.model, ModelPlace::Ambiguous, "{provider} {line}");
    }
    // Their nearest neighbours.
    for (provider, line) in [
        ("openai", "WS /v1/realtime?model=a&models=b"),
        ("openai", "WS /v1/realtime?model=a&intent=transcription"),
        ("bedrock", "POST /model/arn%3Aaws%2Fx/converse"),
    ] {
        assert!(matches!(call(provider, line).endpoint, Needs(_)), "{line}");
    }
}

#[test]
fn usage_is_read_as_the_endpoint_reports_it() {
    for (provider, line, wanted) in [
        ("openai", "POST /v1/chat/completions", Shape::Openai),
        ("openai", "GET /v1/models", Shape::Silent),
        ("anthropic", "POST /v1/messages", Shape::Anthropic),
        ("anthropic", "POST /v1/messages/count_tokens", Shape::Silent),
        ("deepseek", "POST /anthropic/v1/messages", Shape::Anthropic),
        ("openrouter", "POST /api/v1/messages", Shape::Anthropic),
        (
            "gemini",
            "POST /v1/models/g:streamGenerateContent",
            Shape::Gemini,
        ),
        (
            "gemini",
            "POST /v1beta/openai/chat/completions",
            Shape::Openai,
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/publishers/anthropic/models/c:rawPredict",
            Shape::Anthropic,
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict",
            Shape::Openai,
        ),
        (
            "bedrock",
            "POST /model/m/converse-stream",
            Shape::BedrockConverse,
        ),
        ("bedrock", "POST /model/m/invoke", Shape::BedrockInvoke),
        ("cohere", "POST /v2/chat", Shape::Cohere),
        (
            "cohere",
            "POST /compatibility/v1/chat/completions",
            Shape::Openai,
        ),
        ("openai", "GET /nothing", Shape::Silent),
    ] {
        assert_eq!(call(provider, line).usage, wanted, "{provider} {line}");
    }
}

#[test]
fn bodies_need_reading_only_where_something_can_be_in_them() {
    assert!(call("openai", "POST /v1/chat/completions").reads_body());
    assert!(call("gemini", "POST /v1/models/g:generateContent").reads_body());
    assert!(!call("openai", "GET /v1/models").reads_body());
    assert!(!call("gemini", "POST /upload/v1beta/files").reads_body());
    assert!(!call("openai", "POST /nothing").reads_body());
    assert!(call("openai", "WS /v1/responses").is_socket());
    assert!(!call("openai", "POST /v1/responses").is_socket());
    assert!(call("openai", "POST /v1/evals").is_unseen());
    assert!(!call("openai", "POST /v1/batches").is_unseen());
}
