//! The shape of an answer, before it becomes bytes.

use serde_json::Value;

use super::record::Tokens;

/// Server-sent events, as most providers stream.
pub(super) const EVENTS: &str = "text/event-stream";

/// An answer and what it cost.
pub(super) struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
    /// The price of the whole, as the provider counts it.
    pub tokens: Tokens,
}

/// JSON at once, or a stream piece by piece.
pub(super) enum Body {
    Json(Value),
    Stream(&'static str, Vec<Piece>),
}

/// A step of a stream.
pub(super) enum Piece {
    /// A complete event or frame, and how many output tokens it carries.
    Bytes { bytes: Vec<u8>, output: u64 },
    /// Nothing more is sent; the stream waits until the client leaves.
    Hold,
    /// The event with which the provider says that the call failed after all.
    Failure(Vec<u8>),
}

impl Piece {
    pub fn free(bytes: Vec<u8>) -> Self {
        Piece::Bytes { bytes, output: 0 }
    }

    pub fn token(bytes: Vec<u8>) -> Self {
        Piece::Bytes { bytes, output: 1 }
    }
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

    pub fn stream(content_type: &'static str, pieces: Vec<Piece>) -> Self {
        Reply {
            body: Body::Stream(content_type, pieces),
            ..Reply::json(Value::Null)
        }
    }

    /// What a WebSocket's server says next.
    pub fn frames(pieces: Vec<Piece>) -> Self {
        Reply::stream("", pieces)
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
pub(super) fn data(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

/// `event: NAME` and `data: …`, where the name is the value's `type`.
pub(super) fn typed(value: &Value) -> Vec<u8> {
    let name = value
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("message");
    format!("event: {name}\ndata: {value}\n\n").into_bytes()
}

/// A content that is a string, or a list of parts with `text`.
pub(super) fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => String::new(),
    }
}

/// The content of the last of `messages`.
pub(super) fn last_message(body: &Value) -> Option<String> {
    let last = body["messages"].as_array()?.last()?;
    Some(text(&last["content"]))
}

/// A token is a word here: the simplest count that both sides can agree on.
pub(super) fn count(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}
