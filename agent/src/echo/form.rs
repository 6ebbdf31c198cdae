//! The forms a key can take, each as a comparison at one place of a text. None of them makes an encoded copy: they decode the text, or
//! compute the few bits of the key that the next character has to carry.

use zeroize::Zeroizing;

/// What stands at a place of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The whole key, up to here.
    Whole(usize),
    /// Nothing but the beginning of the key: the text ends after this many bytes of it.
    Cut(usize),
    /// Something else.
    No,
}

/// One form of the key.
pub(super) trait Form {
    /// What stands at `start`.
    fn at(&self, text: &[u8], start: usize) -> Step;
}

/// Characters that are looked for at once.
const ANCHOR: usize = 6;

/// A form that writes all copies of the key with the same number of characters, and most of these in one way only.
pub(super) trait Anchored: Form {
    /// How many characters a copy has.
    fn length(&self) -> usize;

    /// The character at `place`, if there is no other way to write it.
    fn certain(&self, place: usize) -> Option<u8>;

    /// Some characters that every copy has, and where they begin. From the middle on, since keys of one provider begin alike.
    fn anchor(&self) -> Option<(usize, Zeroizing<[u8; ANCHOR]>)> {
        let (middle, end) = (self.length() / 2, self.length().checked_sub(ANCHOR - 1)?);
        (middle..end).chain(0..middle).find_map(|first| {
            let mut chars = Zeroizing::new([0; ANCHOR]);
            for (offset, char) in chars.iter_mut().enumerate() {
                *char = self.certain(first + offset)?;
            }
            Some((first, chars))
        })
    }
}

/// The key as it is.
pub(super) struct Raw<'k>(pub(super) &'k [u8]);

impl Form for Raw<'_> {
    fn at(&self, text: &[u8], start: usize) -> Step {
        let there = &text[start..];
        if there.starts_with(self.0) {
            Step::Whole(start + self.0.len())
        } else if self.0.starts_with(there) {
            Step::Cut(there.len())
        } else {
            Step::No
        }
    }
}

impl Anchored for Raw<'_> {
    fn length(&self) -> usize {
        self.0.len()
    }

    fn certain(&self, place: usize) -> Option<u8> {
        Some(self.0[place])
    }
}

/// Backslashes that one escape may have: JSON in JSON in JSON doubles them each time.
const BACKSLASHES_MAX: usize = 8;
/// How often a percent sign may itself have been encoded.
const PERCENT_DEPTH: usize = 2;

/// The key as text, each byte as it is, percent-encoded (also twice), or escaped as in JSON, JavaScript and Python.
pub(super) struct Text<'k> {
    pub(super) key: &'k [u8],
    /// The text may go on: an escape at its end is one whose rest has not come, not a sign that is only itself.
    pub(super) goes_on: bool,
}

impl Text<'_> {
    /// Most characters that one byte of the key can take.
    pub(super) const UNIT_MAX: usize = BACKSLASHES_MAX + 5;
}

impl Form for Text<'_> {
    fn at(&self, text: &[u8], start: usize) -> Step {
        let mut at = start;
        for (matched, &want) in self.key.iter().enumerate() {
            match unit(text, at, want, self.goes_on) {
                Unit::Next(next) => at = next,
                Unit::Cut => return Step::Cut(matched),
                Unit::No => return Step::No,
            }
        }
        Step::Whole(at)
    }
}

enum Unit {
    Next(usize),
    Cut,
    No,
}

fn unit(text: &[u8], at: usize, want: u8, goes_on: bool) -> Unit {
    let Some(&byte) = text.get(at) else {
        return Unit::Cut;
    };
    let escaped = match byte {
        b'%' => percent(text, at, want),
        b'\\' => backslashes(text, at, want),
        _ => Unit::No,
    };
    match escaped {
        Unit::No if byte == want => Unit::Next(at + 1),
        Unit::Cut if byte == want && !goes_on => Unit::Next(at + 1),
        escaped => escaped,
    }
}

/// `%2d`, `%252D`.
fn percent(text: &[u8], at: usize, want: u8) -> Unit {
    let mut at = at + 1;
    for _ in 0..=PERCENT_DEPTH {
        match digits(text, at, 2, want) {
            Unit::No => {}
            found => return found,
        }
        match digits(text, at, 2, b'%') {
            Unit::Next(next) => at = next,
            other => return other,
        }
    }
    Unit::No
}

/// `\u002d`, `\x2d`, `\/`, `\"`, `\\`, each with its backslash doubled any number of times.
fn backslashes(text: &[u8], at: usize, want: u8) -> Unit {
    let run = text[at..].iter().take(BACKSLASHES_MAX);
    let count = run.take_while(|&&byte| byte == b'\\').count();
    match (text.get(at + count), want) {
        (_, b'\\') if count > 1 => Unit::Next(at + 2),
        (None, _) => Unit::Cut,
        (Some(b'u'), _) => digits(text, at + count + 1, 4, want),
        (Some(b'x'), _) => digits(text, at + count + 1, 2, want),
        (Some(&byte), b'/' | b'"' | b'\'') if byte == want => Unit::Next(at + count + 1),
        (Some(_), _) => Unit::No,
    }
}

/// The hex digits of `want`, in either case.
fn digits(text: &[u8], at: usize, count: usize, want: u8) -> Unit {
    for digit in 0..count {
        let place = 4 * (count - 1 - digit);
        match text.get(at + digit) {
            None => return Unit::Cut,
            Some(&byte) if nibble(byte) == Some((u32::from(want) >> place) as u8 & 0xf) => {}
            Some(_) => return Unit::No,
        }
    }
    Unit::Next(at + count)
}

fn nibble(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// The key in hex digits of either case.
pub(super) struct Hex<'k>(pub(super) &'k [u8]);

impl Form for Hex<'_> {
    fn at(&self, text: &[u8], start: usize) -> Step {
        for (matched, &want) in self.0.iter().enumerate() {
            match digits(text, start + 2 * matched, 2, want) {
                Unit::Next(_) => {}
                Unit::Cut => return Step::Cut(matched),
                Unit::No => return Step::No,
            }
        }
        Step::Whole(start + 2 * self.0.len())
    }
}

impl Anchored for Hex<'_> {
    fn length(&self) -> usize {
        2 * self.0.len()
    }

    fn certain(&self, place: usize) -> Option<u8> {
        let nibble = self.0[place / 2] >> (4 * (1 - place % 2)) & 0xf;
        (nibble < 10).then_some(b'0' + nibble)
    }
}
const NOT_BASE64: u8 = 0xff;

/// The six bits of each character of base64 and base64url.
static SEXTETS: [u8; 256] = {
    let mut table = [NOT_BASE64; 256];
    let mut value = 0;
    while value < 62 {
        table[sextet_char(value) as usize] = value;
        value += 1;
    }
    table[b'+' as usize] = 62;
    table[b'-' as usize] = 62;
    table[b'/' as usize] = 63;
    table[b'_' as usize] = 63;
    table
};

/// The character of a value that both alphabets write the same.
const fn sextet_char(value: u8) -> u8 {
    match value {
        0..26 => b'A' + value,
        26..52 => b'a' + value - 26,
        _ => b'0' + value - 52,
    }
}

/// The key inside of something in base64 or base64url, at one of the three alignments.
pub(super) struct Base64<'k> {
    key: &'k [u8],
    /// Bits in the first character that belong to what stands before the key.
    lead: usize,
    symbols: usize,
}

impl<'k> Base64<'k> {
    /// The three alignments, by the bits in the first character that are not the key's.
    pub(super) const LEADS: [usize; 3] = [0, 2, 4];

    pub(super) fn new(key: &'k [u8], lead: usize) -> Self {
        Self {
            key,
            lead,
            symbols: (8 * key.len() + lead).div_ceil(6),
        }
    }

    /// The bits of the key in character `symbol`, and which bits these are.
    fn sextet(&self, symbol: usize) -> (u8, u8) {
        // Counted from one byte before the key, so that the lead is not negative.
        let bit = 6 * symbol + 8 - self.lead;
        let byte = |index: usize| {
            let byte = index.checked_sub(1).and_then(|index| self.key.get(index));
            byte.map_or(0, |&byte| u32::from(byte) << 8 | 0xff)
        };
        // Two bytes of the key above two bytes that say which of them exist.
        let (high, low) = (byte(bit / 8), byte(bit / 8 + 1));
        let shift = 10 - bit % 8;
        let bits = ((high & 0xff00) | (low >> 8)) >> shift;
        let known = ((high & 0xff) << 8 | (low & 0xff)) >> shift;
        (bits as u8 & 0x3f, known as u8 & 0x3f)
    }
}

impl Anchored for Base64<'_> {
    fn length(&self) -> usize {
        self.symbols
    }

    fn certain(&self, place: usize) -> Option<u8> {
        match self.sextet(place) {
            (bits @ 0..62, 0x3f) => Some(sextet_char(bits)),
            _ => None,
        }
    }
}

impl Form for Base64<'_> {
    fn at(&self, text: &[u8], start: usize) -> Step {
        for symbol in 0..self.symbols {
            let Some(&byte) = text.get(start + symbol) else {
                return Step::Cut(symbol * 6 / 8);
            };
            let value = SEXTETS[usize::from(byte)];
            let (bits, known) = self.sextet(symbol);
            if value == NOT_BASE64 || value & known != bits & known {
                return Step::No;
            }
        }
        Step::Whole(start + self.symbols)
    }
}
