//! Amazon's event streams, and the counts in headers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// A frame, with the checksums that belong to it.
fn frame(kind: &str, event: &str, payload: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":event-type", event),
        (":content-type", "application/json"),
        (":message-type", kind),
    ] {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let mut frame = Vec::new();
    let total = u32::try_from(12 + headers.len() + payload.len() + 4).unwrap();
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&u32::try_from(headers.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}

fn event(name: &str, payload: &str) -> Vec<u8> {
    frame("event", name, payload.as_bytes())
}

fn chunk(inner: &str) -> Vec<u8> {
    let digits = STANDARD.encode(inner);
    event("chunk", &format!(r#"{{"bytes":"{digits}","p":"abcdef"}}"#))
}

pub(super) fn converse() -> Vec<Vec<u8>> {
    vec![
        event("messageStart", r#"{"p":"ab","role":"assistant"}"#),
        event(
            "contentBlockDelta",
            r#"{"contentBlockIndex":0,"delta":{"text":"eight by"},"p":"abc"}"#,
        ),
        event("messageStop", r#"{"p":"a","stopReason":"end_turn"}"#),
        event(
            "metadata",
            r#"{"metrics":{"latencyMs":9},"p":"x","usage":{"inputTokens":11,"outputTokens":12,"totalTokens":1023,"cacheReadInputTokens":1000,"cacheWriteInputTokens":0}}"#,
        ),
    ]
}

#[test]
fn a_converse_stream_ends_with_its_usage() {
    let body = converse().concat();
    for complete in [true, false] {
        let metered = metered(Shape::BedrockConverse, FRAMES, &body, complete);
        assert!(!metered.estimated && !metered.failed);
        assert_eq!(
            row(&metered.usage),
            (Some(11), Some(1000), Some(0), Some(12))
        );
    }
    let left = metered(
        Shape::BedrockConverse,
        FRAMES,
        &converse()[..2].concat(),
        false,
    );
    assert!(left.estimated);
    assert_eq!(left.usage.output, Some(2));
}

#[test]
fn an_invoke_stream_is_read_through_its_base64() {
    let native = [
        chunk(r#"{"type":"message_start","message":{"model":"claude-x","usage":{"input_tokens":25,"cache_read_input_tokens":4,"output_tokens":1}}}"#),
        chunk(r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}"#),
        chunk(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}"#),
        chunk(r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":29,"outputTokenCount":15,"invocationLatency":9,"firstByteLatency":1}}"#),
    ]
    .concat();
    let claude = metered(Shape::BedrockInvoke, FRAMES, &native, true);
    assert_eq!(row(&claude.usage), (Some(25), Some(4), None, Some(15)));
    assert_eq!(claude.usage.model.as_deref(), Some("claude-x"));

    let titan = [
        chunk(r#"{"outputText":"Hi","index":0,"totalOutputTextTokenCount":null,"inputTextTokenCount":5}"#),
        chunk(r#"{"outputText":"","index":0,"completionReason":"FINISH","totalOutputTextTokenCount":7,"amazon-bedrock-invocationMetrics":{"inputTokenCount":5,"outputTokenCount":7}}"#),
    ]
    .concat();
    let titan = metered(Shape::BedrockInvoke, FRAMES, &titan, true);
    assert_eq!(row(&titan.usage), plain(5, 7));

    // A model that says nothing itself.
    let metrics = chunk(
        r#"{"amazon-bedrock-invocationMetrics":{"inputTokenCount":8,"outputTokenCount":9,"cacheReadInputTokenCount":3,"cacheWriteInputTokenCount":0}}"#,
    );
    let other = metered(Shape::BedrockInvoke, FRAMES, &metrics, true);
    assert_eq!(row(&other.usage), (Some(8), Some(3), Some(0), Some(9)));
    assert!(!other.estimated);
}

#[test]
fn bodies_of_invoke_are_read_in_the_models_own_words() {
    let cases = [
        (
            r#"{"generation":"Hi","prompt_token_count":5,"generation_token_count":7,"stop_reason":"stop"}"#,
            plain(5, 7),
        ),
        (
            r#"{"inputTextTokenCount":5,"results":[{"tokenCount":3,"outputText":"a"},{"tokenCount":4,"outputText":"b"}]}"#,
            plain(5, 7),
        ),
        (
            r#"{"output":{"message":{"content":[{"text":"Hi"}]}},"usage":{"inputTokens":5,"outputTokens":7,"cacheReadInputTokenCount":2}}"#,
            (Some(5), Some(2), None, Some(7)),
        ),
        (
            r#"{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#,
            plain(5, 7),
        ),
        (
            r#"{"type":"message","content":[],"usage":{"input_tokens":5,"output_tokens":7}}"#,
            plain(5, 7),
        ),
    ];
    for (body, wanted) in cases {
        assert_eq!(
            row(&counted(Shape::BedrockInvoke, JSON, body)),
            wanted,
            "{body}"
        );
    }
}

#[test]
fn headers_count_where_the_body_does_not() {
    let with_headers = |body: &str| {
        let mut meter = Meter::new(Shape::BedrockInvoke, JSON, false);
        meter.header("X-Amzn-Bedrock-Input-Token-Count", b"9");
        meter.header("x-amzn-bedrock-output-token-count", b"0");
        meter.header("x-amzn-bedrock-cache-read-input-token-count", b"2");
        meter.header("x-amzn-bedrock-cache-write-input-token-count", b"-2");
        run(meter, body.as_bytes(), usize::MAX, true).0
    };
    let embedding = with_headers(r#"{"embeddings":[[0.1]]}"#);
    assert_eq!(row(&embedding.usage), (Some(9), Some(2), None, Some(0)));
    assert!(!embedding.estimated);
    let native = with_headers(
        r#"{"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}"#,
    );
    assert_eq!(row(&native.usage), (Some(4), Some(1), None, Some(0)));
}

#[test]
fn an_exception_after_200_is_a_failure() {
    let mut body = converse()[..2].concat();
    body.extend(frame(
        "exception",
        "modelStreamErrorException",
        br#"{"message":"x"}"#,
    ));
    let metered = metered(Shape::BedrockConverse, FRAMES, &body, true);
    assert!(metered.failed && metered.estimated);
    assert_eq!(metered.usage.output, Some(2));
}

#[test]
fn one_wrong_bit_ends_the_metering_and_not_the_relay() {
    let frames = converse();
    let whole = frames.concat();
    let last = frames[3].len();
    let start = whole.len() - last;
    // Total length, header length, first checksum, a header, the payload, the last checksum.
    for at in [3, 7, 9, 20, last - 40, last - 1] {
        let mut body = whole.clone();
        body[start + at] ^= 1;
        let metered = metered(Shape::BedrockConverse, FRAMES, &body, true);
        assert!(metered.estimated, "{at}");
        assert_eq!(row(&metered.usage), (None, None, None, Some(2)), "{at}");
    }
}

#[test]
fn frames_beyond_the_limits_of_the_sdks_are_not_followed() {
    for (total, headers) in [
        (15_u32, 0_u32),
        (16, 1),
        (200 * 1024, 129 * 1024),
        (25 * 1024 * 1024, 0),
        (u32::MAX, u32::MAX),
    ] {
        let mut body = Vec::new();
        body.extend_from_slice(&total.to_be_bytes());
        body.extend_from_slice(&headers.to_be_bytes());
        body.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
        body.extend_from_slice(&converse().concat());
        let metered = metered(Shape::BedrockConverse, FRAMES, &body, true);
        assert!(metered.estimated && metered.usage.is_silent(), "{total}");
    }
    // The smallest frame has nothing but its checksums.
    let mut body = Vec::new();
    body.extend_from_slice(&16_u32.to_be_bytes());
    body.extend_from_slice(&0_u32.to_be_bytes());
    body.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    body.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    body.extend_from_slice(&converse().concat());
    assert!(!metered(Shape::BedrockConverse, FRAMES, &body, true).estimated);
}
