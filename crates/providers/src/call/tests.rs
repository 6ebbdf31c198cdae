//! What the request lines of every provider say.
#![allow(clippy::unwrap_used)]

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
fn every_providers_endpoints_need_what_the_table_says() {
    for (provider, line, wanted) in [
        (
            "openai",
            "POST /v1/responses/input_tokens",
            Needs(P::Responses),
        ),
        ("openai", "POST /v1/uploads/u/parts", Needs(P::Files)),
        (
            "openai",
            "GET /v1/chat/completions/c/messages",
            Needs(P::Chat),
        ),
        ("openai", "WS /v1/responses", Needs(P::Responses)),
        ("openai", "WS /v1/realtime?model=m", Needs(P::Realtime)),
        ("openai", "WS /v1/chat/completions", Denied),
        ("openai", "POST /v1/responses/a%2Fb", Denied),
        ("openai", "POST /chat/completions", Denied),
        ("openai", "POST /v1/oauth/token", Denied),
        ("anthropic", "POST /v1/complete", Needs(P::Chat)),
        ("anthropic", "GET /v1/messages", Denied),
        ("anthropic", "POST /v1/organizations/x", Denied),
        ("anthropic", "POST /v1/chat/completions", Denied),
        ("mistral", "POST /v1/fim/completions", Needs(P::Chat)),
        ("mistral", "POST /v1/agents/completions", Needs(P::Chat)),
        (
            "mistral",
            "POST /v1/conversations/c/restart",
            Needs(P::Chat),
        ),
        ("mistral", "POST /v1/batch/jobs", Needs(P::Batches)),
        ("mistral", "POST /v1/classifications", Needs(P::Moderation)),
        (
            "mistral",
            "WS /v1/audio/transcriptions/realtime?model=m",
            Needs(P::Realtime),
        ),
        ("mistral", "POST /v1/responses", Denied),
        ("mistral", "POST /v1/connectors", Denied),
        ("cohere", "POST /v2/chat", Needs(P::Chat)),
        ("cohere", "POST /v1/rerank", Needs(P::Embeddings)),
        (
            "cohere",
            "POST /compatibility/v1/chat/completions",
            Needs(P::Chat),
        ),
        ("cohere", "POST /v1/connectors", Denied),
        ("cohere", "POST /v2/generate", Denied),
        ("groq", "POST /openai/v1/chat/completions", Needs(P::Chat)),
        ("groq", "POST /openai/v1/audio/speech", Needs(P::Audio)),
        ("groq", "POST /v1/chat/completions", Denied),
        ("deepseek", "POST /chat/completions", Needs(P::Chat)),
        ("deepseek", "POST /v1/chat/completions", Needs(P::Chat)),
        ("deepseek", "POST /beta/completions", Needs(P::Chat)),
        ("deepseek", "POST /anthropic/v1/messages", Needs(P::Chat)),
        ("deepseek", "GET /user/balance", Denied),
        ("xai", "POST /v1/messages", Needs(P::Chat)),
        ("xai", "GET /v1/language-models/m", Needs(P::Models)),
        (
            "xai",
            "POST /v1/realtime/client_secrets",
            Needs(P::EphemeralKeys),
        ),
        ("xai", "GET /v1/api-key", Denied),
        ("together", "POST /v1/rerank", Needs(P::Embeddings)),
        ("together", "POST /v1/fine-tunes", Needs(P::FineTuning)),
        ("together", "GET /v1/whoami", Denied),
        ("together", "POST /v1/endpoints", Denied),
        ("together", "POST /v1/projects/p/endpoints", Denied),
        (
            "fireworks",
            "POST /inference/v1/chat/completions",
            Needs(P::Chat),
        ),
        ("fireworks", "POST /v1/chat/completions", Needs(P::Chat)),
        ("fireworks", "GET /v1/accounts", Denied),
        ("fireworks", "POST /v1/accounts/a/users/u/apiKeys", Denied),
        ("fireworks", "POST /inference/v1/accounts/a/users", Denied),
        (
            "openrouter",
            "POST /api/v1/chat/completions",
            Needs(P::Chat),
        ),
        ("openrouter", "POST /api/v1/messages", Needs(P::Chat)),
        (
            "openrouter",
            "GET /api/v1/models/a/b/endpoints",
            Needs(P::Models),
        ),
        ("openrouter", "POST /api/v1/keys", Denied),
        ("openrouter", "GET /api/v1/key", Denied),
        ("openrouter", "POST /api/v1/auth/keys", Denied),
        ("openrouter", "GET /api/v1/credits", Denied),
        ("perplexity", "POST /chat/completions", Needs(P::Chat)),
        ("perplexity", "POST /v1/responses", Needs(P::Responses)),
        ("perplexity", "POST /search", Needs(P::Chat)),
        (
            "perplexity",
            "POST /async/chat/completions",
            Needs(P::Batches),
        ),
        ("perplexity", "POST /generate_auth_token", Denied),
        ("perplexity", "POST /revoke_auth_token", Denied),
        (
            "azure",
            "POST /openai/deployments/d/chat/completions",
            Needs(P::Chat),
        ),
        ("azure", "POST /openai/v1/responses", Needs(P::Responses)),
        (
            "azure",
            "POST /api/projects/p/openai/v1/chat/completions",
            Needs(P::Chat),
        ),
        ("azure", "POST /models/chat/completions", Needs(P::Chat)),
        ("azure", "POST /anthropic/v1/messages", Needs(P::Chat)),
        (
            "azure",
            "WS /openai/realtime?deployment=d",
            Needs(P::Realtime),
        ),
        (
            "azure",
            "POST /openai/v1/realtime/client_secrets",
            Needs(P::EphemeralKeys),
        ),
        ("azure", "GET /openai/deployments", Denied),
        ("azure", "PUT /openai/deployments/d", Denied),
        ("azure", "POST /openai/deployments/d/other", Denied),
        ("azure", "POST /anthropic/v1/organizations", Denied),
        ("bedrock", "POST /model/m/converse", Needs(P::Chat)),
        (
            "bedrock",
            "POST /model/m/invoke-with-response-stream",
            Needs(P::Chat),
        ),
        (
            "bedrock",
            "POST /model/m/invoke-with-bidirectional-stream",
            Denied,
        ),
        ("bedrock", "POST /async-invoke", Needs(P::Images)),
        (
            "bedrock",
            "POST /guardrail/g/version/1/apply",
            Needs(P::Moderation),
        ),
        (
            "bedrock",
            "POST /openai/v1/chat/completions",
            Needs(P::Chat),
        ),
        ("bedrock", "POST /anthropic/v1/messages", Needs(P::Chat)),
        ("bedrock", "POST /model-customization-jobs", Denied),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/publishers/google/models/g:generateContent",
            Needs(P::Chat),
        ),
        (
            "vertex",
            "POST /v1beta1/publishers/google/models/g:streamGenerateContent",
            Needs(P::Chat),
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/publishers/anthropic/models/c:rawPredict",
            Needs(P::Chat),
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/endpoints/openapi/chat/completions",
            Needs(P::Chat),
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/endpoints/7:deployModel",
            Denied,
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/endpoints",
            Denied,
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/customJobs",
            Denied,
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/batchPredictionJobs",
            Needs(P::Batches),
        ),
        (
            "vertex",
            "WS /ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent",
            Needs(P::Realtime),
        ),
        ("gemini", "POST /v1beta/interactions", Needs(P::Chat)),
        (
            "gemini",
            "POST /v1beta/models/g:generateContent%3Fx",
            Denied,
        ),
        (
            "gemini",
            "POST /v1beta/models/g%3Apredict:generateContent",
            Denied,
        ),
        ("gemini", "GET /v1beta/models/g%3AgenerateContent", Denied),
        (
            "gemini",
            "WS /ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
            Needs(P::Realtime),
        ),
        (
            "gemini",
            "WS /ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained",
            Denied,
        ),
        ("gemini", "WS /ws/other", Denied),
    ] {
        assert_eq!(call(provider, line).endpoint, wanted, "{provider} {line}");
    }
}

#[test]
fn no_provider_lets_account_paths_through() {
    let paths = [
        "/v1/organization/admin_api_keys",
        "/v1/organizations/x",
        "/v1/projects/p/api_keys",
        "/v1/oauth/token",
        "/v1/api_keys",
        "/v1/keys",
        "/api/v1/keys",
        "/api/v1/auth/keys",
        "/auth/api-keys",
        "/generate_auth_token",
        "/revoke_auth_token",
        "/v1/accounts/a/apiKeys",
        "/inference/v1/accounts/a",
        "/openai/v1/organization/x",
        "/v2/projects/p/locations/global/keys",
        "/v1/projects/p/serviceAccounts/s/keys",
        "/v1/me",
        "/dashboard/billing",
        "/",
        "",
        "v1/chat/completions",
    ];
    for provider in crate::all() {
        for path in paths {
            for method in [
                "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
            ] {
                for websocket in [false, true] {
                    let call = provider.api().call(method, path, "", websocket);
                    assert_eq!(call.endpoint, Denied, "{} {method} {path}", provider.name);
                }
            }
        }
    }
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
fn fireworks_paths_lead_to_inference() {
    for path in ["/v1/chat/completions", "/inference/v1/chat/completions"] {
        let call = call("fireworks", &format!("POST {path}"));
        assert_eq!(call.path, "/inference/v1/chat/completions");
    }
    let image = call(
        "fireworks",
        "POST /v1/workflows/accounts/fireworks/models/flux/text_to_image",
    );
    let wanted = "/inference/v1/workflows/accounts/fireworks/models/other/text_to_image";
    assert_eq!(image.with_model("other").as_deref(), Some(wanted));
    assert_eq!(call("openai", "POST /v1/responses").path, "/v1/responses");
}

#[test]
fn an_alias_takes_the_models_place_in_the_path() {
    let arn = "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.c";
    let encoded = "arn:aws:bedrock:eu-west-1:1:inference-profile%2Feu.c";
    for (provider, line, alias, wanted) in [
        (
            "gemini",
            "POST /v1/models/g:generateContent",
            "h",
            Some("/v1/models/h:generateContent"),
        ),
        (
            "gemini",
            "POST /v1/models/g:generateContent",
            "tunedModels/t",
            Some("/v1/tunedModels/t:generateContent"),
        ),
        (
            "gemini",
            "POST /v1/tunedModels/t:generateContent",
            "h",
            Some("/v1/models/h:generateContent"),
        ),
        ("gemini", "POST /v1/models/g:generateContent", "h:x", None),
        ("gemini", "POST /v1/models/g:generateContent", "a/b", None),
        ("gemini", "POST /v1/models/g:generateContent", "..", None),
        ("gemini", "POST /v1beta/interactions", "h", None),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/publishers/google/models/g:generateContent",
            "h@1",
            Some("/v1/projects/p/locations/l/publishers/google/models/h@1:generateContent"),
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/endpoints/7:predict",
            "endpoints/8",
            Some("/v1/projects/p/locations/l/endpoints/8:predict"),
        ),
        (
            "vertex",
            "POST /v1/projects/p/locations/l/endpoints/7:predict",
            "g",
            None,
        ),
        (
            "azure",
            "POST /openai/deployments/a/embeddings",
            "b",
            Some("/openai/deployments/b/embeddings"),
        ),
        (
            "azure",
            "POST /openai/deployments/a/embeddings",
            "b/c",
            None,
        ),
        (
            "bedrock",
            "POST /model/a%3A0/converse",
            "b:0",
            Some("/model/b:0/converse"),
        ),
        (
            "bedrock",
            "POST /model/a%3A0/converse",
            arn,
            Some(&*format!("/model/{encoded}/converse")),
        ),
        ("bedrock", "POST /model/a%3A0/converse", "", None),
        ("openai", "POST /v1/chat/completions", "m", None),
        ("openai", "GET /nothing", "m", None),
    ] {
        let path = call(provider, line).with_model(alias);
        assert_eq!(path.as_deref(), wanted, "{provider} {line} {alias}");
        if let Some(path) = path {
            let (method, _) = line.split_once(' ').unwrap();
            let again = Api::known(provider).unwrap().call(method, &path, "", false);
            assert_eq!(again.model, ModelPlace::Path(alias.to_owned()));
        }
    }
}

#[test]
fn an_alias_takes_the_models_place_in_the_query() {
    let query = "intent=x&%6Dodel=a&voice=b";
    let realtime = call("openai", &format!("WS /v1/realtime?{query}"));
    let wanted = Some("intent=x&model=vendor%2Fm&voice=b".to_owned());
    assert_eq!(realtime.query_with_model(query, "vendor/m"), wanted);
    assert_eq!(realtime.query_with_model(query, "a b"), None);
    assert_eq!(realtime.with_model("m"), None);
    let without = call("openai", "WS /v1/realtime");
    assert_eq!(without.query_with_model("", "m"), None);
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
