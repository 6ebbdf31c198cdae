//! The shape of an answer, before it becomes bytes.

use serde_json::Value;

use super::record::Tokens;

/// An answer and what it cost.
pub(super) struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
    pub tokens: Tokens,
}

/// JSON at once, or server-sent events one by one.
pub(super) enum Body {
    Json(Value),
    /// Complete event texts, each with its blank line.
    Events(Vec<String>),
}

impl Reply {
    pub fn json(value: Value) -> Self {
        Reply {
            status: 200,
            headers: Vec::new(),
            body: Body::Json(value),
            tokens: Tokens::default(),
        }
    }

    pub fn events(events: Vec<String>) -> Self {
        Reply {
            status: 200,
            headers: Vec::new(),
            body: Body::Events(events),
            tokens: Tokens::default(),
        }
    }

    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn costing(mut self, tokens: Tokens) -> Self {
        self.tokens = tokens;
        self
    }
}

/// `data: …` alone.
pub(super) fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// `event: NAME` and `data: …`, where the name is the value's `type`.
pub(super) fn typed(value: &Value) -> String {
    let name = value
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("message");
    format!("event: {name}\ndata: {value}\n\n")
}

/// What every model here says.
pub(super) fn answer(prompt: &str) -> String {
    format!("You said: {prompt}")
}

/// The answer in pieces whose concatenation is the answer.
pub(super) fn pieces(answer: &str) -> Vec<&str> {
    answer.split_inclusive(' ').collect()
}

/// A token is a word here: the simplest count that both sides can agree on.
pub(super) fn count(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}
