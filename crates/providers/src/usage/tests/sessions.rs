//! WebSockets: several responses in one session.

use super::*;

fn session(shape: Shape, messages: &[&str], complete: bool) -> Metered {
    let mut meter = Meter::new(shape, "", false);
    for message in messages {
        meter.document(message.as_bytes());
    }
    meter.finish(complete, &mut Vec::new())
}

#[test]
fn the_responses_of_a_realtime_session_are_added_up() {
    let metered = session(
        Shape::Openai,
        &[
            r#"{"type":"session.created","session":{"model":"gpt-realtime"}}"#,
            r#"{"type":"conversation.item.input_audio_transcription.completed","transcript":"hi","usage":{"type":"tokens","input_tokens":10,"output_tokens":2,"total_tokens":12,"input_token_details":{"audio_tokens":10}}}"#,
            r#"{"type":"response.output_audio_transcript.delta","delta":"Hello there"}"#,
            r#"{"type":"response.done","response":{"status":"completed","usage":{"total_tokens":253,"input_tokens":132,"output_tokens":121,"input_token_details":{"text_tokens":119,"audio_tokens":13,"cached_tokens":64},"output_token_details":{"audio_tokens":91}}}}"#,
            r#"{"type":"error","error":{"type":"invalid_request_error"}}"#,
            r#"{"type":"response.done","response":{"status":"cancelled","usage":{"total_tokens":11,"input_tokens":10,"output_tokens":1}}}"#,
        ],
        true,
    );
    assert_eq!(
        row(&metered.usage),
        (Some(10 + 68 + 10), Some(64), None, Some(2 + 121 + 1))
    );
    assert_eq!(metered.usage.audio_input, Some(23));
    assert_eq!(metered.usage.total, Some(276));
    assert!(!metered.estimated && !metered.failed);
}

#[test]
fn a_response_that_the_app_left_is_estimated_on_top() {
    let messages = [
        r#"{"type":"response.completed","response":{"model":"gpt-x","usage":{"input_tokens":5,"output_tokens":6}}}"#,
        r#"{"type":"response.created","response":{"usage":null}}"#,
        r#"{"type":"response.output_text.delta","delta":"eight by"}"#,
    ];
    let left = session(Shape::Openai, &messages, false);
    assert!(left.estimated);
    assert_eq!(row(&left.usage), plain(5, 8));
    let done = session(Shape::Openai, &messages[..1], false);
    assert!(!done.estimated);
    assert_eq!(row(&done.usage), plain(5, 6));
}

#[test]
fn a_failed_response_fails_the_session() {
    let failed = |message: &str| session(Shape::Openai, &[message], true).failed;
    assert!(failed(
        r#"{"type":"response.done","response":{"status":"failed"}}"#
    ));
    assert!(failed(r#"{"type":"response.failed","response":{}}"#));
    assert!(!failed(
        r#"{"type":"response.done","response":{"status":"cancelled"}}"#
    ));
}

#[test]
fn live_turns_are_added_up_wherever_their_count_stands() {
    let usage = |prompt: u64, response: u64| {
        format!(
            r#""usageMetadata":{{"promptTokenCount":{prompt},"responseTokenCount":{response},"totalTokenCount":{}}}"#,
            prompt + response
        )
    };
    let with_end = |usage: &str| format!(r#"{{"serverContent":{{"turnComplete":true}},{usage}}}"#);
    let end = r#"{"serverContent":{"turnComplete":true}}"#;
    let alone = |usage: &str| format!("{{{usage}}}");
    let (first, second) = (usage(143, 19), usage(181, 24));
    let cases = [
        vec![with_end(&first), with_end(&second)],
        vec![
            alone(&first),
            end.to_owned(),
            alone(&second),
            end.to_owned(),
        ],
        vec![
            end.to_owned(),
            alone(&first),
            end.to_owned(),
            alone(&second),
        ],
        // Twice within a turn.
        vec![
            alone(&usage(143, 7)),
            with_end(&first),
            alone(&usage(181, 2)),
            with_end(&second),
        ],
    ];
    for messages in cases {
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        let metered = session(Shape::Gemini, &messages, true);
        assert_eq!(row(&metered.usage), plain(324, 43), "{messages:?}");
    }
}

#[test]
fn a_message_that_is_no_document_is_passed_over() {
    let metered = session(
        Shape::Openai,
        &[
            "",
            "{\"type\":\"response.done\",\"response\":{\"usage\":{\"input_tokens\":1}",
            "\u{1}",
        ],
        true,
    );
    assert!(metered.usage.is_silent());
}
