//! Answers that are one JSON document.

use super::*;

#[test]
fn every_api_is_read_from_its_document() {
    let cases: [(&str, Shape, &str, Row); 15] = [
        (
            "chat",
            Shape::Openai,
            r#"{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-x","choices":[{"index":0,"message":{"role":"assistant","content":"Hi","refusal":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":4}}}"#,
            (Some(15), Some(4), None, Some(10)),
        ),
        (
            "responses",
            Shape::Openai,
            r#"{"id":"resp_1","object":"response","status":"completed","error":null,"model":"gpt-x","output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":0},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":123}}"#,
            (Some(36), Some(0), None, Some(87)),
        ),
        (
            "embeddings",
            Shape::Openai,
            r#"{"object":"list","data":[{"object":"embedding","embedding":[0.1,-0.2,1e-3],"index":0}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            (Some(8), None, None, None),
        ),
        (
            "images",
            Shape::Openai,
            r#"{"created":1,"data":[{"b64_json":"AAAA"}],"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"#,
            plain(50, 50),
        ),
        (
            "transcription by tokens",
            Shape::Openai,
            r#"{"text":"Imagine","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":0,"audio_tokens":14},"output_tokens":45,"total_tokens":59}}"#,
            plain(14, 45),
        ),
        (
            "transcription by length",
            Shape::Openai,
            r#"{"text":"Imagine","usage":{"type":"duration","seconds":9}}"#,
            (None, None, None, None),
        ),
        (
            "messages",
            Shape::Anthropic,
            r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":25,"cache_creation_input_tokens":3,"cache_read_input_tokens":0,"output_tokens":15}}"#,
            (Some(25), Some(0), Some(3), Some(15)),
        ),
        (
            "generateContent",
            Shape::Gemini,
            r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":2,"thoughtsTokenCount":5,"totalTokenCount":15},"modelVersion":"gemini-x"}"#,
            plain(8, 7),
        ),
        (
            "interactions",
            Shape::Gemini,
            r#"{"id":"v1_x","object":"interaction","model":"gemini-x","status":"completed","outputs":[{"type":"text","text":"Hi"}],"usage":{"total_input_tokens":7,"total_output_tokens":20,"total_thought_tokens":22,"total_tokens":49}}"#,
            plain(7, 42),
        ),
        (
            "vertex embeddings",
            Shape::Gemini,
            r#"{"predictions":[{"embeddings":{"values":[0.1],"statistics":{"truncated":false,"token_count":6}}},{"embeddings":{"values":[0.1],"statistics":{"truncated":false,"token_count":4}}}],"metadata":{"billableCharacterCount":11}}"#,
            (Some(10), None, None, None),
        ),
        (
            "converse",
            Shape::BedrockConverse,
            r#"{"metrics":{"latencyMs":1},"output":{"message":{"content":[{"text":"Hi"}],"role":"assistant"}},"stopReason":"end_turn","usage":{"inputTokens":11,"outputTokens":12,"totalTokens":23}}"#,
            plain(11, 12),
        ),
        (
            "cohere chat",
            Shape::Cohere,
            r#"{"id":"c","message":{"role":"assistant","content":[{"type":"text","text":"Hi"}]},"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":5,"output_tokens":10},"tokens":{"input_tokens":71,"output_tokens":10}}}"#,
            plain(5, 10),
        ),
        (
            "cohere embed",
            Shape::Cohere,
            r#"{"id":"e","embeddings":{"float":[[0.1]]},"texts":["hello"],"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":2}}}"#,
            (Some(2), None, None, None),
        ),
        (
            "mistral",
            Shape::Openai,
            r#"{"id":"m","object":"chat.completion","model":"mistral-x","choices":[{"index":0,"finish_reason":"stop","message":{"content":"Hi"}}],"usage":{"prompt_tokens":16,"total_tokens":50,"completion_tokens":34,"num_cached_tokens":0}}"#,
            (Some(16), Some(0), None, Some(34)),
        ),
        (
            "groq",
            Shape::Openai,
            r#"{"id":"g","model":"llama","choices":[],"x_groq":{"id":"req_1"},"usage":{"queue_time":0.03,"prompt_tokens":3,"completion_tokens":0,"total_tokens":3}}"#,
            plain(3, 0),
        ),
    ];
    for (name, shape, body, wanted) in cases {
        assert_eq!(row(&counted(shape, JSON, body)), wanted, "{name}");
    }
}

#[test]
fn the_model_that_answered_is_named() {
    let model = |shape, body: &str| counted(shape, JSON, body).model;
    assert_eq!(
        model(
            Shape::Openai,
            r#"{"model":"ft:g\u0070t","usage":{"prompt_tokens":1}}"#
        ),
        Some("ft:gpt".to_owned())
    );
    assert_eq!(
        model(Shape::Gemini, r#"{"modelVersion":"gemini-x"}"#),
        Some("gemini-x".to_owned())
    );
    assert_eq!(model(Shape::Openai, r#"{"model":7}"#), None);
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(300));
    assert_eq!(model(Shape::Openai, &long), None);
}

#[test]
fn a_field_of_that_name_elsewhere_is_not_the_bill() {
    let body = r#"{"object":"response","metadata":{"usage":{"input_tokens":1,"output_tokens":1}},"tools":[{"parameters":{"properties":{"usage":{"input_tokens":2,"output_tokens":2}}}}],"output":[{"text":"\"usage\":{\"input_tokens\":3,\"output_tokens\":3}"}],"usage":{"input_tokens":40,"output_tokens":50},"user":{"usage":{"input_tokens":4,"output_tokens":4}}}"#;
    assert_eq!(row(&counted(Shape::Openai, JSON, body)), plain(40, 50));
    let without = body.replace(r#""usage":{"input_tokens":40,"output_tokens":50},"#, "");
    assert!(counted(Shape::Openai, JSON, &without).is_silent());
}

#[test]
fn a_document_of_any_size_is_read_without_holding_it() {
    let picture = "A".repeat(3 << 20);
    let body = format!(
        r#"{{"data":[{{"b64_json":"{picture}"}}],"usage":{{"input_tokens":5,"output_tokens":6}}}}"#
    );
    let mut meter = Meter::new(Shape::Openai, JSON, false);
    for piece in body.as_bytes().chunks(1400) {
        meter.watch(piece);
    }
    assert_eq!(row(&meter.finish(true, &mut Vec::new()).usage), plain(5, 6));
}

#[test]
fn a_report_that_is_too_long_or_malformed_is_unknown_and_not_zero() {
    let long = format!(
        r#"{{"usage":{{"input_tokens":5,"x":"{}"}}}}"#,
        "x".repeat(9000)
    );
    assert!(counted(Shape::Openai, JSON, &long).is_silent());
    for body in [
        r#"{"usage":null}"#,
        r#"{"usage":{}}"#,
        r#"{"usage":[1]}"#,
        r#"{"usage":"5"}"#,
        r#"{"usage":{"prompt_tokens":1,"prompt_tokens":2}}"#,
        r#"{"Usage":{"prompt_tokens":1}}"#,
        r#"["usage",{"prompt_tokens":1}]"#,
        "",
        "}}}]]]",
        "not json",
    ] {
        assert!(counted(Shape::Openai, JSON, body).is_silent(), "{body}");
    }
    assert_eq!(
        counted(Shape::Openai, JSON, r#"{"usage":{"prompt_tokens":0}}"#).input,
        Some(0)
    );
}

#[test]
fn an_error_in_a_200_is_a_failure() {
    let failed = |shape, body: &str| metered(shape, JSON, body.as_bytes(), true).failed;
    assert!(failed(
        Shape::Openai,
        r#"{"status":"failed","error":{"code":"server_error","message":"x"}}"#
    ));
    assert!(failed(
        Shape::Anthropic,
        r#"{"type":"error","error":{"type":"overloaded_error"}}"#
    ));
    assert!(failed(Shape::Gemini, r#"[{"error":{"code":503}}]"#));
    assert!(!failed(Shape::Openai, r#"{"error":null,"choices":[]}"#));
    assert!(!failed(Shape::Openai, r#"{"output":[{"error":{}}]}"#));
}

#[test]
fn a_silent_shape_and_other_content_are_not_read() {
    let body = r#"{"usage":{"prompt_tokens":1},"error":{}}"#;
    for (shape, content_type) in [
        (Shape::Silent, JSON),
        (Shape::Openai, "audio/mpeg"),
        (Shape::Openai, "text/plain"),
    ] {
        assert_eq!(
            metered(shape, content_type, body.as_bytes(), true),
            Metered::default()
        );
    }
    for content_type in ["", "Application/JSON", "application/problem+json"] {
        let metered = metered(Shape::Openai, content_type, body.as_bytes(), true);
        assert_eq!(metered.usage.input, Some(1), "{content_type}");
    }
}
