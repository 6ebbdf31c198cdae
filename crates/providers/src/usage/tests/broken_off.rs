//! Streams that end early, and those whose provider never said.

use super::*;

const START: &str = r#"{"type":"message_start","message":{"model":"claude-x","usage":{"input_tokens":25,"output_tokens":1}}}"#;
const DELTA: &str = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"exactly twenty-four byte"}}"#;

#[test]
fn what_was_delivered_is_added_to_what_was_counted() {
    let cases: [(&str, Shape, Vec<&str>, Row); 7] = [
        (
            "anthropic's first count is no count of the text",
            Shape::Anthropic,
            vec![START, DELTA, DELTA],
            plain(25, 1 + 12),
        ),
        (
            "chat says nothing until the end",
            Shape::Openai,
            vec![
                r#"{"choices":[{"delta":{"content":"eight by","tool_calls":[{"function":{"arguments":"{\"a\":1}"}}]}}],"usage":null}"#,
            ],
            (None, None, None, Some(4)),
        ),
        (
            "gemini counts along",
            Shape::Gemini,
            vec![
                r#"{"candidates":[{"content":{"parts":[{"text":"very much text indeed"}]}}],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":3,"totalTokenCount":11}}"#,
            ],
            plain(8, 3),
        ),
        (
            "and is believed up to its last count",
            Shape::Gemini,
            vec![
                r#"{"candidates":[{"content":{"parts":[{"text":"much text"}]}}],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":3,"totalTokenCount":11}}"#,
                r#"{"candidates":[{"content":{"parts":[{"text":"four"}]}}]}"#,
            ],
            plain(8, 4),
        ),
        (
            "nothing was delivered",
            Shape::Openai,
            vec![r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#],
            (None, None, None, None),
        ),
        (
            "audio in base64 is no text, its transcript is",
            Shape::Openai,
            vec![
                r#"{"type":"response.output_audio.delta","delta":"AAAAAAAAAAAAAAAAAAAA"}"#,
                r#"{"type":"response.output_audio_transcript.delta","delta":"four"}"#,
            ],
            (None, None, None, Some(1)),
        ),
        (
            "cohere",
            Shape::Cohere,
            vec![
                r#"{"type":"content-delta","delta":{"message":{"content":{"text":"four"}}}}"#,
                r#"{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"x"}}}"#,
            ],
            (None, None, None, Some(2)),
        ),
    ];
    for (name, shape, events, wanted) in cases {
        let metered = metered(shape, SSE, sse(&events).as_bytes(), false);
        assert!(metered.estimated && !metered.failed, "{name}");
        assert_eq!(row(&metered.usage), wanted, "{name}");
    }
}

#[test]
fn a_stream_cut_inside_an_event_counts_what_the_app_can_see() {
    let body = sse(&[START, DELTA]);
    let cut = body.len() - "-four byte\"}}\n\n".len();
    let metered = metered(Shape::Anthropic, SSE, &body.as_bytes()[..cut], false);
    // The kind of the event stands before the text.
    assert_eq!(row(&metered.usage), plain(25, 1 + 4));
    assert!(metered.estimated);
}

#[test]
fn escapes_are_counted_as_what_they_stand_for() {
    let event = |text: &str| {
        sse(&[&format!(
            r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#
        )])
    };
    let output = |text: &str| {
        metered(Shape::Openai, SSE, event(text).as_bytes(), false)
            .usage
            .output
    };
    assert_eq!(output(r"aaaa\u4e00\u4e8c"), Some(2));
    assert_eq!(output(r#"\n\n\"\\"#), Some(1));
    assert_eq!(output("aaaaaaaa"), Some(2));
}

#[test]
fn a_stream_without_a_word_on_usage_is_estimated_although_it_ended_well() {
    let body = sse(&[
        r#"{"choices":[{"delta":{"content":"eight by"},"finish_reason":"stop"}]}"#,
        "[DONE]",
    ]);
    let stream = metered(Shape::Openai, SSE, body.as_bytes(), true);
    assert!(stream.estimated);
    assert_eq!(stream.usage.output, Some(2));
    // A whole document without usage has none: nobody wrote it just now.
    let document = r#"{"data":[{"content":"eight by"}]}"#;
    let document = metered(Shape::Openai, JSON, document.as_bytes(), true);
    assert_eq!(document, Metered::default());
}

#[test]
fn a_document_that_was_cut_is_estimated() {
    let body =
        br#"{"type":"message","model":"claude-x","content":[{"type":"text","text":"eight by"#;
    let metered = metered(Shape::Anthropic, JSON, body, false);
    assert!(metered.estimated);
    assert_eq!(metered.usage.output, Some(2));
    assert_eq!(metered.usage.model.as_deref(), Some("claude-x"));
}
