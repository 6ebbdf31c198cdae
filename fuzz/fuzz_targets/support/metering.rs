//! One meter over one body, cut into pieces.

use providers::{Meter, Metered};

/// Feeds `body` in pieces of the lengths that `cuts` gives, again and again: what was counted, and what the app got.
pub fn meter(mut meter: Meter, body: &[u8], cuts: &[u8], complete: bool) -> (Metered, Vec<u8>) {
    let (mut out, mut rest) = (Vec::new(), body);
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let len = usize::from(*cuts.next().unwrap_or(&0)).max(1);
        let (piece, tail) = rest.split_at(len.min(rest.len()));
        meter.feed(piece, &mut out);
        rest = tail;
    }
    let metered = meter.finish(complete, &mut out);
    (metered, out)
}
