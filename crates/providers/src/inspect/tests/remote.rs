//! Remote servers, and WebSocket frames.

use super::*;

#[test]
fn remote_servers_need_a_permission_of_their_own() {
    for (provider, line, body, wanted) in [
        (
            "openai",
            "POST /v1/responses",
            r#"{"tools":[{"type":"mcp","server_url":"https://x"}]}"#,
            true,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"tools":[{"type":"function","name":"mcp"}]}"#,
            false,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"tools":{"type":"mcp"}}"#,
            true,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"tools":[{"type":"MCP"}]}"#,
            true,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"input":"{\"type\":\"mcp\"}"}"#,
            false,
        ),
        (
            "openai",
            "POST /v1/realtime/client_secrets",
            r#"{"session":{"tools":[{"type":"mcp"}]}}"#,
            true,
        ),
        // A stored prompt has tools that no one can see here; a prompt that is a text has none.
        (
            "openai",
            "POST /v1/responses",
            r#"{"prompt":{"id":"pmpt_1","version":"2"}}"#,
            true,
        ),
        (
            "openai",
            "POST /v1/completions",
            r#"{"prompt":["a","{}"]}"#,
            false,
        ),
        (
            "openai",
            "POST /v1/realtime/client_secrets",
            r#"{"session":{"prompt":{"id":"pmpt_1"}}}"#,
            true,
        ),
        (
            "cohere",
            "POST /v1/chat",
            r#"{"connectors":[{"id":"web-search"}]}"#,
            true,
        ),
        ("cohere", "POST /v1/chat", r#"{"connectors":[]}"#, false),
        (
            "anthropic",
            "POST /v1/messages",
            r#"{"mcp_servers":[{"url":"https://x"}]}"#,
            true,
        ),
        (
            "anthropic",
            "POST /v1/messages",
            r#"{"mcp_servers":[]}"#,
            false,
        ),
        (
            "anthropic",
            "POST /v1/messages",
            r#"{"mcp_servers":null}"#,
            false,
        ),
        (
            "anthropic",
            "POST /v1/messages",
            r#"{"tools":[{"type":"mcp_toolset"}]}"#,
            true,
        ),
        (
            "anthropic",
            "POST /v1/messages/batches",
            r#"{"requests":[{"params":{"mcp_servers":[{}]}}]}"#,
            true,
        ),
        (
            "gemini",
            "POST /v1beta/interactions",
            r#"{"tools":[{"type":"mcp_server","url":"https://x"}]}"#,
            true,
        ),
        (
            "gemini",
            "POST /v1beta/models/g:generateContent",
            r#"{"tools":[{"mcp_servers":[{"name":"x"}]}]}"#,
            true,
        ),
        (
            "gemini",
            "POST /v1beta/models/g:generateContent",
            r#"{"tools":[{"googleSearch":{}}]}"#,
            false,
        ),
        (
            "azure",
            "POST /openai/deployments/d/chat/completions",
            r#"{"tools":[{"type":"mcp"}]}"#,
            true,
        ),
        (
            "bedrock",
            "POST /model/m/invoke",
            r#"{"mcp_servers":[{}]}"#,
            true,
        ),
    ] {
        let found = read(provider, line, body).unwrap();
        assert_eq!(
            found.needs == [Permission::Mcp],
            wanted,
            "{provider} {body}"
        );
    }
}

#[test]
fn frames_are_read_like_bodies() {
    let frame = |provider: &str, path: &str, text: &str| {
        let api = Api::known(provider).unwrap();
        let call = api.call("GET", path, "", true);
        assert!(call.is_socket(), "{path}");
        inspect_frame(api, &call, text.as_bytes()).map(|found| (found.models, found.needs.len()))
    };
    let names =
        |models: &[&str], needs| Ok((models.iter().map(|m| (*m).to_owned()).collect(), needs));
    let live = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
    let vertex = "/ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent";
    for (provider, path, text, wanted) in [
        (
            "openai",
            "/v1/responses",
            r#"{"type":"response.create","model":"m","tools":[{"type":"mcp"}]}"#,
            names(&["m"], 1),
        ),
        (
            "openai",
            "/v1/responses",
            r#"{"type":"response.create","response":{"model":"m","tools":[{"type":"mcp"}]}}"#,
            names(&["m"], 1),
        ),
        (
            "openai",
            "/v1/realtime",
            r#"{"type":"session.update","session":{"model":"m","tools":[{"type":"function"}]}}"#,
            names(&["m"], 0),
        ),
        (
            "openai",
            "/v1/realtime",
            r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#,
            names(&[], 0),
        ),
        (
            "openai",
            "/v1/realtime",
            r#"{"session":{"model":"a","model":"b"}}"#,
            Err(BodyFault::Duplicate),
        ),
        ("openai", "/v1/realtime", "hello", Err(BodyFault::Json)),
        (
            "gemini",
            live,
            r#"{"setup":{"model":"models/g"}}"#,
            names(&["g"], 0),
        ),
        (
            "gemini",
            live,
            r#"{"realtimeInput":{"text":"x"}}"#,
            names(&[], 0),
        ),
        (
            "gemini",
            live,
            r#"{"setup":{"model":"models/g"},"Setup":{}}"#,
            Err(BodyFault::Spelling),
        ),
        (
            "vertex",
            vertex,
            r#"{"setup":{"model":"projects/p/locations/l/publishers/google/models/g"}}"#,
            names(&["g"], 0),
        ),
    ] {
        assert_eq!(frame(provider, path, text), wanted, "{text}");
    }
}

#[test]
fn the_projects_of_resources_are_noted_and_held_against_what_a_key_is_pinned_to() {
    let found = |body: &str| {
        let line = "POST /v1/projects/p/locations/l/batchPredictionJobs";
        read("vertex", line, body).unwrap().scopes
    };
    let pins = |project: &str, location: Option<&str>| crate::Pins {
        project: Some(project.to_owned()),
        location: location.map(str::to_owned),
        ..crate::Pins::default()
    };
    let of_q = found(r#"{"model":"projects/q/locations/l/publishers/google/models/g"}"#);
    assert_eq!(of_q.len(), 1);
    assert_eq!(pins("q", None).hold(&of_q), Ok(()));
    assert_eq!(pins("q", Some("l")).hold(&of_q), Ok(()));
    assert_eq!(crate::Pins::default().hold(&of_q), Ok(()));
    for other in [pins("p", None), pins("q", Some("m"))] {
        assert_eq!(other.hold(&of_q), Err(crate::PinFault::Body));
    }
    let own = found(r#"{"model":"projects/q/locations/l/models/7"}"#);
    assert_eq!(pins("p", None).hold(&own), Err(crate::PinFault::Body));
    let nobodys = found(r#"{"model":"publishers/google/models/g"}"#);
    assert_eq!(pins("p", Some("l")).hold(&nobodys), Ok(()));
}

#[test]
fn a_place_is_found_however_many_others_lie_on_the_way_to_it() {
    let body = r#"{"request":{"model":"a","models":["b","c"],"preset":"d","tools":[{"type":"mcp"}]},"plugins":[{"model":"e"},{"models":["f"]}]}"#;
    let found = read("openrouter", "POST /api/v1/chat/completions", body).unwrap();
    for model in ["a", "b", "c", "@preset/d", "e", "f"] {
        assert!(found.models.iter().any(|one| one == model), "{model}");
    }
    assert_eq!(found.models.len(), 6);
    assert_eq!(found.needs, [Permission::Mcp]);
}
