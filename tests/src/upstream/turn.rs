//! One exchange with a model, before any API gives it a shape: what was asked, what is answered, what it costs.

use super::record::Tokens;
use super::reply::{Piece, Reply, count};

/// No provider has this model: requests for it get the provider's own answer to an unknown one.
pub(super) const MISSING_MODEL: &str = "no-such-model";

/// In a streamed prompt: the stream stops after `HELD_PIECES` pieces and waits for the client to leave.
/// The counts of a cancelled call are exact that way, whatever the machine's speed.
const HOLD: &str = "HOLD-STREAM";
const HELD_PIECES: usize = 4;

/// In a streamed prompt: the stream fails, in the provider's own way, after `FAILED_PIECES` pieces.
const FAIL: &str = "FAIL-STREAM";
const FAILED_PIECES: usize = 2;

/// How a stream comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Whole,
    Held,
    Failed,
}

/// A question, its answer and the price.
pub(super) struct Turn {
    pub answer: String,
    pub tokens: Tokens,
    pub ending: Ending,
}

impl Turn {
    /// What every model here says to `prompt`; `extra` is what the provider counts beyond the words.
    pub fn new(prompt: &str, extra: Tokens) -> Self {
        let ending = if prompt.contains(HOLD) {
            Ending::Held
        } else if prompt.contains(FAIL) {
            Ending::Failed
        } else {
            Ending::Whole
        };
        // A stream that breaks off has thought about nothing: all its output was written, and can be counted.
        let reasoning = match ending {
            Ending::Whole => extra.reasoning,
            Ending::Held | Ending::Failed => 0,
        };
        let answer = format!("You said: {prompt}");
        let tokens = Tokens {
            input: count(prompt),
            output: count(&answer) + reasoning,
            reasoning,
            ..extra
        };
        Turn {
            answer,
            tokens,
            ending,
        }
    }

    /// The answer in pieces of one token each, whose concatenation is the answer, as far as this stream goes.
    pub fn pieces(&self) -> Vec<&str> {
        let all = self.answer.split_inclusive(' ');
        match self.ending {
            Ending::Whole => all.collect(),
            Ending::Held => all.take(HELD_PIECES).collect(),
            Ending::Failed => all.take(FAILED_PIECES).collect(),
        }
    }

    /// Puts a stream together: what opens it, the pieces, and the end that this turn is to have.
    pub fn stream(
        &self,
        content_type: &'static str,
        opening: Vec<Vec<u8>>,
        deltas: Vec<Vec<u8>>,
        closing: Vec<Vec<u8>>,
        failure: Vec<u8>,
    ) -> Reply {
        let mut pieces: Vec<Piece> = opening.into_iter().map(Piece::free).collect();
        pieces.extend(deltas.into_iter().map(Piece::token));
        match self.ending {
            Ending::Whole => pieces.extend(closing.into_iter().map(Piece::free)),
            Ending::Held => pieces.push(Piece::Hold),
            Ending::Failed => pieces.push(Piece::Failure(failure)),
        }
        Reply::stream(content_type, pieces).costing(self.tokens)
    }
}
