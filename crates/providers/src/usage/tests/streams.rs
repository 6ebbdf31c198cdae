//! Answers that come as SSE, as a growing JSON array, or as lines.

use super::*;

const CHAT: [&str; 4] = [
    r#"{"id":"c","object":"chat.completion.chunk","model":"","choices":[],"prompt_filter_results":[]}"#,
    r#"{"id":"c","object":"chat.completion.chunk","model":"gpt-x","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}],"usage":null}"#,
    r#"{"id":"c","object":"chat.completion.chunk","model":"gpt-x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#,
    r#"{"id":"c","object":"chat.completion.chunk","model":"gpt-x","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":1,"total_tokens":20}}"#,
];

#[test]
fn every_api_is_read_from_its_stream() {
    let cases: [(&str, Shape, Vec<&str>, Row); 13] = [
        ("chat", Shape::Openai, CHAT.to_vec(), plain(19, 1)),
        (
            "responses",
            Shape::Openai,
            vec![
                r#"{"type":"response.created","response":{"id":"r","status":"in_progress","usage":null}}"#,
                r#"{"type":"response.output_text.delta","delta":"Hi"}"#,
                r#"{"type":"response.output_text.done","text":"Hi"}"#,
                r#"{"type":"response.completed","response":{"id":"r","status":"completed","model":"gpt-x","tools":[{"usage":{"input_tokens":9}}],"usage":{"input_tokens":37,"input_tokens_details":{"cached_tokens":30},"output_tokens":11,"total_tokens":48}}}"#,
            ],
            (Some(7), Some(30), None, Some(11)),
        ),
        (
            "responses, cut short by a limit",
            Shape::Openai,
            vec![
                r#"{"type":"response.incomplete","response":{"status":"incomplete","usage":{"input_tokens":3,"output_tokens":4}}}"#,
            ],
            plain(3, 4),
        ),
        (
            "images",
            Shape::Openai,
            vec![
                r#"{"type":"image_generation.partial_image","b64_json":"AAAA"}"#,
                r#"{"type":"image_generation.completed","b64_json":"AAAA","usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50}}"#,
            ],
            plain(50, 50),
        ),
        (
            "transcription",
            Shape::Openai,
            vec![
                r#"{"type":"transcript.text.delta","delta":"I"}"#,
                r#"{"type":"transcript.text.done","text":"I see","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"audio_tokens":14},"output_tokens":45}}"#,
            ],
            plain(14, 45),
        ),
        (
            "speech",
            Shape::Openai,
            vec![
                r#"{"type":"speech.audio.delta","audio":"AAAA"}"#,
                r#"{"type":"speech.audio.done","usage":{"input_tokens":14,"output_tokens":101,"total_tokens":115}}"#,
            ],
            plain(14, 101),
        ),
        (
            "groq, unasked",
            Shape::Openai,
            vec![
                r#"{"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}"#,
                r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"r","usage":{"prompt_tokens":6,"completion_tokens":2,"total_tokens":8}}}"#,
            ],
            plain(6, 2),
        ),
        (
            "mistral, with the last chunk",
            Shape::Openai,
            vec![
                r#"{"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}"#,
                r#"{"choices":[{"delta":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":6,"completion_tokens":2,"total_tokens":8}}"#,
            ],
            plain(6, 2),
        ),
        (
            "perplexity, counting along",
            Shape::Openai,
            vec![
                r#"{"choices":[{"delta":{"content":"H"},"finish_reason":null}],"usage":{"prompt_tokens":6,"completion_tokens":1}}"#,
                r#"{"choices":[{"delta":{"content":"i"},"finish_reason":"stop"}],"usage":{"prompt_tokens":6,"completion_tokens":2}}"#,
            ],
            plain(6, 2),
        ),
        (
            "anthropic, cumulative",
            Shape::Anthropic,
            vec![
                r#"{"type":"message_start","message":{"id":"m","type":"message","model":"claude-x","content":[],"usage":{"input_tokens":25,"cache_read_input_tokens":100,"output_tokens":1}}}"#,
                r#"{"type":"ping"}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello there"}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":25,"output_tokens":15}}"#,
                r#"{"type":"message_stop"}"#,
            ],
            (Some(25), Some(100), None, Some(15)),
        ),
        (
            "gemini, the last one wins",
            Shape::Gemini,
            vec![
                r#"{"candidates":[{"content":{"parts":[{"text":"H"}]}}],"usageMetadata":{"promptTokenCount":8,"totalTokenCount":8}}"#,
                r#"{"candidates":[{"content":{"parts":[{"text":"i"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":2,"thoughtsTokenCount":3,"totalTokenCount":13}}"#,
            ],
            plain(8, 5),
        ),
        (
            "interactions",
            Shape::Gemini,
            vec![
                r#"{"event_type":"content.delta","delta":{"type":"text","text":"Hi"}}"#,
                r#"{"event_type":"interaction.completed","interaction":{"model":"gemini-x","usage":{"total_input_tokens":7,"total_output_tokens":2,"total_tokens":9}}}"#,
            ],
            plain(7, 2),
        ),
        (
            "cohere",
            Shape::Cohere,
            vec![
                r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Hi"}}}}"#,
                r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":5.0,"output_tokens":2.0},"tokens":{"input_tokens":66,"output_tokens":2}}}}"#,
            ],
            plain(5, 2),
        ),
    ];
    for (name, shape, events, wanted) in cases {
        assert_eq!(row(&counted(shape, SSE, &sse(&events))), wanted, "{name}");
        // The provider has had its last word, so that it does not matter when the app leaves after it.
        let body = sse(&events);
        let left = metered(shape, SSE, body.as_bytes(), false);
        assert!(!left.estimated, "{name}");
    }
    assert_eq!(
        counted(Shape::Openai, SSE, &sse(&CHAT)).model.as_deref(),
        Some("gpt-x")
    );
}

#[test]
fn every_line_end_comment_and_shape_of_event_is_understood() {
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":19,"completion_tokens":1}}"#;
    let halves = usage.split_at(14);
    for end in ["\n", "\r\n", "\r"] {
        let bodies = [
            format!(
                ": OPENROUTER PROCESSING{end}{end}event: ping{end}data: {{}}{end}{end}data: {usage}{end}{end}"
            ),
            format!(
                "id: 7{end}event: message{end}data:{usage}{end}: in between{end}retry: 9{end}{end}data: [DONE]{end}{end}"
            ),
            format!("data: {}{end}data: {}{end}{end}", halves.0, halves.1),
            format!("data{end}{end}data: {usage}{end}{end}data"),
            // Without the blank line that ends it.
            format!("data: {usage}"),
            format!("data: {usage}{end}"),
        ];
        for body in bodies {
            let usage = counted(Shape::Openai, SSE, &body);
            assert_eq!(row(&usage), plain(19, 1), "{}", body.escape_debug());
        }
        let other =
            format!("datas: {usage}{end}{end}: data: {usage}{end}{end}dat: {usage}{end}{end}");
        assert!(counted(Shape::Openai, SSE, &other).is_silent());
    }
}

#[test]
fn an_event_of_any_size_is_read() {
    let text = "x".repeat(1 << 20);
    let body = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"output\":[{{\"text\":\"{text}\"}}],\"usage\":{{\"input_tokens\":1,\"output_tokens\":2}}}}}}\n\n"
    );
    assert_eq!(row(&counted(Shape::Openai, SSE, &body)), plain(1, 2));
}

#[test]
fn an_array_is_read_element_by_element() {
    let body = "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"H\"}]}}],\"usageMetadata\":{\"promptTokenCount\":8,\"totalTokenCount\":9,\"candidatesTokenCount\":1}}\n,\r\n{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"i\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":8,\"candidatesTokenCount\":2,\"totalTokenCount\":10},\"modelVersion\":\"gemini-x\"}\n]";
    let usage = counted(Shape::Gemini, JSON, body);
    assert_eq!(row(&usage), plain(8, 2));
    assert_eq!(usage.model.as_deref(), Some("gemini-x"));
    assert_eq!(usage.total, Some(10));
}

#[test]
fn lines_of_json_are_events() {
    let body = "{\"event_type\":\"text-generation\",\"text\":\"Hello there\"}\n{\"event_type\":\"stream-end\",\"response\":{\"meta\":{\"billed_units\":{\"input_tokens\":3,\"output_tokens\":2}}}}\n";
    for content_type in ["application/stream+json", "application/x-ndjson"] {
        assert_eq!(
            row(&counted(Shape::Cohere, content_type, body)),
            plain(3, 2)
        );
    }
    let cut = &body.as_bytes()[..60];
    let metered = metered(Shape::Cohere, "application/stream+json", cut, false);
    assert!(metered.estimated);
    assert_eq!(metered.usage.output, Some(3));
}

#[test]
fn an_error_in_the_middle_is_a_failure() {
    let cases: [(Shape, &str, bool); 8] = [
        (
            Shape::Openai,
            "data: {\"error\":{\"message\":\"x\"}}\n\n",
            true,
        ),
        (
            Shape::Openai,
            "data: {\"type\":\"error\",\"code\":\"x\"}\n\n",
            true,
        ),
        (
            Shape::Openai,
            "event: error\ndata: {\"code\":\"x\",\"message\":\"y\"}\n\n",
            true,
        ),
        (
            Shape::Openai,
            "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\"}}\n\n",
            true,
        ),
        (
            Shape::Anthropic,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
            true,
        ),
        (
            Shape::Openai,
            "event: errors\ndata: {\"error\":null}\n\n",
            false,
        ),
        (
            Shape::Openai,
            "data: {\"choices\":[{\"error\":{}}]}\n\n",
            false,
        ),
        (Shape::Openai, ": error\n\n", false),
    ];
    for (shape, body, wanted) in cases {
        let metered = metered(shape, SSE, body.as_bytes(), true);
        assert_eq!(metered.failed, wanted, "{body}");
    }
}
