//! Server-sent events: finds the data of each event, and can take one event out of the stream without touching another byte.
//!
//! Any line end (CR, LF, CRLF), comments, several `data` lines. Nothing is delayed, except that a meter that may have to drop the usage
//! chunk holds an event until its blank line; comments between events pass at once even then, because they keep connections alive.

use super::skim::Skim;
use super::tally::{Extent, Tally, Verdict};

/// How much of an event is held while it may have to vanish. A usage chunk has less than 2 KiB; what is longer is none, and passes.
const HELD_MAX: usize = 16 * 1024;
/// The longest field name or event name that means anything, `event` and `error`, and one more to know that it is longer.
const WORD_MAX: usize = 6;

/// What a line turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Its name is still coming.
    Name,
    Comment,
    Data,
    /// An `event` field: the word is its value.
    Event,
    Other,
}

/// What became of the bytes before a line end: the LF after a CR goes the same way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passed,
    Dropped,
    /// They belong to an event that has not ended.
    Open,
}

/// The event being read.
#[derive(Clone, Copy, Default)]
struct Event {
    /// A field line has begun to come.
    has_fields: bool,
    /// Bytes since the first field.
    len: usize,
    is_error: bool,
    has_data: bool,
    /// The document has ended.
    document: bool,
    /// Something follows the document.
    trailing: bool,
}

/// The reader of one stream.
pub(super) struct Sse {
    drops: bool,
    line: Line,
    word: [u8; WORD_MAX],
    word_len: usize,
    after_cr: Option<Fate>,
    event: Event,
    held: Vec<u8>,
}

impl Sse {
    pub(super) fn new(drops: bool) -> Self {
        Self {
            drops,
            line: Line::Name,
            word: [0; WORD_MAX],
            word_len: 0,
            after_cr: None,
            event: Event::default(),
            held: Vec::new(),
        }
    }

    /// Whether an event may be taken out.
    pub(super) fn edits(&self) -> bool {
        self.drops
    }

    /// Reads a piece. Appends to `out` only when this reader edits; otherwise the caller passes the piece on.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        skim: &mut Skim,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) {
        // What is before `mark` has passed, or is held, or was dropped.
        let mut mark = 0;
        let mut at = 0;
        while at < piece.len() {
            if let Some(fate) = self.after_cr.take()
                && piece[at] == b'\n'
            {
                at += 1;
                self.pass_or_drop(fate, &piece[mark..at], &mut mark, at, out);
                continue;
            }
            let rest = &piece[at..];
            let len = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            self.content(&rest[..len], skim);
            at += len;
            if let Some(&end) = piece.get(at) {
                at += 1;
                let fate = self.end_line(skim, tally);
                self.pass_or_drop(fate, &piece[mark..at], &mut mark, at, out);
                self.after_cr = (end == b'\r').then_some(fate);
            }
        }
        self.hold(&piece[mark..], out);
    }

    /// The stream has ended: an event without its blank line counts, too.
    pub(super) fn finish(&mut self, skim: &mut Skim, tally: &mut Tally, out: &mut Vec<u8>) {
        let extent = if self.event.document {
            Extent::Event
        } else {
            Extent::Part
        };
        if self.end_event(extent, skim, tally) != Fate::Dropped {
            out.append(&mut self.held);
        }
    }

    fn pass_or_drop(
        &mut self,
        fate: Fate,
        bytes: &[u8],
        mark: &mut usize,
        at: usize,
        out: &mut Vec<u8>,
    ) {
        match fate {
            Fate::Open => return,
            Fate::Dropped => self.held.clear(),
            Fate::Passed if self.drops => {
                out.append(&mut self.held);
                out.extend_from_slice(bytes);
            }
            Fate::Passed => {}
        }
        *mark = at;
    }

    /// The end of a piece: keeps what may have to vanish, passes the rest.
    fn hold(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if !self.drops {
            return;
        }
        if self.event.has_fields && self.event.len <= HELD_MAX {
            self.held.extend_from_slice(bytes);
            return;
        }
        out.append(&mut self.held);
        out.extend_from_slice(bytes);
    }

    /// Content of the current line, or a part of it.
    fn content(&mut self, bytes: &[u8], skim: &mut Skim) {
        let mut rest = bytes;
        if self.line == Line::Name {
            let len = memchr::memchr(b':', rest).unwrap_or(rest.len());
            self.push_word(&rest[..len]);
            let ended = len < rest.len();
            rest = &rest[len + usize::from(ended)..];
            if ended {
                self.line = match &self.word[..self.word_len.min(WORD_MAX)] {
                    b"" => Line::Comment,
                    b"data" => Line::Data,
                    b"event" => Line::Event,
                    _ => Line::Other,
                };
                self.word_len = 0;
            }
        }
        if !bytes.is_empty() && self.line != Line::Comment {
            self.event.has_fields = true;
        }
        if self.event.has_fields {
            self.event.len = self.event.len.saturating_add(bytes.len());
        }
        match self.line {
            Line::Data => self.data(rest, skim),
            Line::Event => self.push_value(rest),
            Line::Name | Line::Comment | Line::Other => {}
        }
    }

    fn push_word(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().take(WORD_MAX) {
            if let Some(slot) = self.word.get_mut(self.word_len) {
                *slot = byte;
                self.word_len += 1;
            }
        }
    }

    /// The value of a field, without the blank that may begin it.
    fn push_value(&mut self, bytes: &[u8]) {
        let bytes = match bytes {
            [b' ', rest @ ..] if self.word_len == 0 => rest,
            bytes => bytes,
        };
        self.push_word(bytes);
    }

    fn data(&mut self, bytes: &[u8], skim: &mut Skim) {
        self.event.has_data = true;
        let mut rest = bytes;
        if !self.event.document {
            let (used, ended) = skim.feed(rest);
            rest = &rest[used..];
            self.event.document = ended;
        }
        self.event.trailing |= rest.iter().any(|byte| !byte.is_ascii_whitespace());
    }

    fn end_line(&mut self, skim: &mut Skim, tally: &mut Tally) -> Fate {
        let is_blank = self.line == Line::Name && self.word_len == 0;
        let fate = match self.line {
            _ if is_blank => self.end_event(Extent::Event, skim, tally),
            Line::Comment if !self.event.has_fields => Fate::Passed,
            Line::Data => {
                // Between two lines of data stands a line end, which separates numbers.
                self.data(b"\n", skim);
                Fate::Open
            }
            Line::Event => {
                self.event.is_error = self.word[..self.word_len] == *b"error";
                Fate::Open
            }
            Line::Name | Line::Comment | Line::Other => Fate::Open,
        };
        self.line = Line::Name;
        self.word_len = 0;
        fate
    }

    fn end_event(&mut self, extent: Extent, skim: &mut Skim, tally: &mut Tally) -> Fate {
        let event = std::mem::take(&mut self.event);
        if event.is_error {
            tally.fail();
        }
        let mut verdict = Verdict::default();
        if event.has_data {
            if event.document || extent == Extent::Part {
                verdict = tally.document(skim.facts(), extent);
            }
            skim.reset();
        }
        let is_alone = event.document && !event.trailing;
        if self.drops && verdict.usage_chunk && is_alone && event.len <= HELD_MAX {
            Fate::Dropped
        } else {
            Fate::Passed
        }
    }
}
