//! Keys that a provider has masked already, as in its 401 bodies: `sk-proj-****…MxYA`, `xa***UQ`, `****Cr8A`, `sk-or-v1-au7...890`.
//!
//! What is left in clear there is found by its end: the last characters of the key behind a run of mask characters. Four of them are enough
//! alone; two or three only if the key's beginning stands before the run and no word goes on on either side, since "task...is" is prose.
//! A beginning without an end, as in "keys look like sk-proj-...", is no hit: that much is in every manual.

use memchr::memmem;

use super::scan::{End, Found};

/// Mask characters that make a mask; `…` counts as the three dots that it stands for.
const WEIGHT_MIN: usize = 3;
/// A run longer than the key, and than this, is a ruler and not a mask with something before it.
const RUN_MAX: usize = 64;
/// Most characters of the key's beginning that a mask leaves in clear.
const PREFIX_MAX: usize = 16;
/// Fewest of them that say anything: xAI left two.
const PREFIX_MIN: usize = 2;
/// Most characters of the key's end that a mask leaves in clear.
const SUFFIX_MAX: usize = 16;
/// Fewest of them: xAI left two.
const SUFFIX_MIN: usize = 2;
/// Fewest of them that are a hit without the key's beginning: OpenAI and DeepSeek leave four.
const SUFFIX_ALONE: usize = 4;
/// Backslashes before `u2026`, as in `form`.
const BACKSLASHES_MAX: usize = 8;

/// Whether `byte` can be part of a mask.
pub(super) fn has(byte: u8) -> bool {
    // The three bytes of `…` and of `•` among them; an escape of these is made of token characters.
    matches!(
        byte,
        b'*' | b'.' | b'x' | b'X' | b'#' | 0xe2 | 0x80 | 0xa6 | 0xa2
    )
}

/// Looks for what masks have left of one key.
pub(super) struct Masks<'a> {
    pub(super) key: &'a [u8],
    pub(super) text: &'a [u8],
    /// The text goes on a word: its first byte is not the first of a name.
    pub(super) after_word: bool,
}

/// A run of mask characters before some place.
struct Run {
    start: usize,
    /// Where its last few begin, those that make a mask.
    near: usize,
    weight: usize,
    /// It was followed to its beginning.
    whole: bool,
}

impl Masks<'_> {
    /// Records every masked key that `text` shows.
    pub(super) fn find(&self, end: End, found: &mut Found) {
        let Some(last) = self.key.len().checked_sub(SUFFIX_MIN) else {
            return;
        };
        let shortest = &self.key[last..];
        let finder = memmem::Finder::new(shortest);
        // A key that ends in `xx` seems to end at each place of a row of them: such a row is no key's end.
        let is_row = shortest.iter().all(|&byte| has(byte));
        let mut from = 0;
        while let Some(at) = finder.find(&self.text[from..]) {
            let before = self.text[..from + at].last();
            if !(is_row && before.is_some_and(|before| shortest.contains(before))) {
                self.ends_at(from + at + SUFFIX_MIN, end, found);
            }
            from += at + 1;
        }
    }

    /// The key's last characters end at `until`: is there a mask before them?
    fn ends_at(&self, until: usize, end: End, found: &mut Found) {
        let backwards = self.text[..until].iter().rev();
        let shown = backwards
            .zip(self.key.iter().rev())
            .take(SUFFIX_MAX)
            .take_while(|(text, key)| text == key)
            .count();
        for shown in SUFFIX_MIN..=shown {
            let at = until - shown;
            let run = self.run_before(at);
            if run.weight < WEIGHT_MIN {
                continue;
            }
            match (self.prefix(&run), self.text.get(until)) {
                (None, _) if shown < SUFFIX_ALONE => {}
                (None, _) => found.hit(at..until),
                (Some(start), _) if shown >= SUFFIX_ALONE => found.hit(start..until),
                (Some(_), Some(next)) if next.is_ascii_alphanumeric() => {}
                (Some(start), None) if end == End::Open => found.hold(start, start),
                (Some(start), _) => found.hit(start..until),
            }
        }
    }

    /// Records what may become a masked key when the text goes on.
    pub(super) fn open(&self, found: &mut Found) {
        let length = self.text.len();
        for shown in 0..SUFFIX_MAX.min(length) {
            let at = length - shown;
            let mask_end = if shown == 0 { self.torn_unit() } else { at };
            let run = self.run_before(mask_end);
            let enough = if shown == 0 { 1 } else { WEIGHT_MIN };
            if run.weight < enough && mask_end == at {
                continue;
            }
            if let Some(start) = self.prefix(&run) {
                if self.could_end(&self.text[at..], SUFFIX_MIN) {
                    found.hold(start, start);
                }
            } else if self.could_end(&self.text[at..], SUFFIX_ALONE) {
                // The mask itself says nothing and may go.
                found.hold(run.near, at);
            }
        }
    }

    /// Whether more can follow `shown` so that it becomes the last `min` characters of the key, or a few more.
    fn could_end(&self, shown: &[u8], min: usize) -> bool {
        let most = SUFFIX_MAX.min(self.key.len());
        (min.max(shown.len() + 1)..=most)
            .any(|count| self.key[self.key.len() - count..].starts_with(shown))
    }

    /// Where the key's beginning stands before `run`: the longest that begins a word. Not the whole key, which is no mask.
    fn prefix(&self, run: &Run) -> Option<usize> {
        let most = PREFIX_MAX.min(self.key.len() - 1).min(run.start);
        let mut starts = (PREFIX_MIN..=most).rev().map(|length| run.start - length);
        starts.find(|&start| {
            run.whole
                && self.key.starts_with(&self.text[start..run.start])
                && !self.goes_on_a_word(start)
        })
    }

    fn goes_on_a_word(&self, start: usize) -> bool {
        match start.checked_sub(1) {
            None => self.after_word,
            Some(before) => self.text[before].is_ascii_alphanumeric(),
        }
    }

    fn run_before(&self, end: usize) -> Run {
        let mut run = Run {
            start: end,
            near: end,
            weight: 0,
            whole: false,
        };
        for _ in 0..=RUN_MAX.max(self.key.len()) {
            let Some((start, weight)) = unit_before(&self.text[..run.start]) else {
                run.whole = true;
                break;
            };
            if run.weight < WEIGHT_MIN {
                run.near = start;
            }
            run.start = start;
            run.weight += weight;
        }
        run
    }

    /// Where a mask character begins whose rest has not come yet; the end of the text if there is none.
    fn torn_unit(&self) -> usize {
        let text = self.text;
        for torn in [&b"\xe2"[..], b"\xe2\x80"] {
            if text.ends_with(torn) {
                return text.len() - torn.len();
            }
        }
        (0..=4)
            .find_map(|digits| backslashes_before(text.strip_suffix(&b"u202"[..digits])?))
            .unwrap_or(text.len())
    }
}

/// Where the mask character begins that ends `text`, and what it counts.
fn unit_before(text: &[u8]) -> Option<(usize, usize)> {
    match text {
        [.., b'*' | b'.' | b'x' | b'X' | b'#'] => Some((text.len() - 1, 1)),
        [.., 0xe2, 0x80, 0xa6] => Some((text.len() - 3, WEIGHT_MIN)),
        [.., 0xe2, 0x80, 0xa2] => Some((text.len() - 3, 1)),
        [rest @ .., b'u', b'2', b'0', b'2', b'6'] => Some((backslashes_before(rest)?, WEIGHT_MIN)),
        [rest @ .., b'u', b'2', b'0', b'2', b'2'] => Some((backslashes_before(rest)?, 1)),
        _ => None,
    }
}

/// Where the backslashes begin that end `text`.
fn backslashes_before(text: &[u8]) -> Option<usize> {
    let run = text.iter().rev().take(BACKSLASHES_MAX);
    let count = run.take_while(|&&byte| byte == b'\\').count();
    (count > 0).then(|| text.len() - count)
}
