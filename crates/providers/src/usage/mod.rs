//! What a call used, read from the answer in passing.
//!
//! A [`Meter`] is a pure push machine: it takes the answer's body in whatever pieces the network gives, hands on what the app gets, and at
//! the end says what the provider counted. It never delays a byte, but for one event of a chat stream at a time when that event may have to
//! vanish; it never holds more than named bounds, whatever comes; and nothing that an upstream sends can stop the relay: an answer that
//! cannot be read is passed on as it is, and its usage is unknown or estimated.
//!
//! The document itself is never held. [`skim::Skim`] walks over JSON as it flows by and keeps the few values that are asked for *by their
//! path*, so that a six-megabyte list of embeddings, a picture in base64 or a `response.completed` that repeats everything cost no memory,
//! and so that a tool schema or an echoed `metadata` object with a field `usage` is not taken for the bill. (Searching the tail of an
//! answer for `"usage"` would be fooled by both.)

mod count;
mod event_stream;
mod facts;
mod field;
mod read;
mod skim;
mod sse;
mod tally;
#[cfg(test)]
mod tests;

use event_stream::EventStream;
use skim::Skim;
use sse::Sse;
use tally::{Extent, Tally};

use crate::Shape;

/// Tokens as the provider counted them; `None` is "not said", `Some(0)` is zero.
///
/// One normal form for all providers: `input` excludes `cache_read` and `cache_write`, so that the three kinds add up; `output` includes
/// `reasoning`. What is "of which" is contained in another field and not to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input that was read afresh.
    pub input: Option<u64>,
    /// Everything that the model wrote, thoughts included.
    pub output: Option<u64>,
    /// Input that came from a cache.
    pub cache_read: Option<u64>,
    /// Input that was written into a cache.
    pub cache_write: Option<u64>,
    /// Of which, of `cache_write`: what is kept for an hour or longer, at a higher price.
    pub cache_write_long: Option<u64>,
    /// Of which, of `output`: thoughts.
    pub reasoning: Option<u64>,
    /// The provider's own sum, as said.
    pub total: Option<u64>,
    /// Of which, of the input kinds: audio.
    pub audio_input: Option<u64>,
    /// Of which, of `output`: audio.
    pub audio_output: Option<u64>,
    /// Of which, of the input kinds: pictures.
    pub image_input: Option<u64>,
    /// Of which, of `output`: pictures.
    pub image_output: Option<u64>,
    /// Audio that is billed by its length, in milliseconds.
    pub audio_ms: Option<u64>,
    /// Web searches, or Cohere's search units.
    pub searches: Option<u64>,
    /// What the provider says that the call cost, in 1e-12 USD. Better than any price table.
    pub cost_picousd: Option<u64>,
    /// The model that answered, by its own name. Bytes from the wire: never a metric's label.
    pub model: Option<String>,
}

/// What is known when an answer has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// The counts.
    pub usage: Usage,
    /// The counts are ours in part: the stream broke off, or the provider did not say. See [`Meter::finish`].
    pub estimated: bool,
    /// The answer said in its body that it failed, though its status was 200.
    pub failed: bool,
}

/// Reads a response in passing. Memory is bounded whatever comes: a few hundred KiB for one of Bedrock's event streams, a tenth of it for anything
/// else, and a few hundred bytes for an ordinary answer.
pub struct Meter {
    tally: Tally,
    skim: Skim,
    framing: Framing,
}

/// What separates the documents of an answer.
enum Framing {
    /// Nothing to read.
    Opaque,
    /// One document, or one array of events.
    Json,
    /// One event after the other.
    Lines,
    Sse(Box<Sse>),
    EventStream(Box<EventStream>),
}

impl Meter {
    /// A meter for one answer. With `drop_usage_chunk`, the chunk that a chat stream only has because Tacit asked for it is taken out.
    pub fn new(shape: Shape, content_type: &str, drop_usage_chunk: bool) -> Self {
        Self {
            tally: Tally::new(shape),
            skim: Skim::new(shape),
            framing: Framing::of(shape, content_type, drop_usage_chunk),
        }
    }

    /// Whether the app gets every byte as it came: then [`Meter::watch`] does, and saves a copy.
    pub fn is_transparent(&self) -> bool {
        !matches!(&self.framing, Framing::Sse(sse) if sse.edits())
    }

    /// Reads one header of the response.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        self.tally.header(name, value);
    }

    /// Takes a piece of the (identity-coded) body and appends what the app gets to `out`: all of it, but for a usage chunk that the app did
    /// not ask for.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if self.is_transparent() {
            out.extend_from_slice(piece);
        }
        self.read(piece, out);
    }

    /// As [`Meter::feed`], for a meter that [is transparent](Meter::is_transparent): the caller sends the piece on by itself. A meter that
    /// is not transparent must be fed.
    pub fn watch(&mut self, piece: &[u8]) {
        debug_assert!(self.is_transparent());
        self.read(piece, &mut Vec::new());
    }

    fn read(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match &mut self.framing {
            Framing::Opaque => {}
            Framing::Json => read_json(Extent::Whole, &mut self.skim, &mut self.tally, piece),
            Framing::Lines => read_json(Extent::Event, &mut self.skim, &mut self.tally, piece),
            Framing::Sse(sse) => sse.feed(piece, &mut self.skim, &mut self.tally, out),
            Framing::EventStream(stream) => stream.feed(piece, &mut self.skim, &mut self.tally),
        }
    }

    /// Reads one WebSocket message of the server. The responses of a session are added up. An `error` event is no failure here: most are
    /// about a single message of the app, and the session goes on.
    pub fn document(&mut self, json: &[u8]) {
        self.skim.reset();
        if self.skim.feed(json).1 {
            self.tally.message(self.skim.facts());
        }
        self.skim.reset();
    }

    /// Settles, once: the counts of an answer that ended by itself (`complete`) or was broken off by either side.
    ///
    /// When the provider has not had its last word, the output is estimated: its last count, if it had given one (Anthropic's first event
    /// says 1, Gemini counts along), plus [`estimate_tokens`] of the text delivered since. The input is not estimated here, because the
    /// request is not known here; `None` stays "not said".
    ///
    /// Appends what was held back, unless it is the unwanted chunk.
    pub fn finish(mut self, complete: bool, out: &mut Vec<u8>) -> Metered {
        match &mut self.framing {
            Framing::Opaque | Framing::EventStream(_) => {}
            Framing::Json | Framing::Lines => {
                self.tally.document(self.skim.facts(), Extent::Part);
            }
            Framing::Sse(sse) => sse.finish(&mut self.skim, &mut self.tally, out),
        }
        self.tally.finish(complete)
    }
}

/// Four bytes of UTF-8 a token: what English text comes to in today's vocabularies, and within a factor of two for most other writing.
pub const BYTES_PER_TOKEN: u64 = 4;

/// The estimate for text that nobody counted. The agent takes the same one for the input of a call that broke off.
pub fn estimate_tokens(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

impl Framing {
    fn of(shape: Shape, content_type: &str, drop_usage_chunk: bool) -> Self {
        let essence = content_type.split(';').next().unwrap_or("").trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        let ends = |end: &str| {
            let from = essence.len().saturating_sub(end.len());
            essence
                .get(from..)
                .is_some_and(|tail| tail.eq_ignore_ascii_case(end))
        };
        if shape == Shape::Silent {
            Self::Opaque
        } else if is("text/event-stream") {
            let drops = drop_usage_chunk && shape == Shape::Openai;
            Self::Sse(Box::new(Sse::new(drops)))
        } else if is("application/vnd.amazon.eventstream") {
            Self::EventStream(Box::new(EventStream::new(shape)))
        } else if ends("ndjson") || ends("jsonl") || ends("stream+json") {
            Self::Lines
        } else if essence.is_empty() || ends("json") {
            // No type at all is tried, since reading it can do no harm.
            Self::Json
        } else {
            Self::Opaque
        }
    }
}

/// `extent` is what a document outside of an array is.
fn read_json(extent: Extent, skim: &mut Skim, tally: &mut Tally, mut piece: &[u8]) {
    while !piece.is_empty() {
        let (used, ended) = skim.feed(piece);
        piece = &piece[used..];
        if ended {
            let extent = if skim.is_in_array() {
                Extent::Event
            } else {
                extent
            };
            tally.document(skim.facts(), extent);
            skim.next_document();
        }
    }
}

/// How the same kind, said twice, comes together.
type Join = fn(Option<u64>, Option<u64>) -> Option<u64>;

impl Usage {
    /// How many kinds there are.
    const KINDS: usize = 14;

    fn kinds(&self) -> [Option<u64>; Self::KINDS] {
        [
            self.input,
            self.output,
            self.cache_read,
            self.cache_write,
            self.cache_write_long,
            self.reasoning,
            self.total,
            self.audio_input,
            self.audio_output,
            self.image_input,
            self.image_output,
            self.audio_ms,
            self.searches,
            self.cost_picousd,
        ]
    }

    fn kinds_mut(&mut self) -> [&mut Option<u64>; Self::KINDS] {
        [
            &mut self.input,
            &mut self.output,
            &mut self.cache_read,
            &mut self.cache_write,
            &mut self.cache_write_long,
            &mut self.reasoning,
            &mut self.total,
            &mut self.audio_input,
            &mut self.audio_output,
            &mut self.image_input,
            &mut self.image_output,
            &mut self.audio_ms,
            &mut self.searches,
            &mut self.cost_picousd,
        ]
    }

    /// Whether nothing was counted.
    pub fn is_silent(&self) -> bool {
        self.kinds().iter().all(Option::is_none)
    }

    fn join(&mut self, other: &Self, join: Join) {
        for (mine, theirs) in self.kinds_mut().into_iter().zip(other.kinds()) {
            *mine = join(*mine, theirs);
        }
    }

    /// Cumulative counts: the higher one stands.
    fn raise(&mut self, other: &Self) {
        self.join(other, |mine, theirs| mine.max(theirs));
    }

    /// Another response of the same session.
    fn add(&mut self, other: &Self) {
        self.join(other, |mine, theirs| match (mine, theirs) {
            (Some(mine), Some(theirs)) => Some(mine.saturating_add(theirs)),
            (mine, theirs) => mine.or(theirs),
        });
    }
}
