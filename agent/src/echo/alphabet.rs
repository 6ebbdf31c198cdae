//! Which bytes a copy of a key can consist of, and the long runs of such bytes. Nothing here knows a key.
//!
//! A copy of a key, however encoded, is one run of letters, digits and a few signs that is at least as long as the key. Ordinary text breaks
//! after every word, so that looking backwards from where such a run would have to end skips most of it unread.

use std::ops::Range;

/// A set of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signs {
    /// What keys of every known provider, and every encoding of them, are made of.
    Usual,
    /// All that a header can carry of a credential: for an operator's own provider with other signs in its keys.
    Visible,
}

/// Bytes that are judged at once, without a branch, when a run is followed.
const STRIDE: usize = 16;

/// The set as arithmetic that compiles to vector instructions: [`Signs::Usual`].
const fn is_usual(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    // `-`, `.`, `/` and the digits stand together.
    let digit = byte.wrapping_sub(b'-') < 13;
    letter
        | digit
        | (byte == b'%')
        | (byte == b'+')
        | (byte == b'=')
        | (byte == b'\\')
        | (byte == b'_')
        | (byte == b'~')
}

/// The same as a table, for single bytes.
static USUAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_usual(byte as u8);
        byte += 1;
    }
    table
};

impl Signs {
    /// The smallest set for copies of `key`.
    pub(super) fn of(key: &[u8]) -> Self {
        if Self::Usual.run_end(key, 0) == key.len() {
            Self::Usual
        } else {
            Self::Visible
        }
    }

    /// Whether `byte` is in the set.
    pub(super) fn has(self, byte: u8) -> bool {
        match self {
            Self::Usual => USUAL[usize::from(byte)],
            Self::Visible => byte.is_ascii_graphic(),
        }
    }

    /// The next run of at least `min` bytes of this set that begins at or after `from`, whole.
    pub(super) fn long_run(self, text: &[u8], from: usize, min: usize) -> Option<Range<usize>> {
        let mut start = from;
        loop {
            let window = text.get(start..start.checked_add(min)?)?;
            match window.iter().rposition(|&byte| !self.has(byte)) {
                Some(gap) => start += gap + 1,
                None => return Some(start..self.run_end(text, start + min)),
            }
        }
    }

    /// Where the run that `text[from..]` continues ends.
    pub(super) fn run_end(self, text: &[u8], from: usize) -> usize {
        let strides = text[from..].chunks_exact(STRIDE);
        let whole = match self {
            Self::Usual => strides.take_while(|stride| all(stride, is_usual)).count(),
            Self::Visible => strides
                .take_while(|stride| all(stride, |byte| byte.wrapping_sub(b'!') < 94))
                .count(),
        };
        let at = from + whole * STRIDE;
        let rest = text[at..].iter().take_while(|&&byte| self.has(byte));
        at + rest.count()
    }

    /// Where the run that ends `text` begins; at most `max` bytes are looked at.
    pub(super) fn last_run(self, text: &[u8], max: usize) -> usize {
        let run = text.iter().rev().take(max);
        text.len() - run.take_while(|&&byte| self.has(byte)).count()
    }
}

/// Whether all bytes are in a set, without leaving early.
#[inline(always)]
fn all(bytes: &[u8], has: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, &byte| all & has(byte))
}
