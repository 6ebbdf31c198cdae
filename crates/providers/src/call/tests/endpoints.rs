//! What each endpoint of each provider needs.

use super::*;

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
