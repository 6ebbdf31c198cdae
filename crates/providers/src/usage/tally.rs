//! What the documents of an answer add up to.
//!
//! Each API has its own way of counting on: OpenAI and Google repeat the whole report and the last one stands; Anthropic's counts are
//! cumulative, in parts, and the higher one stands; the responses of a session are added up. Nothing is ever taken from two of these ways.

use super::facts::Facts;
use super::field::Field;
use super::{Metered, Usage, estimate_tokens, read};
use crate::Shape;

/// How much of an answer a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// One event of many.
    Event,
    /// The beginning of one, which broke off.
    Part,
}

/// What a document is, beyond its counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The extra chunk of a chat stream: a report of usage, no choices, no error.
    pub(super) usage_chunk: bool,
}

/// The sum of an answer.
pub(super) struct Tally {
    shape: Shape,
    usage: Usage,
    /// A session's turn that is not over: its last report stands.
    turn: Option<Usage>,
    /// Bedrock's own counts, in headers or at the end of a stream. The model's own report goes first; they fill in what it does not say.
    counted: Usage,
    /// Bytes of text delivered since the output was last counted.
    text: u64,
    /// The provider has had its last word.
    is_final: bool,
    failed: bool,
    /// The answer could not be read to its end.
    broken: bool,
}

impl Tally {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            usage: Usage::default(),
            turn: None,
            counted: Usage::default(),
            text: 0,
            is_final: false,
            failed: false,
            broken: false,
        }
    }

    /// An error was said outside of a document.
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }

    /// Reading has stopped before the end.
    pub(super) fn give_up(&mut self) {
        self.broken = true;
    }

    /// Bedrock's counts of InvokeModel; for embeddings they are all there is.
    pub(super) fn header(&mut self, name: &str, value: &[u8]) {
        const PREFIX: &str = "x-amzn-bedrock-";
        if self.shape != Shape::BedrockInvoke
            || !name
                .get(..PREFIX.len())
                .is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
        {
            return;
        }
        let count = std::str::from_utf8(value)
            .ok()
            .and_then(|count| count.trim().parse().ok());
        let kinds = [
            ("input-token-count", &mut self.counted.input),
            ("output-token-count", &mut self.counted.output),
            ("cache-read-input-token-count", &mut self.counted.cache_read),
            (
                "cache-write-input-token-count",
                &mut self.counted.cache_write,
            ),
        ];
        for (kind, slot) in kinds {
            if name[PREFIX.len()..].eq_ignore_ascii_case(kind) {
                *slot = count.or(*slot);
            }
        }
    }

    /// Takes in one document of a body.
    pub(super) fn document(&mut self, facts: &Facts, extent: Extent) -> Verdict {
        let kind = facts.last(Field::Kind).unwrap_or(b"");
        let has_error = said(facts, Field::Error);
        self.failed |= has_error || kind == b"\"error\"" || self.response_failed(facts, kind);
        self.name_model(facts);
        // A whole answer that says nothing of usage has none: a list of stored messages was not written just now.
        if extent != Extent::Whole {
            self.count_text(facts, kind);
        }
        let report = self.report(facts);
        let no_choices = facts.last(Field::Choices).is_some_and(is_empty_list);
        if let Some(report) = &report {
            self.settle_text(report);
            match self.shape {
                Shape::Anthropic | Shape::BedrockInvoke => self.usage.raise(report),
                _ => self.replace(report),
            }
        }
        let is_last = match extent {
            Extent::Whole => true,
            Extent::Event | Extent::Part => {
                facts.finished || no_choices || is_terminal(kind) || self.reports_once()
            }
        };
        self.is_final |= (report.is_some() && is_last) || kind == b"\"message_stop\"";
        if let Some(metrics) = facts.last(Field::Metrics).and_then(read::bedrock_metrics) {
            self.counted.raise(&metrics);
            self.is_final = true;
            self.text = 0;
        }
        Verdict {
            usage_chunk: report.is_some() && no_choices && !has_error && extent == Extent::Event,
        }
    }

    /// Takes in one message of a session.
    pub(super) fn message(&mut self, facts: &Facts) {
        let kind = facts.last(Field::Kind).unwrap_or(b"");
        self.failed |= self.response_failed(facts, kind);
        self.name_model(facts);
        self.count_text(facts, kind);
        if let Some(report) = self.report(facts) {
            self.settle_text(&report);
            self.is_final = true;
            if self.shape == Shape::Gemini {
                // Live counts each turn on its own, and may repeat the count within a turn.
                self.turn = Some(report);
            } else {
                self.usage.add(&report);
            }
        }
        if facts.last(Field::Turn) == Some(b"true")
            && let Some(turn) = self.turn.take()
        {
            self.usage.add(&turn);
        }
    }

    /// Settles.
    pub(super) fn finish(mut self, complete: bool) -> Metered {
        if let Some(turn) = self.turn.take() {
            self.usage.add(&turn);
        }
        self.fill_in();
        let counted = self.is_final || (complete && !self.broken && self.usage.output.is_some());
        let mut estimated = false;
        if self.shape != Shape::Silent && !(counted && self.text == 0) {
            estimated = !complete || self.broken || self.text > 0;
            if self.text > 0 {
                let delivered = estimate_tokens(self.text);
                let output = self.usage.output.unwrap_or(0);
                self.usage.output = Some(output.saturating_add(delivered));
                // A sum that leaves the estimate out would contradict it.
                self.usage.total = None;
            }
        }
        Metered {
            usage: self.usage,
            estimated,
            failed: self.failed,
        }
    }

    fn response_failed(&self, facts: &Facts, kind: &[u8]) -> bool {
        kind == b"\"response.failed\"" || facts.last(Field::Status) == Some(b"\"failed\"")
    }

    /// The first name stands: Azure's first chunk has an empty one.
    fn name_model(&mut self, facts: &Facts) {
        if self.usage.model.is_none() {
            self.usage.model = facts
                .last(Field::Model)
                .and_then(|name| serde_json::from_slice::<String>(name).ok())
                .filter(|name| !name.is_empty());
        }
    }

    fn count_text(&mut self, facts: &Facts, kind: &[u8]) {
        if facts.text > 0 && is_delivery(kind) {
            self.text = self.text.saturating_add(facts.text);
        }
    }

    /// A count of output covers all the text before it; so does a length of audio, for its transcript.
    fn settle_text(&mut self, report: &Usage) {
        if report.output.is_some() || report.audio_ms.is_some() {
            self.text = 0;
        }
    }

    /// The report of one document; bare counts are one, too.
    fn report(&self, facts: &Facts) -> Option<Usage> {
        let mut report: Option<Usage> = None;
        for (field, raw) in facts.found() {
            if field == Field::Usage {
                report = read::usage(self.shape, raw).or(report);
            }
        }
        if facts.input.is_some() || facts.output.is_some() {
            let report = report.get_or_insert_default();
            report.input = report.input.or(facts.input);
            report.output = report.output.or(facts.output);
        }
        report
    }

    fn replace(&mut self, report: &Usage) {
        let model = self.usage.model.take();
        self.usage = Usage {
            model,
            ..report.clone()
        };
    }

    /// Whether the API reports in its last event only.
    fn reports_once(&self) -> bool {
        matches!(self.shape, Shape::BedrockConverse | Shape::Cohere)
    }

    fn fill_in(&mut self) {
        let counted = std::mem::take(&mut self.counted);
        let usage = &mut self.usage;
        if usage.input.is_none() {
            // What a model says of its caches is about its own input count; Bedrock's is about Bedrock's.
            usage.cache_read = usage.cache_read.or(counted.cache_read);
            usage.cache_write = usage.cache_write.or(counted.cache_write);
        }
        usage.input = usage.input.or(counted.input);
        usage.output = usage.output.or(counted.output);
        // A header came before the body: it counted what was to come.
        if counted.output.is_some() {
            self.text = 0;
            self.is_final = true;
        }
    }
}

/// Whether a value is there, and is neither `null` nor an empty text.
fn said(facts: &Facts, field: Field) -> bool {
    facts.was_long(field)
        || facts
            .last(field)
            .is_some_and(|value| !matches!(value, b"null" | b"\"\""))
}

/// `[]`, with blanks or without.
fn is_empty_list(value: &[u8]) -> bool {
    matches!(value, [b'[', inner @ .., b']'] if inner.iter().all(u8::is_ascii_whitespace))
}

/// Whether an event with this `type` brings text for the first time. The Responses and Realtime APIs repeat all of it in later events,
/// and deliver audio, in base64, under the same name.
fn is_delivery(kind: &[u8]) -> bool {
    let kind = kind.strip_suffix(b"\"").unwrap_or(kind);
    let is_audio =
        || kind.ends_with(b"audio.delta") && memchr::memmem::find(kind, b"transcript").is_none();
    match kind {
        b"" | b"\"message" | b"\"completion" | b"\"text-generation" => true,
        _ => kind.ends_with(b"delta") && !is_audio(),
    }
}

/// Whether an event with this `type` is the last one with a report.
fn is_terminal(kind: &[u8]) -> bool {
    let kind = kind.strip_suffix(b"\"").unwrap_or(kind);
    let ends: [&[u8]; 6] = [
        b"completed",
        b"incomplete",
        b"failed",
        b"done",
        b"complete",
        b"end",
    ];
    ends.iter().any(|end| kind.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_counts_where_it_comes_first_and_where_it_is_text() {
        let cases: [(&[u8], bool); 10] = [
            (b"", true),
            (b"\"content_block_delta\"", true),
            (b"\"response.output_text.delta\"", true),
            (b"\"response.output_text.done\"", false),
            (b"\"response.completed\"", false),
            (b"\"response.output_audio.delta\"", false),
            (b"\"response.output_audio_transcript.delta\"", true),
            (b"\"speech.audio.delta\"", false),
            (b"\"message\"", true),
            (b"\"message_start\"", false),
        ];
        for (kind, wanted) in cases {
            assert_eq!(is_delivery(kind), wanted, "{}", kind.escape_ascii());
        }
    }

    #[test]
    fn an_empty_list_is_told_from_a_list() {
        assert!(is_empty_list(b"[]") && is_empty_list(b"[ \n]"));
        assert!(!is_empty_list(b"[0]") && !is_empty_list(b"null") && !is_empty_list(b"["));
    }

    #[test]
    fn only_invoke_reads_headers() {
        for (shape, wanted) in [
            (Shape::BedrockInvoke, Some(7)),
            (Shape::BedrockConverse, None),
            (Shape::Openai, None),
        ] {
            let mut tally = Tally::new(shape);
            tally.header("X-Amzn-Bedrock-Input-Token-Count", b" 7");
            tally.header("x-amzn-bedrock-other", b"8");
            tally.header("x-amzn-bedrock-input-token-counté", b"9");
            assert_eq!(tally.finish(true).usage.input, wanted);
        }
    }
}
