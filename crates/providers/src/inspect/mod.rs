//! What a request body says about models, remote servers and streaming.
//!
//! The provider's parser and ours must read the same, whatever the app sends: a body that two parsers could read differently is refused.
//! Nothing here looks at prompts, and no error quotes the body.

mod finder;
mod form;
mod json;
pub(crate) mod layout;

use std::ops::Range;

use crate::provider::Vendor;
use crate::rule::Content;
use crate::{Api, Call, ModelPlace, Permission};
use finder::Finder;
use form::Part;
use json::Spelling;
use layout::Layout;

/// What a complete request body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Every model it names, each once. Batches name several; empty: it names none.
    /// A preset stored with the provider stands as `@preset/NAME`.
    pub models: Vec<String>,
    /// What it needs beyond the endpoint's own permission: [`Permission::Mcp`] for remote MCP servers.
    pub needs: Vec<Permission>,
    /// Whether it asks for a stream.
    pub stream: bool,
    /// Models may be used that no one can see here (an upload in parts, graders, a job of another format): only a key for all models may
    /// send it.
    pub unseen: bool,
    /// The endpoint runs a model and the body names none: the provider takes its default, or the one of a stored prompt, agent or
    /// conversation. What to make of that is for the policy; the answer may name the model.
    pub unnamed: bool,
    /// It names the model that runs, and not only those of tools, plugins or a transcription beside it.
    pub main: bool,
    /// Makes the provider report usage in a stream whose app did not ask for it.
    pub usage_edit: Option<Edit>,
    /// The projects whose resources it names, each once (Google).
    pub scopes: Vec<Scope>,
    named: Vec<Named>,
}

/// Where a resource lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// As it stands there: an id or a number.
    pub project: String,
    /// The location.
    pub location: String,
}

/// One place where a model is named.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    /// Which of `models`.
    model: usize,
    range: Range<usize>,
    /// What stood before the name: `models/`.
    lead: String,
    quoting: Quoting,
}

/// How a name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quoting {
    /// A JSON string with its quotes.
    Json,
    /// The content of a form field.
    Plain,
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
    /// The endpoint takes a JSON object, and this is none.
    #[error("the body is not a JSON object")]
    Json,
    /// The content type is not one that can be read here.
    #[error(
        "the content type must be application/json in UTF-8, or multipart/form-data where the endpoint takes forms"
    )]
    ContentType,
    /// A key or a form field stands twice.
    #[error("a key or field stands twice in the body")]
    Duplicate,
    /// A key or a form field is another one but for its case, underscores or brackets.
    #[error("a key or field of the body is spelled so that it could be taken for another one")]
    Spelling,
    /// A model is named by something that is no name.
    #[error("the model must be a text without control characters")]
    Model,
    /// Lists of lists where the API has none.
    #[error("the body has a list within a list where the API has none")]
    Nesting,
    /// More members, models or lines than any real request has.
    #[error("the body names more than can be checked")]
    TooMuch,
    /// The form can be cut into parts in more than one way.
    #[error(
        "the form is not multipart/form-data as RFC 7578 has it, without preamble, escapes or extended names"
    )]
    Form,
    /// A line of a batch file is no JSON object.
    #[error("a line of the batch file is not a JSON object")]
    Line,
    /// The body names another model than the path.
    #[error("the body names another model than the path")]
    Contradiction,
}

/// Lines of one batch file: twice what OpenAI takes.
const LINES_MAX: usize = 100_000;

impl Inspected {
    /// The edits that put `model` wherever the body names one.
    pub fn model_edits(&self, model: &str) -> Vec<Edit> {
        self.named.iter().map(|named| named.edit(model)).collect()
    }

    /// The edits that put `to` wherever the body names `from`.
    pub fn alias_edits(&self, from: &str, to: &str) -> Vec<Edit> {
        let is_from = |named: &&Named| self.models.get(named.model).is_some_and(|one| one == from);
        let edits = self.named.iter().filter(is_from);
        edits.map(|named| named.edit(to)).collect()
    }
}

impl Named {
    fn edit(&self, model: &str) -> Edit {
        let name = format!("{}{model}", self.lead);
        Edit {
            range: self.range.clone(),
            text: match self.quoting {
                Quoting::Json => serde_json::Value::from(name).to_string().into_bytes(),
                Quoting::Plain => name.into_bytes(),
            },
        }
    }
}

/// The body after `edits`, which do not overlap.
pub fn apply(body: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut sorted: Vec<&Edit> = edits.iter().collect();
    sorted.sort_by_key(|edit| edit.range.start);
    let grown: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut out = Vec::with_capacity(body.len() + grown);
    let mut at = 0;
    for edit in sorted {
        out.extend_from_slice(body.get(at..edit.range.start).unwrap_or_default());
        out.extend_from_slice(&edit.text);
        at = edit.range.end;
    }
    out.extend_from_slice(body.get(at..).unwrap_or_default());
    out
}

/// Reads a complete, identity-coded request body. `content_type`: the value of the only `content-type` header, empty without one.
pub fn inspect(
    api: Api,
    call: &Call,
    content_type: &str,
    body: &[u8],
) -> Result<Inspected, BodyFault> {
    let kind = media_type(content_type);
    let is_form = kind == "multipart/form-data";
    let mut finder = Finder::new(body, has_resources(api));
    match call.content() {
        Content::Opaque => {}
        Content::Form(layout) if is_form => form(&mut finder, layout, content_type, body)?,
        Content::Upload(layout) if is_form => upload(&mut finder, layout, content_type, body)?,
        Content::Json(layout) | Content::Form(layout) | Content::Upload(layout) => {
            if !body.is_empty() {
                is_json(&kind, content_type)
                    .then_some(())
                    .ok_or(BodyFault::ContentType)?;
                document(&mut finder, call, layout, body)?;
            }
        }
    }
    let mut found = finder.found;
    found.unseen |= call.is_unseen();
    found.unnamed = call.runs_unnamed() && !found.main;
    Ok(found)
}

/// Reads one WebSocket message of the app.
pub fn inspect_frame(api: Api, call: &Call, text: &[u8]) -> Result<Inspected, BodyFault> {
    let mut finder = Finder::new(text, has_resources(api));
    if let Content::Json(layout) = call.content() {
        finder.document(text, layout)?;
    }
    Ok(finder.found)
}

/// Whether models are Google's resource names.
fn has_resources(api: Api) -> bool {
    matches!(api.vendor(), Vendor::Gemini | Vendor::Vertex)
}

fn document<'a>(
    finder: &mut Finder<'a>,
    call: &Call,
    layout: &Layout,
    body: &'a [u8],
) -> Result<(), BodyFault> {
    let root = finder.document(body, layout)?;
    let is_true = |value: &serde_json::value::RawValue| value.get() == "true";
    finder.found.stream = root.get("stream", Spelling::Exact)?.is_some_and(is_true);
    if finder.found.stream && call.asks_usage() {
        finder.found.usage_edit = finder::usage_edit(&root, body)?;
    }
    if let Content::Upload(_) = call.content() {
        // An upload in parts: what comes cannot be read as lines.
        let purpose = root.get("purpose", Spelling::Exact)?.and_then(json::text);
        finder.found.unseen |= purpose.is_some_and(|purpose| is_batch(&purpose));
    }
    match &call.model {
        ModelPlace::Path(model) if layout.agrees => {
            let agrees = finder.found.models.iter().all(|named| named == model);
            agrees.then_some(()).ok_or(BodyFault::Contradiction)
        }
        _ => Ok(()),
    }
}

/// A form that may name the model in a field.
fn form<'a>(
    finder: &mut Finder<'a>,
    layout: &Layout,
    content_type: &str,
    body: &'a [u8],
) -> Result<(), BodyFault> {
    let parts = form::parts(content_type, body)?;
    if let Some(part) = only(&parts, "model")? {
        let name = plain(part, body)?;
        finder.name(name, part.content.clone(), Quoting::Plain)?;
        finder.found.main = true;
    }
    // The description of a realtime call.
    if let Some(part) = only(&parts, "session")? {
        finder.document(body.get(part.content.clone()).unwrap_or_default(), layout)?;
    }
    if let Some(part) = only(&parts, "stream")? {
        finder.found.stream = plain(part, body)?.eq_ignore_ascii_case("true");
    }
    Ok(())
}

/// A file: the lines of a batch are requests.
fn upload<'a>(
    finder: &mut Finder<'a>,
    layout: &Layout,
    content_type: &str,
    body: &'a [u8],
) -> Result<(), BodyFault> {
    let parts = form::parts(content_type, body)?;
    let file = only(&parts, "file")?;
    let purpose = only(&parts, "purpose")?;
    let purpose = purpose.map(|part| plain(part, body)).transpose()?;
    if !purpose.is_some_and(is_batch) {
        return Ok(());
    }
    let file = file.ok_or(BodyFault::Form)?;
    let lines = body.get(file.content.clone()).unwrap_or_default();
    for (n, line) in lines.split(|byte| *byte == b'\n').enumerate() {
        if n >= LINES_MAX {
            return Err(BodyFault::TooMuch);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let root = json::Object::read(line).map_err(|_| BodyFault::Line)?;
        finder.found.main = false;
        if let Some(request) = root.get("body", Spelling::Exact)? {
            finder.document(request.get().as_bytes(), layout)?;
        }
        // What this line runs is stored with the provider, or the provider's default.
        finder.found.unseen |= !finder.found.main;
    }
    Ok(())
}

/// `batch`, `batch-api`, …: whatever makes a provider run the lines of a file.
fn is_batch(purpose: &str) -> bool {
    purpose.to_ascii_lowercase().contains("batch")
}

/// The only field of this name; none that a lenient parser could take for it.
fn only<'p>(parts: &'p [Part], name: &str) -> Result<Option<&'p Part>, BodyFault> {
    // `model[]`, `Model` and ` model` are `model` for some.
    let letters = |text: &str| -> String {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        letters.map(|c| c.to_ascii_lowercase()).collect()
    };
    let mut found = None;
    for part in parts {
        // RFC 7578, section 4.6: the field that changes how all others are decoded.
        if part.name == "_charset_" {
            return Err(BodyFault::Form);
        }
        if part.name == name {
            if found.replace(part).is_some() {
                return Err(BodyFault::Duplicate);
            }
        } else if letters(&part.name) == name {
            return Err(BodyFault::Spelling);
        }
    }
    Ok(found)
}

/// The content of a field that is a plain text for every parser.
fn plain<'b>(part: &Part, body: &'b [u8]) -> Result<&'b str, BodyFault> {
    let is_text = matches!(part.kind.as_deref(), None | Some("text/plain"));
    let content = body.get(part.content.clone()).unwrap_or_default();
    let text = std::str::from_utf8(content).ok();
    text.filter(|text| is_text && !part.is_file && text.trim() == *text)
        .ok_or(BodyFault::Model)
}

fn media_type(content_type: &str) -> String {
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// Whether a body of this type is JSON in UTF-8. One without a type is taken for JSON, as providers do.
fn is_json(kind: &str, content_type: &str) -> bool {
    let mut parameters = content_type.split(';').skip(1);
    let is_utf8 = |parameter: &str| {
        let parameter = parameter.to_ascii_lowercase();
        match parameter.trim().split_once('=') {
            Some(("charset", charset)) => matches!(charset.trim_matches('"'), "utf-8" | "utf8"),
            _ => true,
        }
    };
    (kind.is_empty() || kind == "application/json" || kind.ends_with("+json"))
        && parameters.all(is_utf8)
}

#[cfg(test)]
mod tests;
