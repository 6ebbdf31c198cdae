//! Over all ways to cut an answer and to spoil it: the same counts, the same bytes, and never a panic.

use proptest::prelude::*;

use super::*;

const SHAPES: [Shape; 7] = [
    Shape::Silent,
    Shape::Anthropic,
    Shape::BedrockConverse,
    Shape::BedrockInvoke,
    Shape::Cohere,
    Shape::Gemini,
    Shape::Openai,
];
const TYPES: [&str; 4] = [JSON, SSE, FRAMES, "application/x-ndjson"];

/// Pieces that answers are made of, so that random sequences reach deep.
const WORDS: [&str; 40] = [
    "data: ",
    "data:",
    "event: error",
    ": comment",
    "\n",
    "\n\n",
    "\r",
    "\r\n\r\n",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u00",
    "null",
    "17",
    " ",
    "\"choices\":[]",
    "\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]",
    "\"finish_reason\":\"stop\"",
    "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}",
    "\"usage\":null",
    "\"usage\":{\"input_tokens\":5,\"output_tokens\":7}",
    "\"usageMetadata\":{\"promptTokenCount\":5}",
    "\"type\":\"message_delta\"",
    "\"type\":\"response.completed\"",
    "\"response\":{",
    "\"message\":{",
    "\"delta\":{",
    "\"delta\":\"text\"",
    "\"text\":\"a b\"",
    "\"model\":\"m\"",
    "\"error\":{}",
    "\"meta\":{\"billed_units\":{\"input_tokens\":1}}",
    "\"prompt_token_count\":3",
    "\"bytes\":\"e30=\"",
    "é",
];

fn body() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::collection::vec(prop::sample::select(&WORDS[..]), 0..60)
        .prop_map(|words| words.concat().into_bytes());
    let noise = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![4 => words, 1 => noise]
}

/// Feeds `body` in pieces of these lengths, again and again.
fn cut(mut meter: Meter, body: &[u8], lens: &[usize], complete: bool) -> (Metered, Vec<u8>) {
    let (mut out, mut rest) = (Vec::new(), body);
    let mut lens = lens.iter().cycle();
    while !rest.is_empty() {
        let len = lens.next().map_or(rest.len(), |len| *len.min(&rest.len()));
        meter.feed(&rest[..len], &mut out);
        rest = &rest[len..];
    }
    let metered = meter.finish(complete, &mut out);
    (metered, out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_cut_gives_the_same_counts_and_the_same_bytes(
        body in body(),
        lens in prop::collection::vec(1_usize..9, 1..8),
        shape in prop::sample::select(&SHAPES[..]),
        content_type in prop::sample::select(&TYPES[..]),
        drops: bool,
        complete: bool,
    ) {
        let new = || Meter::new(shape, content_type, drops);
        let whole = cut(new(), &body, &[usize::MAX], complete);
        prop_assert_eq!(&cut(new(), &body, &lens, complete), &whole);
        if new().is_transparent() {
            prop_assert_eq!(&whole.1, &body);
        }
        prop_assert!(whole.1.len() <= body.len());
    }

    #[test]
    fn a_spoiled_event_stream_never_gives_a_wrong_count(
        at in 0_usize..400,
        bit in 0_u8..8,
        lens in prop::collection::vec(1_usize..90, 1..8),
    ) {
        let mut body = super::bedrock::converse().concat();
        let at = at % body.len();
        body[at] ^= 1 << bit;
        let new = || Meter::new(Shape::BedrockConverse, FRAMES, false);
        let (metered, out) = cut(new(), &body, &lens, true);
        prop_assert_eq!(&out, &body);
        prop_assert!(metered.estimated);
        prop_assert!(matches!(metered.usage.output, None | Some(2)));
        prop_assert_eq!(cut(new(), &body, &[usize::MAX], true).0, metered);
    }

    #[test]
    fn messages_of_a_session_never_panic(messages in prop::collection::vec(body(), 0..6), shape in prop::sample::select(&SHAPES[..])) {
        let mut meter = Meter::new(shape, "", false);
        for message in &messages {
            meter.document(message);
        }
        meter.finish(false, &mut Vec::new());
    }
}
