//! A case per API, each fed whole, in pieces, and byte by byte; and properties over all ways to cut and to spoil.
#![allow(clippy::unwrap_used)]

mod bedrock;
mod broken_off;
mod documents;
mod properties;
mod sessions;
mod streams;
mod unwanted_chunk;

use super::{Meter, Metered, Usage};
use crate::Shape;

pub(super) const JSON: &str = "application/json; charset=utf-8";
pub(super) const SSE: &str = "text/event-stream; charset=utf-8";
pub(super) const FRAMES: &str = "application/vnd.amazon.eventstream";

/// One meter over one body, cut into pieces of `len` bytes.
fn run(meter: Meter, body: &[u8], len: usize, complete: bool) -> (Metered, Vec<u8>) {
    let (mut meter, mut out) = (meter, Vec::new());
    for piece in body.chunks(len.max(1)) {
        meter.feed(piece, &mut out);
    }
    let metered = meter.finish(complete, &mut out);
    (metered, out)
}

/// Meters `body` in several cuts, which must agree; the app must get every byte.
pub(super) fn metered(shape: Shape, content_type: &str, body: &[u8], complete: bool) -> Metered {
    let new = || Meter::new(shape, content_type, false);
    let (whole, out) = run(new(), body, usize::MAX, complete);
    assert_eq!(out, body);
    for len in [1, 2, 7, 64] {
        assert_eq!(
            run(new(), body, len, complete),
            (whole.clone(), out.clone())
        );
    }
    whole
}

/// The same, where the provider has said everything.
pub(super) fn counted(shape: Shape, content_type: &str, body: &str) -> Usage {
    let metered = metered(shape, content_type, body.as_bytes(), true);
    assert!(!metered.estimated && !metered.failed, "{metered:?}");
    metered.usage
}

/// Input, cache read, cache write, output.
pub(super) type Row = (Option<u64>, Option<u64>, Option<u64>, Option<u64>);

pub(super) fn row(usage: &Usage) -> Row {
    (
        usage.input,
        usage.cache_read,
        usage.cache_write,
        usage.output,
    )
}

/// A row without caches.
pub(super) fn plain(input: u64, output: u64) -> Row {
    (Some(input), None, None, Some(output))
}

/// Events as `data` lines.
pub(super) fn sse(events: &[&str]) -> String {
    events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect()
}
