//! Paths and queries that are sent as others.

use super::*;

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
