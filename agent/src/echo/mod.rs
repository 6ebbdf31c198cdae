//! The echo guard: what goes back to the app does not contain the key that went out, in whatever encoding the upstream repeats it.
//!
//! Found are, across any split into pieces: the key as it is; percent-encoded and JSON-escaped, whichever of its bytes are; in base64 and
//! base64url, alone or inside of something longer; and in hex. Every byte of a hit becomes `*` (another sign for a key that has this one), so that lengths stay what they were announced
//! to be.
//!
//! It must not be an oracle. An app can have a provider repeat what the app wrote, so whatever the guard does, with bytes or with chunks, tells
//! the app something about its guess. Only the *whole* key makes a difference, and who knows that has nothing left to learn: nothing is masked
//! for a part of it, and what is withheld between two pieces depends on the kind of characters that stand there, not on which. Masks of keys in
//! errors (`sk-proj-****MxYA`) are blanked, ours and everybody's alike ([`blank_masks`]).
//!
//! The key comes as an argument of each call, from the locked arena. It must never be kept here: no pattern, table or automaton made from it
//! outlives a call. What is kept between two pieces is the end of the text, in a buffer that is wiped.
//!
//! This is for upstreams that repeat what they got. One that wants to hand the key on to the app can always find an encoding that nobody
//! looks for; it was given the key.

use std::fmt;
use std::ops::Range;

mod alphabet;
pub mod decode;
mod form;
mod mask;
mod scan;
mod tail;
#[cfg(test)]
mod tests;

pub use mask::blank as blank_masks;
use scan::{End, Found, Needle};
use tail::Tail;

/// What may stand for a byte of the key: the first that the key does not have, so that what is masked cannot be part of another copy of it.
/// No provider's keys have any of them.
const MASKS: [u8; 4] = *b"*#~^";

/// Reads one response in passing. It holds no secret, but for what a response has just begun to repeat.
#[derive(Default)]
pub struct Guard {
    /// The end of what has come: first what went on already and is needed to judge the rest, then what is withheld.
    tail: Tail,
    /// How many bytes of `tail` went on already.
    released: usize,
    /// Hits found already that reach into what is withheld: seen without what came before them, they might not be found again.
    known: Vec<Range<usize>>,
    /// Hits that begin before this place in `tail` have been counted.
    counted: usize,
    hits: u32,
}

impl Guard {
    /// For one response.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a piece and appends what may go on to `out`: all of it, but for letters and signs at its end.
    pub fn feed(&mut self, secret: &[u8], piece: &[u8], out: &mut Vec<u8>) {
        let Some(needle) = Needle::new(secret) else {
            out.extend_from_slice(piece);
            return;
        };
        let mut rest = piece;
        if !self.tail.bytes().is_empty() {
            // No hit goes across a byte that it cannot contain: what follows that is read where it is.
            let joined = needle.goes_on(piece);
            let end = if joined < piece.len() {
                End::Broken
            } else {
                End::Open
            };
            self.tail.extend(&piece[..joined]);
            self.release(&needle, end, out);
            rest = &piece[joined..];
        }
        if !rest.is_empty() {
            let keep = self.pass(&needle, rest, End::Open, out);
            self.tail.extend(&rest[keep..]);
        }
    }

    /// Lets go of what is withheld, because the app has waited for it long enough. The rest of a key that comes slowly is masked when it comes.
    pub fn flush(&mut self, secret: &[u8], out: &mut Vec<u8>) {
        self.settle(secret, End::Paused, out);
    }

    /// The body is complete: lets go of what is withheld.
    pub fn finish(&mut self, secret: &[u8], out: &mut Vec<u8>) {
        self.settle(secret, End::Over, out);
        self.tail.clear();
        self.released = 0;
    }

    /// Whether anything is withheld.
    pub fn holding(&self) -> bool {
        self.tail.bytes().len() > self.released
    }

    /// How often the key was found.
    pub fn hits(&self) -> u32 {
        self.hits
    }

    fn settle(&mut self, secret: &[u8], end: End, out: &mut Vec<u8>) {
        if let Some(needle) = Needle::new(secret).filter(|_| self.holding()) {
            self.release(&needle, end, out);
        }
    }

    /// Judges the tail again: it has grown, or nothing more came.
    fn release(&mut self, needle: &Needle<'_>, end: End, out: &mut Vec<u8>) {
        let mut tail = std::mem::take(&mut self.tail);
        let keep = self.pass(needle, tail.bytes(), end, out);
        tail.forget(keep);
        self.tail = tail;
    }

    /// Appends to `out` what of `text` may go on, and returns from where on `text` is needed again.
    fn pass(&mut self, needle: &Needle<'_>, text: &[u8], end: End, out: &mut Vec<u8>) -> usize {
        let Found { mut hits, open } = needle.scan(text, end);
        hits.append(&mut self.known);
        self.count(&mut hits);
        let length = text.len();
        let keep = open.unwrap_or(length);
        let from = match end {
            // What a pause has released stays released.
            End::Open | End::Broken => keep.max(self.released),
            End::Paused | End::Over => length,
        };
        emit(text, self.released..from, &hits, needle.mask(), out);
        self.released = from - keep;
        self.counted = self.counted.saturating_sub(keep);
        hits.retain(|hit| hit.end > from);
        self.known = hits;
        for hit in &mut self.known {
            *hit = hit.start.saturating_sub(keep)..hit.end - keep;
        }
        keep
    }

    /// One copy may be a hit in two ways, or be seen again with more of it: it counts once.
    fn count(&mut self, hits: &mut Vec<Range<usize>>) {
        hits.sort_unstable_by_key(|hit| (hit.start, hit.end));
        hits.dedup();
        for hit in hits {
            if hit.start >= self.counted {
                self.hits = self.hits.saturating_add(1);
            }
            self.counted = self.counted.max(hit.end);
        }
    }
}

impl fmt::Debug for Guard {
    /// Without the bytes that are withheld.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("holding", &self.holding())
            .field("hits", &self.hits)
            .finish_non_exhaustive()
    }
}

/// Masks `secret` in a value that is all there: of a header field, of a WebSocket message. True if it was there.
pub fn mask_whole(secret: &[u8], value: &mut [u8]) -> bool {
    let Some(needle) = Needle::new(secret) else {
        return false;
    };
    let found = needle.scan(value, End::Over);
    for hit in &found.hits {
        value[hit.clone()].fill(needle.mask());
    }
    !found.hits.is_empty()
}

/// Appends `range` of `text`, with the hits masked.
fn emit(text: &[u8], range: Range<usize>, hits: &[Range<usize>], mask: u8, out: &mut Vec<u8>) {
    let base = out.len();
    out.extend_from_slice(&text[range.clone()]);
    for hit in hits {
        let (start, end) = (hit.start.max(range.start), hit.end.min(range.end));
        if start < end {
            out[base + start - range.start..base + end - range.start].fill(mask);
        }
    }
}
