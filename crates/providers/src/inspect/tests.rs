//! What bodies of every kind say.
#![allow(clippy::unwrap_used)]

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
fn bodies_that_two_parsers_could_read_differently_are_refused() {
    use BodyFault as F;
    for (provider, line, body, wanted) in [
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","model":"b"}"#,
            F::Duplicate,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","model":"a"}"#,
            F::Duplicate,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","m\u006fdel":"b"}"#,
            F::Duplicate,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","Model":"b"}"#,
            F::Spelling,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"MODEL":"b"}"#,
            F::Spelling,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":["a"]}"#,
            F::Model,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":{"id":"a"}}"#,
            F::Model,
        ),
        ("openai", "POST /v1/responses", r#"{"model":1}"#, F::Model),
        ("openai", "POST /v1/responses", r#"{"model":""}"#, F::Model),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a\u0000"}"#,
            F::Model,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"\ud800"}"#,
            F::Model,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"[{"model":"a"}]"#,
            F::Json,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a"}{"model":"b"}"#,
            F::Json,
        ),
        ("openai", "POST /v1/responses", "model=a", F::Json),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","tools":[[{"type":"mcp"}]]}"#,
            F::Nesting,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","tools":[{"type":"x","type":"mcp"}]}"#,
            F::Duplicate,
        ),
        (
            "openai",
            "POST /v1/responses",
            r#"{"model":"a","tools":[],"tools":[{"type":"mcp"}]}"#,
            F::Duplicate,
        ),
        (
            "anthropic",
            "POST /v1/messages/batches",
            r#"{"requests":[{"params":{"model":"a","model":"b"}}]}"#,
            F::Duplicate,
        ),
        (
            "anthropic",
            "POST /v1/messages/batches",
            r#"{"requests":[{"params":{},"params":{"model":"b"}}]}"#,
            F::Duplicate,
        ),
        (
            "gemini",
            "POST /v1beta/models/g:generateContent",
            r#"{"model":"models/h"}"#,
            F::Contradiction,
        ),
        (
            "gemini",
            "POST /v1beta/models/g:batchEmbedContents",
            r#"{"requests":[{"model":"models/g"},{"model":"models/h"}]}"#,
            F::Contradiction,
        ),
        (
            "gemini",
            "POST /v1beta/models/g:countTokens",
            r#"{"generate_content_request":{"model":"models/h"}}"#,
            F::Contradiction,
        ),
        (
            "gemini",
            "POST /v1beta/models/g:countTokens",
            r#"{"generateContentRequest":{},"generate_content_request":{}}"#,
            F::Duplicate,
        ),
    ] {
        assert_eq!(
            read(provider, line, body).err(),
            Some(wanted),
            "{provider} {body}"
        );
    }
}

#[test]
fn content_types_are_those_that_can_be_read() {
    let (api, call) = call("openai", "POST /v1/chat/completions");
    let read =
        |kind: &str| inspect(api, &call, kind, br#"{"model":"m"}"#).map(|found| found.models);
    for kind in [
        "",
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/vnd.x+json",
        "application/json; charset=\"utf-8\"",
    ] {
        assert_eq!(read(kind), Ok(vec!["m".to_owned()]), "{kind}");
    }
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/jsonx",
        "multipart/form-data; boundary=a",
        "application/json, text/plain",
    ] {
        assert_eq!(read(kind), Err(BodyFault::ContentType), "{kind}");
    }
}

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

#[test]
fn streams_are_made_to_report_usage_where_the_provider_takes_the_question() {
    const ASKED: &str = r#""stream_options":{"include_usage":true}"#;
    for (body, wanted) in [
        (r#"{"stream":true,"model":"m"}"#, Some(format!(r#"{{{ASKED},"stream":true,"model":"m"}}"#))),
        (" {\n\"stream\" : true}", Some(format!(" {{{ASKED},\n\"stream\" : true}}"))),
        (r#"{"stream":true,"stream_options":null}"#, Some(format!(r#"{{"stream":true,{ASKED}}}"#))),
        (r#"{"stream":true,"stream_options":{ }}"#, Some(format!(r#"{{"stream":true,{ASKED}}}"#))),
        (r#"{"stream":true,"stream_options":{"include_usage":false}}"#, Some(format!(r#"{{"stream":true,{ASKED}}}"#))),
        (r#"{"stream":true,"stream_options":{"include_usage":null}}"#, Some(format!(r#"{{"stream":true,{ASKED}}}"#))),
        (
            r#"{"stream":true,"stream_options":{"include_obfuscation":false}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}"#.to_owned()),
        ),
        (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, None),
        (r#"{"stream":true,"stream_options":"x"}"#, None),
        (r#"{"stream":false,"model":"m"}"#, None),
        (r#"{"model":"m"}"#, None),
    ] {
        let found = chat(body).unwrap();
        let edited = found.usage_edit.map(|edit| apply(body.as_bytes(), &[edit]));
        assert_eq!(edited.map(|edited| String::from_utf8(edited).unwrap()), wanted, "{body}");
    }
    let twice = r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#;
    assert_eq!(chat(twice), Err(BodyFault::Duplicate));
}

#[test]
fn the_question_is_asked_of_those_who_take_it() {
    let asks = |provider: &str, line: &str| {
        let found = read(provider, line, r#"{"model":"g","stream":true}"#).unwrap();
        assert!(found.stream);
        found.usage_edit.is_some()
    };
    for (provider, line, wanted) in [
        ("openai", "POST /v1/chat/completions", true),
        ("openai", "POST /v1/completions", true),
        ("openai", "POST /v1/responses", false),
        ("azure", "POST /openai/v1/chat/completions", true),
        (
            "azure",
            "POST /openai/deployments/d/chat/completions?api-version=2024-10-21",
            true,
        ),
        (
            "azure",
            "POST /openai/deployments/d/chat/completions?api-version=2024-06-01",
            false,
        ),
        (
            "azure",
            "POST /openai/deployments/d/chat/completions",
            false,
        ),
        ("deepseek", "POST /chat/completions", true),
        ("together", "POST /v1/chat/completions", true),
        ("gemini", "POST /v1beta/openai/chat/completions", true),
        ("bedrock", "POST /openai/v1/chat/completions", true),
        ("mistral", "POST /v1/chat/completions", false),
        ("groq", "POST /openai/v1/chat/completions", false),
        ("openrouter", "POST /api/v1/chat/completions", false),
        ("anthropic", "POST /v1/messages", false),
    ] {
        assert_eq!(asks(provider, line), wanted, "{provider} {line}");
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

mod forms {
    use super::*;

    fn form(fields: &[(&str, &str)]) -> String {
        let parts = fields.iter().map(|(head, content)| {
            format!("--XX\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
        });
        format!("{}--XX--\r\n", parts.collect::<String>())
    }

    fn read(line: &str, fields: &[(&str, &str)]) -> Result<Inspected, BodyFault> {
        let (api, call) = call("openai", line);
        let body = form(fields);
        inspect(
            api,
            &call,
            "multipart/form-data; boundary=XX",
            body.as_bytes(),
        )
    }

    const FILE: (&str, &str) = (
        "name=\"file\"; filename=\"a.wav\"",
        "RIFF\r\nname=\"model\"",
    );

    #[test]
    fn the_model_is_found_in_either_order() {
        let model = ("name=\"model\"", "whisper-1");
        for fields in [&[model, FILE][..], &[FILE, model]] {
            let found = read("POST /v1/audio/transcriptions", fields).unwrap();
            assert_eq!(found.models, ["whisper-1"]);
            assert!(!found.stream);
            let edited = apply(form(fields).as_bytes(), &found.model_edits("other"));
            let swapped: Vec<_> = fields
                .iter()
                .map(|(head, content)| {
                    (
                        *head,
                        if *content == "whisper-1" {
                            "other"
                        } else {
                            *content
                        },
                    )
                })
                .collect();
            assert_eq!(edited, form(&swapped).into_bytes());
        }
        let stream = read(
            "POST /v1/audio/transcriptions",
            &[model, FILE, ("name=\"stream\"", "true")],
        );
        assert!(stream.unwrap().stream);
        assert_eq!(
            read("POST /v1/images/edits", &[FILE]).unwrap().models,
            [""; 0]
        );
        let call = read(
            "POST /v1/realtime/calls",
            &[
                ("name=\"sdp\"", "v=0"),
                ("name=\"session\"", r#"{"type":"realtime","model":"r"}"#),
            ],
        );
        assert_eq!(call.unwrap().models, ["r"]);
    }

    #[test]
    fn a_model_that_two_parsers_could_read_differently_is_refused() {
        let line = "POST /v1/audio/transcriptions";
        let model = ("name=\"model\"", "a");
        for (fields, wanted) in [
            (&[model, model][..], BodyFault::Duplicate),
            (&[model, ("name=\"Model\"", "b")], BodyFault::Spelling),
            (&[model, ("name=\"model[]\"", "b")], BodyFault::Spelling),
            (&[("name=\" model\"", "b")], BodyFault::Spelling),
            (&[("name=\"model\"; filename=\"x\"", "b")], BodyFault::Model),
            (
                &[("name=\"model\"\r\nContent-Type: application/json", "\"b\"")],
                BodyFault::Model,
            ),
            (&[("name=\"model\"", " b")], BodyFault::Model),
            (&[("name=\"model\"", "b\r\n")], BodyFault::Model),
            (&[("name=\"model\"", "")], BodyFault::Model),
            (&[("name=\"model\"", "a\u{7}")], BodyFault::Model),
            (&[model, ("name=\"_charset_\"", "utf-7")], BodyFault::Form),
            (&[("name=\"x\"; name=\"model\"", "b")], BodyFault::Form),
        ] {
            assert_eq!(read(line, fields), Err(wanted), "{fields:?}");
        }
        assert!(read(line, &[model, ("name=\"models\"", "b")]).is_ok());
    }

    #[test]
    fn the_lines_of_a_batch_name_its_models() {
        let lines = |models: &[&str]| -> String {
            let line = |model: &&str| {
                format!(
                    "{{\"custom_id\":\"1\",\"url\":\"/v1/chat/completions\",\"body\":{{\"model\":\"{model}\"}}}}\n"
                )
            };
            models.iter().map(line).collect()
        };
        let file = "name=\"file\"; filename=\"b.jsonl\"";
        let purpose = ("name=\"purpose\"", "batch");
        let text = lines(&["a", "b", "a"]);
        for fields in [[purpose, (file, &text)], [(file, &*text), purpose]] {
            let found = read("POST /v1/files", &fields).unwrap();
            assert_eq!(found.models, ["a", "b"]);
            let edited = apply(form(&fields).as_bytes(), &found.alias_edits("a", "c"));
            assert_eq!(
                String::from_utf8(edited).unwrap(),
                form(&fields).replace("\"a\"", "\"c\"")
            );
        }
        let crlf = text.replace('\n', "\r\n");
        assert_eq!(
            read("POST /v1/files", &[purpose, (file, &crlf)])
                .unwrap()
                .models,
            ["a", "b"]
        );
        let mcp = r#"{"body":{"model":"a","tools":[{"type":"mcp"}]}}"#;
        assert_eq!(
            read("POST /v1/files", &[purpose, (file, mcp)])
                .unwrap()
                .needs,
            [Permission::Mcp]
        );
        for (line, wanted) in [
            ("no json", BodyFault::Line),
            ("[]", BodyFault::Line),
            (
                r#"{"body":{"model":"a","model":"b"}}"#,
                BodyFault::Duplicate,
            ),
            (
                r#"{"body":{"model":"a"},"body":{"model":"b"}}"#,
                BodyFault::Line,
            ),
            (r#"{"Body":{"model":"a"}}"#, BodyFault::Spelling),
            (r#"{"body":[{"model":"a"}]}"#, BodyFault::Json),
        ] {
            assert_eq!(
                read("POST /v1/files", &[purpose, (file, line)]),
                Err(wanted),
                "{line}"
            );
        }
        // Any other file is not read.
        let other = [("name=\"purpose\"", "assistants"), (file, "no json")];
        assert_eq!(read("POST /v1/files", &other).unwrap().models, [""; 0]);
        assert_eq!(read("POST /v1/files", &[purpose]), Err(BodyFault::Form));
        assert_eq!(
            read("POST /v1/files", &[purpose, purpose, (file, &text)]),
            Err(BodyFault::Duplicate)
        );
    }

    #[test]
    fn batches_are_bounded() {
        let file = "name=\"file\"; filename=\"b.jsonl\"";
        let purpose = ("name=\"purpose\"", "batch");
        let many = |n: usize| -> String {
            (0..n)
                .map(|i| format!("{{\"body\":{{\"model\":\"{i}\"}}}}\n"))
                .collect()
        };
        assert!(read("POST /v1/files", &[purpose, (file, &many(256))]).is_ok());
        assert_eq!(
            read("POST /v1/files", &[purpose, (file, &many(257))]),
            Err(BodyFault::TooMuch)
        );
        assert_eq!(
            read(
                "POST /v1/files",
                &[purpose, (file, &"\n".repeat(LINES_MAX))]
            ),
            Err(BodyFault::TooMuch)
        );
    }
}

mod edits {
    use super::*;

    #[test]
    fn an_alias_is_written_as_the_name_it_replaces_was() {
        for (provider, line, body, wanted) in [
            (
                "openai",
                "POST /v1/responses",
                r#"{ "model" : "a" , "input":"a"}"#,
                r#"{ "model" : "n\"1" , "input":"a"}"#,
            ),
            (
                "openai",
                "POST /v1/responses",
                r#"{"mod\u0065l":"\u0061"}"#,
                r#"{"mod\u0065l":"n\"1"}"#,
            ),
            (
                "gemini",
                "POST /v1beta/cachedContents",
                r#"{"model":"models/a"}"#,
                r#"{"model":"models/n\"1"}"#,
            ),
            (
                "gemini",
                "POST /v1beta/interactions",
                r#"{"model":"a"}"#,
                r#"{"model":"n\"1"}"#,
            ),
        ] {
            let found = read(provider, line, body).unwrap();
            assert_eq!(found.models, ["a"]);
            let all = apply(body.as_bytes(), &found.model_edits("n\"1"));
            assert_eq!(String::from_utf8(all).unwrap(), wanted);
            let some = apply(body.as_bytes(), &found.alias_edits("a", "n\"1"));
            assert_eq!(String::from_utf8(some).unwrap(), wanted);
            assert_eq!(found.alias_edits("b", "n"), []);
        }
    }

    #[test]
    fn edits_of_model_and_usage_go_together() {
        let body = r#"{"stream":true,"model":"a"}"#;
        let found = chat(body).unwrap();
        let mut edits = found.model_edits("b");
        edits.extend(found.usage_edit);
        let edited: serde_json::Value =
            serde_json::from_slice(&apply(body.as_bytes(), &edits)).unwrap();
        let wanted = serde_json::json!({"stream": true, "model": "b", "stream_options": {"include_usage": true}});
        assert_eq!(edited, wanted);
    }
}

mod properties {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    /// JSON of any shape, whose keys are often those that matter.
    fn json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            Just("model".to_owned()),
            Just("stream".to_owned()),
            Just("stream_options".to_owned()),
            Just("include_usage".to_owned()),
            Just("tools".to_owned()),
            Just("type".to_owned()),
            Just("models".to_owned()),
            "\\PC{0,4}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn document() -> impl Strategy<Value = Map<String, Value>> {
        let rest = prop::collection::btree_map("\\PC{0,5}", json(), 0..5);
        let model = prop::option::of("[a-z/:.\u{e9}\"\\\\]{1,8}");
        let options = prop::option::of(json());
        (rest, model, any::<bool>(), options).prop_map(|(rest, model, stream, options)| {
            let mut map: Map<String, Value> = rest.into_iter().collect();
            map.extend(model.map(|model| ("model".to_owned(), model.into())));
            map.insert("stream".into(), stream.into());
            map.extend(options.map(|options| ("stream_options".to_owned(), options)));
            map
        })
    }

    /// Writes with blanks and escapes that mean nothing.
    fn written(map: &Map<String, Value>, noisy: bool) -> String {
        if !noisy {
            return Value::Object(map.clone()).to_string();
        }
        let escaped = |text: &str| -> String {
            let units: String = text
                .encode_utf16()
                .map(|unit| format!("\\u{unit:04X}"))
                .collect();
            format!("\"{units}\"")
        };
        let members = map.iter().map(|(key, value)| match value {
            Value::String(text) => format!("\t{} :\n{} ", escaped(key), escaped(text)),
            value => format!(" {} : {value}\r\n", escaped(key)),
        });
        format!(" {{{}}}\n", members.collect::<Vec<_>>().join(","))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn the_model_is_the_one_that_a_full_parser_reads(map in document(), noisy: bool) {
            let body = written(&map, noisy);
            let whole: Value = serde_json::from_str(&body).unwrap();
            if let Ok(found) = chat(&body) {
                prop_assert_eq!(found.models.first().map(String::as_str), whole.get("model").and_then(Value::as_str));
                prop_assert_eq!(found.stream, whole["stream"] == Value::Bool(true));
            }
        }

        #[test]
        fn edits_yield_the_document_that_was_meant(map in document(), noisy: bool, alias in "\\PC{1,8}") {
            let body = written(&map, noisy);
            let Ok(found) = chat(&body) else { return Ok(()) };
            let mut edits = found.alias_edits(map.get("model").and_then(Value::as_str).unwrap_or_default(), &alias);
            edits.extend(found.usage_edit.clone());
            let edited: Value = serde_json::from_slice(&apply(body.as_bytes(), &edits)).unwrap();
            let mut wanted = map.clone();
            if map.contains_key("model") {
                wanted.insert("model".into(), alias.into());
            }
            let options = wanted.get("stream_options").cloned().unwrap_or_default();
            if found.stream && (options.is_object() || options.is_null()) {
                let mut options = options.as_object().cloned().unwrap_or_default();
                options.insert("include_usage".into(), true.into());
                wanted.insert("stream_options".into(), options.into());
            }
            prop_assert_eq!(edited, Value::Object(wanted));
        }

        #[test]
        fn no_body_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), form: bool) {
            let (api, call) = call("openai", "POST /v1/files");
            let kind = if form { "multipart/form-data; boundary=a" } else { "application/json" };
            let _ = inspect(api, &call, kind, &bytes);
        }
    }
}
