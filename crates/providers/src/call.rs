//! What a request line says: what it asks for, where it goes, where its model is named.

use std::ops::Range;

use crate::{Api, Endpoint, Shape};

/// What method, path and query say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it needs, or that it is refused whatever the policy says.
    pub endpoint: Endpoint,
    /// The path as it is sent upstream.
    pub path: String,
    /// Where the model is named.
    pub model: ModelPlace,
    /// How the answer reports usage.
    pub usage: Shape,
    /// Where in `path` the model stands.
    span: Option<Range<usize>>,
}

/// Where the model is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelPlace {
    /// The endpoint uses none.
    Nowhere,
    /// In the path: this one, percent-decoded once and without a collection that goes without saying (`models/`).
    Path(String),
    /// In the query: this one, percent-decoded once.
    Query(String),
    /// In the body, JSON or a form: see [`crate::inspect`].
    Body,
    /// In the app's WebSocket frames: see [`crate::inspect_frame`].
    Frame,
    /// Named twice, or so that two parsers could read two models. The endpoint is then [`Endpoint::Denied`] too: nothing may be sent.
    Ambiguous,
}

impl Api {
    /// Everything that method, path and query say. `path` is canonical: it begins with `/`, has no query, and only bytes that a path must
    /// encode are percent-encoded, in upper case.
    pub fn call(self, method: &str, path: &str, query: &str, websocket: bool) -> Call {
        let _ = (query, websocket);
        Call {
            endpoint: self.family().endpoint(method, path),
            path: path.to_owned(),
            model: ModelPlace::Body,
            usage: Shape::Silent,
            span: None,
        }
    }
}

impl Call {
    /// The path for `model` in place of the one it names (an alias). `None`: the model is not in the path, or cannot stand there.
    pub fn with_model(&self, model: &str) -> Option<String> {
        let span = self.span.clone()?;
        let mut path = self.path.clone();
        path.replace_range(span, model);
        Some(path)
    }

    /// The query for `model` in place of the one it names. `None`: the model is not in the query, or cannot stand there.
    pub fn query_with_model(&self, query: &str, model: &str) -> Option<String> {
        let _ = (query, model);
        None
    }

    /// Whether [`crate::inspect`] can find anything in a body of this call: if not, it need not be read before it is sent.
    pub fn reads_body(&self) -> bool {
        matches!(self.model, ModelPlace::Body)
    }
}
