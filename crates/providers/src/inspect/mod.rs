//! What a request body says about models, remote servers and streaming.
//!
//! The provider's parser and ours must read the same, whatever the app sends: a body that two parsers could read differently is refused.

use std::ops::Range;

use crate::{Api, Call, Permission};

/// What a complete request body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Every model it names, each once. Batches name several; empty: it names none, and the provider takes its default or what it has stored.
    pub models: Vec<String>,
    /// What it needs beyond the endpoint's own permission: [`Permission::Mcp`] for remote MCP servers.
    pub needs: Vec<Permission>,
    /// Whether it asks for a stream.
    pub stream: bool,
    /// Models may be used that no one can see here (an upload in parts, a run of what is stored with the provider): only a key for all
    /// models may send it.
    pub unseen: bool,
    /// Makes the provider report usage in a stream whose app did not ask for it.
    pub usage_edit: Option<Edit>,
    named: Vec<Named>,
}

/// One place where a model is named.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    /// Which of `models`.
    model: usize,
    range: Range<usize>,
}

/// A replacement of bytes of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Which bytes go.
    pub range: Range<usize>,
    /// What comes in their place.
    pub text: Vec<u8>,
}

/// Why a body is refused. The texts never quote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// The endpoint takes JSON, and this is none.
    #[error("the body is not valid JSON")]
    Json,
    /// A key stands twice in an object that is read.
    #[error("a key stands twice in the body")]
    Duplicate,
    /// A model is named by something else than a text that can be a name.
    #[error("the model must be a text")]
    Model,
}

impl Inspected {
    /// The edits that put `model` wherever the body names one.
    pub fn model_edits(&self, model: &str) -> Vec<Edit> {
        self.named
            .iter()
            .map(|named| Edit {
                range: named.range.clone(),
                text: serde_json::Value::from(model).to_string().into_bytes(),
            })
            .collect()
    }

    /// The edits that put `to` wherever the body names `from`.
    pub fn alias_edits(&self, from: &str, to: &str) -> Vec<Edit> {
        let is_from = |named: &&Named| self.models.get(named.model).is_some_and(|one| one == from);
        let edits = self.named.iter().filter(is_from);
        edits
            .map(|named| Edit {
                range: named.range.clone(),
                text: serde_json::Value::from(to).to_string().into_bytes(),
            })
            .collect()
    }
}

/// The body after `edits`, which do not overlap.
pub fn apply(body: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut sorted: Vec<&Edit> = edits.iter().collect();
    sorted.sort_by_key(|edit| edit.range.start);
    let mut out = Vec::with_capacity(body.len() + 64);
    let mut at = 0;
    for edit in sorted {
        out.extend_from_slice(body.get(at..edit.range.start).unwrap_or_default());
        out.extend_from_slice(&edit.text);
        at = edit.range.end;
    }
    out.extend_from_slice(body.get(at..).unwrap_or_default());
    out
}

/// Reads a complete, identity-coded request body.
pub fn inspect(
    api: Api,
    call: &Call,
    content_type: &str,
    body: &[u8],
) -> Result<Inspected, BodyFault> {
    let _ = (api, call, content_type);
    let document: serde_json::Value = serde_json::from_slice(body).map_err(|_| BodyFault::Json)?;
    let model = document.get("model").and_then(serde_json::Value::as_str);
    Ok(Inspected {
        models: model.map(str::to_owned).into_iter().collect(),
        stream: document.get("stream") == Some(&serde_json::Value::Bool(true)),
        ..Inspected::default()
    })
}

/// Reads one WebSocket text message of the app.
pub fn inspect_frame(api: Api, call: &Call, text: &[u8]) -> Result<Inspected, BodyFault> {
    inspect(api, call, "application/json", text)
}
