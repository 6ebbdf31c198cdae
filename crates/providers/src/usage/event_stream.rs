//! Amazon's event streams, `application/vnd.amazon.eventstream`: frames with two checksums around JSON documents.
//!
//! A frame counts when both of its checksums are right. One that is wrong ends the metering, not the relay: after it nobody knows where the
//! next frame begins, and the app's SDK will say so itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc32fast::Hasher;

use super::field::Field;
use super::skim::Skim;
use super::tally::{Extent, Tally};
use crate::Shape;

/// Total length, length of the headers, checksum of these two.
const PRELUDE_LEN: usize = 12;
/// The checksum at the end.
const TRAILER_LEN: usize = 4;
/// The SDKs' own limits for a frame: what is beyond them no app could read.
const HEADERS_MAX: usize = 128 * 1024;
const PAYLOAD_MAX: usize = 24 * 1024 * 1024;
/// Headers that are kept to be read. Three short ones are usual; the events of a frame with more are passed unread.
const HEADERS_KEPT_MAX: usize = 4 * 1024;

/// Where in a frame the reader is, and how many bytes of the part are still to come.
#[derive(Clone, Copy)]
enum Part {
    Prelude,
    Headers(usize),
    Payload(usize),
    Trailer,
    /// A checksum or a length was wrong.
    Lost,
}

/// The reader of one stream.
pub(super) struct EventStream {
    part: Part,
    /// Prelude or trailer, as far as it has come.
    fixed: [u8; PRELUDE_LEN],
    fixed_len: usize,
    checksum: Hasher,
    payload_len: usize,
    headers: Vec<u8>,
    headers_kept: bool,
    kind: Kind,
    /// The frame's document has ended.
    document: bool,
    /// For invoke streams: the event inside the event.
    inner: Option<Skim>,
    decoded: Vec<u8>,
}

/// What a frame carries, by its header `:message-type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    /// `exception` or `error`: the answer has failed, after its status said 200.
    Failure,
    Unknown,
}

impl EventStream {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            part: Part::Prelude,
            fixed: [0; PRELUDE_LEN],
            fixed_len: 0,
            checksum: Hasher::new(),
            payload_len: 0,
            headers: Vec::new(),
            headers_kept: true,
            kind: Kind::Unknown,
            document: false,
            inner: (shape == Shape::BedrockInvoke).then(|| Skim::new(shape)),
            decoded: Vec::new(),
        }
    }

    pub(super) fn feed(&mut self, piece: &[u8], skim: &mut Skim, tally: &mut Tally) {
        let mut rest = piece;
        loop {
            let used = match self.part {
                Part::Lost => return,
                // A part without bytes is over at once.
                Part::Headers(0) => self.begin_payload(),
                Part::Payload(0) => self.begin_trailer(),
                _ if rest.is_empty() => return,
                Part::Prelude => self.prelude(rest, tally),
                Part::Headers(left) => self.headers(rest, left),
                Part::Payload(left) => self.payload(rest, left, skim),
                Part::Trailer => self.trailer(rest, skim, tally),
            };
            rest = &rest[used..];
        }
    }

    /// Collects a part of fixed length. Says how many bytes it took; the part is whole when `fixed_len` is `len`.
    fn collect(&mut self, bytes: &[u8], len: usize) -> usize {
        let used = bytes.len().min(len - self.fixed_len);
        self.fixed[self.fixed_len..self.fixed_len + used].copy_from_slice(&bytes[..used]);
        self.fixed_len += used;
        used
    }

    fn prelude(&mut self, bytes: &[u8], tally: &mut Tally) -> usize {
        let used = self.collect(bytes, PRELUDE_LEN);
        if self.fixed_len < PRELUDE_LEN {
            return used;
        }
        let [total, headers, checksum] = words(&self.fixed);
        let payload = usize::try_from(total)
            .ok()
            .zip(usize::try_from(headers).ok())
            .and_then(|(total, headers)| {
                let payload = total.checked_sub(PRELUDE_LEN + TRAILER_LEN)?;
                let payload = payload.checked_sub(headers)?;
                (headers <= HEADERS_MAX && payload <= PAYLOAD_MAX).then_some((headers, payload))
            });
        match payload {
            Some((headers, payload)) if crc32fast::hash(&self.fixed[..8]) == checksum => {
                self.checksum = Hasher::new();
                self.checksum.update(&self.fixed);
                self.payload_len = payload;
                self.headers.clear();
                self.headers_kept = headers <= HEADERS_KEPT_MAX;
                self.part = Part::Headers(headers);
            }
            _ => self.lose(tally),
        }
        used
    }

    fn headers(&mut self, bytes: &[u8], left: usize) -> usize {
        let used = bytes.len().min(left);
        self.checksum.update(&bytes[..used]);
        if self.headers_kept {
            self.headers.extend_from_slice(&bytes[..used]);
        }
        self.part = Part::Headers(left - used);
        used
    }

    fn begin_payload(&mut self) -> usize {
        self.kind = if self.headers_kept {
            kind(&self.headers)
        } else {
            Kind::Unknown
        };
        self.document = false;
        self.part = Part::Payload(self.payload_len);
        0
    }

    fn payload(&mut self, bytes: &[u8], left: usize, skim: &mut Skim) -> usize {
        let used = bytes.len().min(left);
        self.checksum.update(&bytes[..used]);
        if self.kind == Kind::Event {
            // A payload is one document: what follows its end is not looked at.
            if !self.document {
                self.document = skim.feed(&bytes[..used]).1;
            }
        }
        self.part = Part::Payload(left - used);
        used
    }

    fn begin_trailer(&mut self) -> usize {
        self.fixed_len = 0;
        self.part = Part::Trailer;
        0
    }

    fn trailer(&mut self, bytes: &[u8], skim: &mut Skim, tally: &mut Tally) -> usize {
        let used = self.collect(bytes, TRAILER_LEN);
        if self.fixed_len < TRAILER_LEN {
            return used;
        }
        let [checksum, ..] = words(&self.fixed);
        let checksum_is_right = std::mem::take(&mut self.checksum).finalize() == checksum;
        if checksum_is_right {
            self.end_frame(skim, tally);
            self.fixed_len = 0;
            self.part = Part::Prelude;
        } else {
            self.lose(tally);
        }
        skim.reset();
        used
    }

    fn end_frame(&mut self, skim: &mut Skim, tally: &mut Tally) {
        match self.kind {
            Kind::Failure => tally.fail(),
            Kind::Unknown => {}
            Kind::Event => match &mut self.inner {
                None => {
                    tally.document(skim.facts(), Extent::Event);
                }
                Some(inner) => {
                    let Some(quoted) = skim.facts().last(Field::Bytes) else {
                        return;
                    };
                    // The alphabet of base64 needs no escapes in JSON; whoever escapes it anyway is not read.
                    let digits = quoted
                        .strip_prefix(b"\"")
                        .and_then(|quoted| quoted.strip_suffix(b"\""))
                        .unwrap_or_default();
                    self.decoded.clear();
                    if STANDARD.decode_vec(digits, &mut self.decoded).is_ok() {
                        inner.reset();
                        inner.feed(&self.decoded);
                        tally.document(inner.facts(), Extent::Event);
                    }
                }
            },
        }
    }

    fn lose(&mut self, tally: &mut Tally) {
        self.part = Part::Lost;
        tally.give_up();
    }
}

/// Big-endian words.
fn words(bytes: &[u8; PRELUDE_LEN]) -> [u32; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_be_bytes)
}

/// Reads `:message-type` out of a frame's headers. Headers that cannot be read carry no event.
fn kind(headers: &[u8]) -> Kind {
    let mut rest = headers;
    let mut kind = Kind::Unknown;
    while !rest.is_empty() {
        let Some((name, value, tail)) = header(rest) else {
            return Kind::Unknown;
        };
        if name == b":message-type" {
            kind = match value {
                b"event" => Kind::Event,
                b"exception" | b"error" => Kind::Failure,
                _ => Kind::Unknown,
            };
        }
        rest = tail;
    }
    kind
}

/// One header: name, value, rest.
fn header(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&name_len, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(name_len))?;
    let (&value_type, rest) = rest.split_first()?;
    let (len, rest) = match value_type {
        // true, false
        0 | 1 => (0, rest),
        // byte, short, int, long
        2 => (1, rest),
        3 => (2, rest),
        4 => (4, rest),
        5 => (8, rest),
        // bytes, string
        6 | 7 => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        // timestamp, UUID
        8 => (8, rest),
        9 => (16, rest),
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((name, value, rest))
}
