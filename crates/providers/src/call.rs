//! What a request line says: what it asks for, where it goes, where its model is named.

use std::ops::Range;

use crate::percent;
use crate::provider::Vendor;
use crate::rule::{At, Content, Resource, Rule};
use crate::table::{self, Mount};
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
    rule: Option<&'static Rule>,
    /// Where in `path` the model stands, with its collection if it has one.
    span: Range<usize>,
    asks_usage: bool,
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
    /// In the app's WebSocket messages: see [`crate::inspect_frame`].
    Frame,
    /// Named twice, or so that two parsers could read two models. The endpoint is then [`Endpoint::Denied`] too: nothing may be sent.
    Ambiguous,
}

impl Api {
    /// Everything that method, path and query say.
    ///
    /// `path` is canonical: it begins with `/`, has no query, no empty and no dot segment, and what is percent-encoded is so in upper case.
    /// An encoded slash (`%2F`) may stand in it: only a model that may have one is matched by it.
    pub fn call(self, method: &str, path: &str, query: &str, websocket: bool) -> Call {
        let vendor = self.vendor();
        for mount in table::mounts(vendor) {
            let Some(rest) = path.strip_prefix(mount.prefix) else {
                continue;
            };
            for rule in mount.groups.iter().copied().flatten() {
                if let Some(span) = rule.fits(method, rest, mount.verbs)
                    && (rule.socket || !websocket)
                {
                    return Call::of(vendor, mount, rule, rest, span, query);
                }
            }
        }
        Call::denied(path.to_owned(), ModelPlace::Nowhere)
    }
}

impl Call {
    fn denied(path: String, model: ModelPlace) -> Self {
        Self {
            endpoint: Endpoint::Denied,
            path,
            model,
            usage: Shape::Silent,
            rule: None,
            span: 0..0,
            asks_usage: false,
        }
    }

    fn of(
        vendor: Vendor,
        mount: &Mount,
        rule: &'static Rule,
        rest: &str,
        span: Range<usize>,
        query: &str,
    ) -> Self {
        let path = [mount.becomes, rest].concat();
        let mut span = span.start + mount.becomes.len()..span.end + mount.becomes.len();
        if let At::Resource(_) = rule.model {
            // The collection before it may have to change with it.
            let before = path.get(..span.start.saturating_sub(1)).unwrap_or_default();
            span.start = before.rfind('/').map_or(0, |slash| slash + 1);
        }
        let Some(model) = place(
            vendor,
            rule,
            path.get(span.clone()).unwrap_or_default(),
            query,
        ) else {
            return Self::denied(path, ModelPlace::Ambiguous);
        };
        Self {
            endpoint: Endpoint::Needs(rule.needs),
            path,
            model,
            usage: rule.usage,
            rule: Some(rule),
            span,
            asks_usage: rule.asks_usage && takes_question(vendor, rest, query),
        }
    }

    /// The path for `model` in place of the one it names (an alias). `None`: the model is not in the path, or this one cannot stand there.
    pub fn with_model(&self, model: &str) -> Option<String> {
        let text = match self.rule?.model {
            At::Segment => is_segment_model(model).then(|| percent::encode(model))?,
            At::Resource(resource) => resource.written(model)?,
            At::Nowhere | At::Query(_) | At::Body | At::Frame => return None,
        };
        let mut path = self.path.clone();
        path.replace_range(self.span.clone(), &text);
        Some(path)
    }

    /// The query for `model` in place of the one it names. `None`: the model is not in the query, or this one cannot stand there.
    pub fn query_with_model(&self, query: &str, model: &str) -> Option<String> {
        let (At::Query(name), ModelPlace::Query(_)) = (self.rule?.model, &self.model) else {
            return None;
        };
        percent::is_safe_path(model).then_some(())?;
        let is_it = |part: &str| {
            let key = part.split('=').next().unwrap_or_default();
            percent::decode(key).as_deref() == Some(name)
        };
        let parts = query.split('&').map(|part| {
            if is_it(part) {
                format!("{name}={}", percent::encode(model))
            } else {
                part.to_owned()
            }
        });
        Some(parts.collect::<Vec<_>>().join("&"))
    }

    /// Whether [`crate::inspect`] can find anything in a body of this call: if not, it need not be read before it is sent.
    pub fn reads_body(&self) -> bool {
        self.content() != Content::Opaque
    }

    /// Whether this is a WebSocket, whose messages [`crate::inspect_frame`] reads.
    pub fn is_socket(&self) -> bool {
        self.rule.is_some_and(|rule| rule.socket)
    }

    /// Whether it may use models that neither the request line nor the body shows: only a key for all models may send it.
    pub fn is_unseen(&self) -> bool {
        self.rule.is_some_and(|rule| rule.unseen)
    }

    /// Whether a body without a model still runs one: the provider's default, or one that is stored there.
    pub(crate) fn runs_unnamed(&self) -> bool {
        let rule = self.rule;
        rule.is_some_and(|rule| rule.model == At::Body && !rule.optional)
    }

    pub(crate) fn content(&self) -> Content {
        self.rule.map_or(Content::Opaque, |rule| rule.content)
    }

    pub(crate) fn asks_usage(&self) -> bool {
        self.asks_usage
    }
}

/// Where the model is named. `None`: more than one could be read, or what is no name.
fn place(vendor: Vendor, rule: &Rule, text: &str, query: &str) -> Option<ModelPlace> {
    Some(match rule.model {
        At::Nowhere => ModelPlace::Nowhere,
        At::Body => ModelPlace::Body,
        At::Frame => ModelPlace::Frame,
        At::Segment => {
            let model = percent::decode(text)?;
            let is_arn = vendor == Vendor::Bedrock && is_segment_model(&model);
            (is_arn || percent::is_safe(&model)).then_some(ModelPlace::Path(model))?
        }
        At::Resource(resource) => {
            let (collection, name) = text.split_once('/')?;
            let name = percent::decode(name)?;
            percent::is_safe(&name).then_some(())?;
            ModelPlace::Path(resource.read(collection, name)?)
        }
        At::Query(name) => match parameter(query, name)? {
            Some(model) => ModelPlace::Query(model),
            None => ModelPlace::Frame,
        },
    })
}

/// A name that may stand in a segment of its own: an ARN may have slashes, which are then encoded.
fn is_segment_model(model: &str) -> bool {
    percent::is_safe(model) || (model.starts_with("arn:") && percent::is_safe_path(model))
}

impl Resource {
    fn read(self, collection: &str, name: String) -> Option<String> {
        if self.plain == Some(collection) {
            return Some(name);
        }
        (collection == self.kept).then(|| format!("{collection}/{name}"))
    }

    fn written(self, model: &str) -> Option<String> {
        let kept = model
            .strip_prefix(self.kept)
            .and_then(|rest| rest.strip_prefix('/'));
        let (collection, name) = match kept {
            Some(name) => (self.kept, name),
            None => (self.plain?, model),
        };
        // `:` would begin a verb.
        (percent::is_safe(name) && !name.contains(':'))
            .then(|| format!("{collection}/{}", percent::encode(name)))
    }
}

/// The only query parameter of this name, decoded. `Some(None)`: there is none. `None`: there are two, or one that only some parsers take
/// for it, or one that is no name.
fn parameter(query: &str, name: &str) -> Option<Option<String>> {
    let mut found = None;
    // Some servers also split at `;`.
    for part in query.split(['&', ';']) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let key = percent::decode(key)?;
        // `Model`, `model[]`, ` model`: Azure does not look at case, others drop brackets.
        let letters = key.chars().filter(char::is_ascii_alphanumeric);
        if !letters.map(|c| c.to_ascii_lowercase()).eq(name.chars()) {
            continue;
        }
        let value = percent::decode(value)?;
        let is_name = key == name && !value.contains('+') && percent::is_safe_path(&value);
        if !is_name || found.replace(value).is_some() {
            return None;
        }
    }
    Some(found)
}

/// Whether the version of the API that is asked for takes `stream_options`: Azure's dated ones do since September 2024.
fn takes_question(vendor: Vendor, rest: &str, query: &str) -> bool {
    const SINCE: &str = "2024-09-01";
    if vendor != Vendor::Azure || !rest.starts_with("openai/deployments/") {
        return true;
    }
    let version = query
        .split('&')
        .find_map(|part| part.strip_prefix("api-version="));
    version.is_some_and(|version| version >= SINCE)
}

#[cfg(test)]
mod tests;
