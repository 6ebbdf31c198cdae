//! An allow-list of methods and paths: with a provider's key, whatever is not listed is somebody else's account.

use tests::raw::scene::Scene;

use crate::requests::{BODY, MODELS, get, length, post_to};

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_manage_the_account_or_mint_credentials_are_refused() {
    let scene = Scene::start().await;
    for path in [
        "/openai/v1/organization/admin_api_keys",
        "/openai/v1/organization/users",
        "/openai/v1/%6frganization/admin_api_keys",
        "/openai/v1/organization%20/users",
        "/openai/v1/projects",
        "/openai/v1/realtime/client_secrets",
        "/openai/v1/realtime/sessions",
        "/openai/v1/realtime/transcription_sessions",
        "/openai/v1/dashboard/billing/usage",
        "/openai/v1/nothing",
        "/openai/v1/",
        "/openai/v2/models",
        "/openai/V1/models",
        "/openai/v1/Organization/users",
        "/openai/models",
        "/anthropic/v1/organizations/me",
        "/anthropic/v1/organizations/api_keys",
        "/anthropic/v1/oauth/token",
        "/anthropic/api/organizations",
        "/gemini/v1alpha/auth_tokens",
        "/gemini/v1beta/auth_tokens",
        "/gemini/v1beta/projects/x/apiKeys",
    ] {
        scene
            .refuses(path, get(path, ""), 403, "permission_denied")
            .await;
        let posted = post_to(path, &length(), BODY);
        scene.refuses(path, posted, 403, "permission_denied").await;
    }
    for path in [
        MODELS,
        "/openai/v1/models/gpt-5.4",
        "/anthropic/v1/models",
        "/gemini/v1beta/models",
    ] {
        scene.passes(path, get(path, "")).await;
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_an_endpoint_does_not_have_is_refused() {
    let scene = Scene::start().await;
    for (method, path) in [
        ("PUT", MODELS),
        ("PATCH", MODELS),
        ("POST", MODELS),
        ("DELETE", "/anthropic/v1/models/claude-x"),
        ("PATCH", "/gemini/v1beta/models/gemini-x"),
    ] {
        let request = get(path, "Content-Length: 0\r\n").replacen("GET", method, 1);
        let what = format!("{method} {path}");
        scene
            .refuses(&what, request, 403, "permission_denied")
            .await;
    }
    for method in ["GET", "HEAD"] {
        let answer = scene.ask(get(MODELS, "").replacen("GET", method, 1)).await;
        assert_eq!(answer.status, 200, "{method}");
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_is_no_route_reaches_no_key() {
    let scene = Scene::start().await;
    for path in [
        "/",
        "/v1/models",
        "/openai",
        "/openaI/v1/models",
        "/groq/v1/models",
        "/open%61i%2fv1/models",
    ] {
        scene.refuses(path, get(path, ""), 400, "bad_request").await;
    }
    scene.passes(MODELS, get(MODELS, "")).await;
    scene.holds();
}
