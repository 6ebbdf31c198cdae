//! SSE, arrays and lines of JSON in passing: any cut gives the same counts and the same bytes, and the app gets all of them but for whole
//! events that hold the unwanted chunk.
#![no_main]

use libfuzzer_sys::fuzz_target;
use providers::{Meter, Shape};

#[path = "support/metering.rs"]
mod metering;
use metering::meter;

const SHAPES: [Shape; 7] = [
    Shape::Silent,
    Shape::Anthropic,
    Shape::BedrockConverse,
    Shape::BedrockInvoke,
    Shape::Cohere,
    Shape::Gemini,
    Shape::Openai,
];
const TYPES: [&str; 3] = [
    "text/event-stream",
    "application/json",
    "application/x-ndjson",
];

fuzz_target!(|input: (u8, u8, bool, bool, Vec<u8>, Vec<u8>)| {
    let (shape, content_type, drops, complete, cuts, body) = input;
    let shape = SHAPES[usize::from(shape) % SHAPES.len()];
    let content_type = TYPES[usize::from(content_type) % TYPES.len()];
    let new = || Meter::new(shape, content_type, drops);
    let whole = meter(new(), &body, &[255], complete);
    assert_eq!(whole, meter(new(), &body, &cuts, complete));
    assert_eq!(whole, meter(new(), &body, &[1], complete));
    let transparent = meter(
        Meter::new(shape, content_type, false),
        &body,
        &cuts,
        complete,
    );
    assert_eq!(transparent.1, body);
    // What is dropped is counted all the same.
    assert_eq!(transparent.0, whole.0);
    if new().is_transparent() {
        assert_eq!(whole.1, body);
    } else {
        // What is left is the body with parts taken out, in order.
        let mut rest = body.iter();
        assert!(whole.1.iter().all(|byte| rest.any(|other| other == byte)));
    }
    let mut session = Meter::new(shape, "", false);
    session.document(&body);
    session.finish(complete, &mut Vec::new());
});
