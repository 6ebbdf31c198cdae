//! A walk over JSON that flows by: keeps the few values that were asked for, counts the model's text, and forgets the rest.
//!
//! It does not validate. Broken JSON gives no facts, or wrong ones about a document that nobody can read anyway; it never panics, never
//! looks at a byte twice, and gives the same facts however the bytes are cut.

use super::facts::Facts;
use super::field::{Field, Key};
use crate::Shape;

/// How deep paths are known; the longest that means anything is 5, in an array.
const PATH_MAX: usize = 8;
/// A length that no name with a meaning has.
const NAME_TOO_LONG: usize = Key::LEN_MAX + 1;

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Outside of strings.
    Between,
    /// In a string that is a name, or an element of an array.
    Name,
    NameEscape,
    /// In a string that is the value of a name.
    Text,
    TextEscape,
}

/// A value being kept.
struct Capture {
    field: Field,
    /// Where it begins in the kept bytes.
    from: usize,
    /// The depth at which it stands.
    depth: usize,
    /// A number or word, which ends with whatever cannot belong to it.
    bare: bool,
    /// It is longer than what is kept. It goes on to its end all the same, or what stands within it would count in some cuts only.
    lost: bool,
}

/// The walk. One per stream; [`Skim::reset`] begins anew and keeps the buffers.
pub(super) struct Skim {
    shape: Shape,
    state: State,
    depth: usize,
    /// The depth at which documents stand: 1 in an array of them.
    base: usize,
    path: [Key; PATH_MAX],
    name: [u8; Key::LEN_MAX],
    /// Length of the name so far; [`NAME_TOO_LONG`] when it cannot mean anything.
    name_len: usize,
    /// A name has ended and its colon may come.
    named: bool,
    /// The name whose value comes next, right after a colon.
    value_of: Option<Key>,
    /// What that value is.
    wanted: Option<Field>,
    capture: Option<Capture>,
    /// The text being read is the model's.
    writing: bool,
    facts: Facts,
}

/// Bytes that mean nothing outside of strings: all but quotes, brackets, colons. (Commas and blanks end a bare value, which is looked at
/// byte by byte.)
const BORING: [bool; 256] = {
    let mut table = [true; 256];
    let structural = *b"\"{}[]:";
    let mut at = 0;
    while at < structural.len() {
        table[structural[at] as usize] = false;
        at += 1;
    }
    table
};

impl Skim {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            state: State::Between,
            depth: 0,
            base: 0,
            path: [Key::None; PATH_MAX],
            name: [0; Key::LEN_MAX],
            name_len: 0,
            named: false,
            value_of: None,
            wanted: None,
            capture: None,
            writing: false,
            facts: Facts::default(),
        }
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether the document that has just ended is an element of an array.
    pub(super) fn is_in_array(&self) -> bool {
        self.base > 0
    }

    /// Forgets the facts of a document; the next one follows in the same stream.
    pub(super) fn next_document(&mut self) {
        self.facts.clear();
        self.capture = None;
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.next_document();
        self.state = State::Between;
        self.depth = 0;
        self.base = 0;
        self.named = false;
        self.value_of = None;
        self.wanted = None;
    }

    /// Walks over `piece`, up to the end of a document at most. Returns how many bytes that were, and whether a document ended.
    pub(super) fn feed(&mut self, piece: &[u8]) -> (usize, bool) {
        let mut at = 0;
        // Where the bytes of the current capture begin in this piece.
        let mut from = 0;
        let mut ended = false;
        while at < piece.len() && !ended {
            match self.state {
                State::Between => {
                    if self.value_of.is_none() && !self.is_in_bare_value() {
                        at += piece[at..]
                            .iter()
                            .position(|byte| !BORING[usize::from(*byte)])
                            .unwrap_or(piece.len() - at);
                        if at == piece.len() {
                            break;
                        }
                    }
                    ended = self.step(piece, &mut at, &mut from);
                }
                State::Name => at += self.name(&piece[at..]),
                State::Text => {
                    at += self.text(&piece[at..]);
                    if self.state == State::Between {
                        self.end_capture_at(self.depth, &piece[from..at]);
                    }
                }
                State::NameEscape => {
                    self.state = State::Name;
                    at += 1;
                }
                State::TextEscape => {
                    // `\n` is one byte; `\u00e9` is two and `\u4e00` three: four digits follow, which must not be counted again.
                    if self.writing {
                        let unicode = piece[at] == b'u';
                        self.facts.text = if unicode {
                            self.facts.text.saturating_sub(2)
                        } else {
                            self.facts.text.saturating_add(1)
                        };
                    }
                    self.state = State::Text;
                    at += 1;
                }
            }
        }
        if self.capture.is_some() {
            self.copy(&piece[from..at]);
        }
        (at, ended)
    }

    fn is_in_bare_value(&self) -> bool {
        self.capture.as_ref().is_some_and(|capture| capture.bare)
    }

    /// One byte outside of strings. Says whether a document ended with it.
    fn step(&mut self, piece: &[u8], at: &mut usize, from: &mut usize) -> bool {
        let byte = piece[*at];
        match byte {
            b'"' => self.open_string(*at, from),
            b':' => self.colon(),
            b'{' | b'[' => self.open(byte, *at, from),
            b'}' | b']' => {
                self.end_bare(&piece[*from..*at]);
                *at += 1;
                return self.close(&piece[*from..*at]);
            }
            b',' | b' ' | b'\t' | b'\r' | b'\n' => self.end_bare(&piece[*from..*at]),
            _ => {
                if self.value_of.take().is_some() {
                    self.begin_capture(true, *at, from);
                }
            }
        }
        *at += 1;
        false
    }

    fn open_string(&mut self, at: usize, from: &mut usize) {
        match self.value_of.take() {
            Some(key) => {
                self.state = State::Text;
                self.writing = key.is_writing();
                self.facts.finished |= key == Key::Finish;
                self.begin_capture(false, at, from);
            }
            None => {
                self.state = State::Name;
                self.name_len = 0;
                self.named = false;
            }
        }
    }

    fn colon(&mut self) {
        if !std::mem::take(&mut self.named) || self.depth == 0 {
            return;
        }
        let key = match self.name.get(..self.name_len) {
            Some(name) => Key::of(name),
            None => Key::Other,
        };
        self.value_of = Some(key);
        self.wanted = None;
        if self.depth <= PATH_MAX {
            self.path[self.depth - 1] = key;
            if self.capture.is_none() && key != Key::Other && self.depth > self.base {
                self.wanted = Field::at(self.shape, &self.path[self.base..self.depth]);
            }
        }
    }

    fn open(&mut self, byte: u8, at: usize, from: &mut usize) {
        self.named = false;
        if self.value_of.take().is_some() {
            self.begin_capture(false, at, from);
        }
        if self.depth == 0 {
            self.base = usize::from(byte == b'[');
        }
        self.depth = self.depth.saturating_add(1);
        if let Some(key) = self.path.get_mut(self.depth - 1) {
            *key = Key::None;
        }
    }

    /// `value` is what this piece has of the current capture.
    fn close(&mut self, value: &[u8]) -> bool {
        self.named = false;
        self.value_of = None;
        if self.depth == 0 {
            return false;
        }
        self.depth -= 1;
        self.end_capture_at(self.depth, value);
        if self.depth == 0 && self.base == 1 {
            self.base = 0;
            return false;
        }
        self.depth == self.base
    }

    /// A name or an element: reads on to its end, or to the end of the piece.
    fn name(&mut self, piece: &[u8]) -> usize {
        let found = piece.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        let len = found.unwrap_or(piece.len());
        // A name that would not fit is as long as one that means nothing.
        let name = self.name.get_mut(self.name_len..self.name_len + len);
        if let Some(name) = name {
            name.copy_from_slice(&piece[..len]);
        }
        self.name_len = (self.name_len + len).min(NAME_TOO_LONG);
        match found {
            Some(at) if piece[at] == b'"' => {
                self.state = State::Between;
                self.named = true;
            }
            Some(_) => {
                self.state = State::NameEscape;
                self.name_len = NAME_TOO_LONG;
            }
            None => {}
        }
        found.map_or(len, |at| at + 1)
    }

    /// The text of a value: reads on to its end, to an escape, or to the end of the piece.
    fn text(&mut self, piece: &[u8]) -> usize {
        let found = memchr::memchr2(b'"', b'\\', piece);
        let len = found.unwrap_or(piece.len());
        if self.writing {
            self.facts.text = self.facts.text.saturating_add(len as u64);
        }
        match found {
            Some(at) if piece[at] == b'"' => self.state = State::Between,
            Some(_) => self.state = State::TextEscape,
            None => {}
        }
        found.map_or(len, |at| at + 1)
    }

    fn begin_capture(&mut self, bare: bool, at: usize, from: &mut usize) {
        if let (Some(field), None) = (self.wanted.take(), &self.capture) {
            *from = at;
            self.capture = Some(Capture {
                field,
                from: self.facts.end(),
                depth: self.depth,
                bare,
                lost: false,
            });
        }
    }

    fn end_bare(&mut self, value: &[u8]) {
        if self.is_in_bare_value() {
            self.end_capture_at(self.depth, value);
        }
    }

    fn end_capture_at(&mut self, depth: usize, value: &[u8]) {
        if self.capture.as_ref().is_none_or(|c| c.depth != depth) {
            return;
        }
        self.copy(value);
        if let Some(capture) = self.capture.take()
            && !capture.lost
        {
            self.facts.keep(capture.field, capture.from);
        }
    }

    /// Copies more of the current capture, or gives it up when it is too long.
    fn copy(&mut self, value: &[u8]) {
        if let Some(capture) = &mut self.capture
            && !capture.lost
        {
            capture.lost = !self.facts.append(capture.field, capture.from, value);
        }
    }
}
