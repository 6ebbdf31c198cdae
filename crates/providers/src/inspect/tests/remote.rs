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
