//! The chunk that is only there because Tacit asked for it vanishes, and nothing else changes.

use super::*;

const TEXT: &str = r#"{"choices":[{"delta":{"content":"Hi"}}],"usage":null}"#;
const CHUNK: &str = r#"{"choices":[],"usage":{"prompt_tokens":19,"completion_tokens":1}}"#;

/// What the app gets, which must not depend on the cut.
fn passed(shape: Shape, content_type: &str, body: &str) -> (Metered, String) {
    let new = || Meter::new(shape, content_type, true);
    let whole = run(new(), body.as_bytes(), usize::MAX, true);
    for len in [1, 2, 3, 7, 64] {
        assert_eq!(run(new(), body.as_bytes(), len, true), whole, "{len}");
    }
    (whole.0, String::from_utf8(whole.1).unwrap())
}

#[test]
fn the_chunk_vanishes_with_its_lines() {
    for end in ["\n", "\r\n", "\r"] {
        let before = format!(": hello{end}{end}event: x{end}data: {TEXT}{end}{end}");
        let after = format!(": bye{end}data: [DONE]{end}{end}");
        for chunk in [
            format!("data: {CHUNK}{end}{end}"),
            format!("id: 9{end}data:{CHUNK}{end}retry: 5{end}{end}"),
            format!(
                "data: {}{end}data: {}{end}{end}",
                &CHUNK[..12],
                &CHUNK[12..]
            ),
        ] {
            let (metered, out) = passed(Shape::Openai, SSE, &format!("{before}{chunk}{after}"));
            assert_eq!(out, format!("{before}{after}"), "{}", chunk.escape_debug());
            assert_eq!(row(&metered.usage), plain(19, 1));
        }
    }
    // The stream may end with it, even without the blank line.
    for end in ["", "\n", "\n\n"] {
        let (_, out) = passed(
            Shape::Openai,
            SSE,
            &format!("data: {TEXT}\n\ndata: {CHUNK}{end}"),
        );
        assert_eq!(out, format!("data: {TEXT}\n\n"));
    }
}

#[test]
fn its_nearest_neighbours_stay() {
    let long = format!(
        r#"{{"choices":[],"usage":{{"prompt_tokens":1}},"x":"{}"}}"#,
        "x".repeat(17 * 1024)
    );
    let neighbours = [
        // Azure's first chunk.
        r#"{"choices":[],"prompt_filter_results":[]}"#,
        r#"{"choices":[],"usage":null}"#,
        r#"{"choices":[],"usage":{}}"#,
        r#"{"choices":[0],"usage":{"prompt_tokens":1}}"#,
        r#"{"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":1},"error":{"message":"x"}}"#,
        r#"{"usage":{"prompt_tokens":1}}"#,
        r#"{"x":{"choices":[],"usage":{"prompt_tokens":1}}}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":1}} and more"#,
        r#"{"choices":[],"usage":{"prompt_tokens":1}"#,
        r#"[{"choices":[],"usage":{"prompt_tokens":1}}]"#,
        r#"{"choices":[],"usage":{"prompt_tokens":1}}{}"#,
        &long,
        "[DONE]",
        "",
    ];
    for event in neighbours {
        let body = format!("data: {TEXT}\n\ndata: {event}\n\ndata: {TEXT}\n\n");
        assert_eq!(passed(Shape::Openai, SSE, &body).1, body, "{event}");
    }
}

#[test]
fn other_shapes_and_documents_are_not_edited() {
    let body = format!("data: {CHUNK}\n\n");
    assert_eq!(passed(Shape::Anthropic, SSE, &body).1, body);
    assert_eq!(passed(Shape::Openai, JSON, CHUNK).1, CHUNK);
    assert!(Meter::new(Shape::Openai, JSON, true).is_transparent());
    assert!(Meter::new(Shape::Openai, SSE, false).is_transparent());
    assert!(!Meter::new(Shape::Openai, SSE, true).is_transparent());
}

#[test]
fn nothing_is_held_but_an_event_that_has_begun() {
    let mut meter = Meter::new(Shape::Openai, SSE, true);
    let mut out = Vec::new();
    let mut step = |piece: &str| {
        out.clear();
        meter.feed(piece.as_bytes(), &mut out);
        String::from_utf8(out.clone()).unwrap()
    };
    assert_eq!(step(": keep"), ": keep");
    assert_eq!(step("-alive\n\n"), "-alive\n\n");
    assert_eq!(step("data: {\"choices\""), "");
    assert_eq!(step(":[1]}\n"), "");
    assert_eq!(step("\n"), "data: {\"choices\":[1]}\n\n");
    assert_eq!(step(&format!("data: {CHUNK}\n\n")), "");
    // Too long to be the chunk: it flows.
    let long = format!("data: {}", "x".repeat(HELD));
    assert_eq!(step(&long), long);
    assert_eq!(step("y"), "y");
}

/// More than is held.
const HELD: usize = 17 * 1024;
