//! One row of an endpoint table, and how a path is held against it.
//!
//! A pattern is a path without its leading slash. Its segments are literal, or hold one placeholder: `*` (something), `{v}` (a Google API
//! version), `{model}`, `{id}` (a model id that is only looked up, `vendor/model` included). A last segment `**` stands for any rest, none
//! included. Placeholders never match what two parsers could read as two paths.

use std::ops::Range;

use crate::inspect::layout::Layout;
use crate::percent;
use crate::{Permission, Shape};

/// One row: what a method on a path needs, and where everything stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Methods, joined by `|`; `*` for any.
    methods: &'static str,
    pattern: &'static str,
    /// How long the whole segments before the first placeholder are. Most rows of a table are passed over by them, most matches made by them
    /// alone.
    literal: usize,
    pub needs: Permission,
    pub model: At,
    pub content: Content,
    pub usage: Shape,
    /// Whether this is a WebSocket.
    pub socket: bool,
    /// Whether it may use models that neither the request line nor the body shows.
    pub unseen: bool,
    /// Whether a body that names no model uses none.
    pub optional: bool,
    /// Whether a stream reports usage only when asked to, and takes the question.
    pub asks_usage: bool,
}

/// Where the model is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Nowhere,
    /// A path segment of its own.
    Segment,
    /// A path segment below its collection.
    Resource(Resource),
    /// This query parameter; without it, the frames.
    Query(&'static str),
    Body,
    Frame,
}

/// How a name that stands below a collection is told apart from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// The collection that goes without saying.
    pub plain: Option<&'static str>,
    /// The collection that is part of the name.
    pub kept: &'static str,
}

/// What a body is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing that matters is in it.
    Opaque,
    /// JSON.
    Json(&'static Layout),
    /// A form, or JSON.
    Form(&'static Layout),
    /// A form with a file, whose lines are requests when its purpose is a batch.
    Upload(&'static Layout),
}

pub(crate) const READ: &str = "GET|HEAD";
pub(crate) const POST: &str = "POST";
pub(crate) const ANY: &str = "*";

impl Rule {
    /// An endpoint that names no model and reports no usage.
    pub const fn new(methods: &'static str, pattern: &'static str, needs: Permission) -> Self {
        Self {
            methods,
            pattern,
            literal: literal(pattern),
            needs,
            model: At::Nowhere,
            content: Content::Opaque,
            usage: Shape::Silent,
            socket: false,
            unseen: false,
            optional: false,
            asks_usage: false,
        }
    }

    /// The model is in a JSON body.
    pub const fn json(mut self, layout: &'static Layout) -> Self {
        self.model = At::Body;
        self.content = Content::Json(layout);
        self
    }

    /// The model is in a form.
    pub const fn form(mut self, layout: &'static Layout) -> Self {
        self.model = At::Body;
        self.content = Content::Form(layout);
        self
    }

    /// A file, of which a batch names models.
    pub const fn upload(mut self, layout: &'static Layout) -> Self {
        self.model = At::Body;
        self.optional = true;
        self.content = Content::Upload(layout);
        self
    }

    /// The model is in the path's `{model}`. The body may hold more that matters.
    pub const fn segment(mut self, content: Content) -> Self {
        self.model = At::Segment;
        self.content = content;
        self
    }

    /// The same, below a collection.
    pub const fn resource(mut self, resource: Resource, layout: &'static Layout) -> Self {
        self.model = At::Resource(resource);
        self.content = Content::Json(layout);
        self
    }

    /// A WebSocket whose model is in this query parameter, or in its frames.
    pub const fn query(mut self, name: &'static str, layout: &'static Layout) -> Self {
        self.model = At::Query(name);
        self.content = Content::Json(layout);
        self.socket = true;
        self
    }

    /// A WebSocket whose model is in its frames.
    pub const fn frames(mut self, layout: &'static Layout) -> Self {
        self.model = At::Frame;
        self.content = Content::Json(layout);
        self.socket = true;
        self
    }

    /// How it reports usage.
    pub const fn reports(mut self, shape: Shape) -> Self {
        self.usage = shape;
        self
    }

    /// It may use models that cannot be seen here.
    pub const fn unseen(mut self) -> Self {
        self.unseen = true;
        self
    }

    /// Without a model in the body it uses none.
    pub const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Its streams report usage when `stream_options` asks for it.
    pub const fn asks_usage(mut self) -> Self {
        self.asks_usage = true;
        self
    }

    /// Holds a request against the row. `rest` is the path without slash and mount. `Some(range)`: it fits, and that is where in `rest` the
    /// model stands (empty without one).
    pub fn fits(&self, method: &str, rest: &str, verbs: bool) -> Option<Range<usize>> {
        let is_literal = self.literal == self.pattern.len();
        let begins = match is_literal {
            true => rest == self.pattern,
            false => rest.starts_with(self.pattern.get(..self.literal)?),
        };
        let mut methods = self.methods.split('|');
        if !begins || !methods.any(|one| one == ANY || one == method) {
            return None;
        }
        if is_literal {
            return Some(0..0);
        }
        let mut span = 0..0;
        let mut at = 0;
        let mut segments = rest.split('/');
        for pattern in self.pattern.split('/') {
            if pattern == "**" {
                let tail = rest.get(at..).unwrap_or_default();
                let fits = |one| is_plain(one, verbs);
                return (at > rest.len() || tail.split('/').all(fits)).then_some(span);
            }
            let segment = segments.next()?;
            let model = segment_fits(pattern, segment, verbs)?;
            if let Some(model) = model {
                span = at + model.start..at + model.end;
            }
            at += segment.len() + 1;
        }
        segments.next().is_none().then_some(span)
    }
}

/// The length of the whole segments before the first placeholder, without the slash after them.
const fn literal(pattern: &str) -> usize {
    let bytes = pattern.as_bytes();
    let (mut at, mut slash) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'*' | b'{' => return slash,
            b'/' => slash = at,
            _ => {}
        }
        at += 1;
    }
    at
}

/// `Some(Some(_))`: where in the segment its model stands.
fn segment_fits(pattern: &str, segment: &str, verbs: bool) -> Option<Option<Range<usize>>> {
    let (name, head, tail) = placeholder(pattern);
    let middle = segment.strip_prefix(head)?.strip_suffix(tail);
    match (name, middle) {
        ("", _) => (segment == pattern).then_some(None),
        (_, None) => None,
        ("*", Some(middle)) => is_plain(middle, verbs).then_some(None),
        ("{v}", Some(middle)) => is_version(middle).then_some(None),
        ("{id}", Some(middle)) => {
            let id = percent::decode(middle)?;
            percent::is_safe_path(&id).then_some(None)
        }
        (_, Some(middle)) => {
            let hides_verb =
                verbs && percent::decode(middle).is_some_and(|name| name.contains(':'));
            let is_model = !middle.is_empty() && !hides_verb;
            is_model.then(|| Some(head.len()..head.len() + middle.len()))
        }
    }
}

/// The placeholder of a segment pattern with what stands before and after it.
fn placeholder(pattern: &str) -> (&'static str, &str, &str) {
    for name in ["*", "{v}", "{model}", "{id}"] {
        if let Some((head, tail)) = pattern.split_once(name) {
            return (name, head, tail);
        }
    }
    ("", pattern, "")
}

/// Whether a segment that is not looked at is one segment for everybody. Where `:` begins a verb, it is none that the table does not name.
fn is_plain(segment: &str, verbs: bool) -> bool {
    let decoded = percent::decode(segment);
    decoded.is_some_and(|name| percent::is_safe(&name) && !(verbs && name.contains(':')))
}

/// `v1`, `v1beta`, `v1alpha2`: a `v`, digits, letters, digits.
fn is_version(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix('v') else {
        return false;
    };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() + 1 < segment.len()
        && matches!(
            rest.trim_end_matches(|c: char| c.is_ascii_digit()),
            "" | "alpha" | "beta"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span<'a>(pattern: &'static str, path: &'a str, verbs: bool) -> Option<&'a str> {
        let rule = Rule::new(ANY, pattern, Permission::Chat);
        rule.fits("POST", path, verbs).map(|range| &path[range])
    }

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, path, wanted) in [
            ("chat/completions", "chat/completions", Some("")),
            ("chat/completions", "chat/completions/x", None),
            ("chat/completions", "chat", None),
            ("responses/**", "responses", Some("")),
            ("responses/**", "responses/r/cancel", Some("")),
            ("responses/**", "responses/", None),
            ("responses/**", "responsesx", None),
            ("responses/**", "responses/a%2Fb", None),
            ("responses/**", "responses/a%252F", None),
            ("files/*/content", "files/f.jsonl/content", Some("")),
            ("files/*/content", "files/../content", None),
            ("files/*/content", "files/%2e%2e/content", None),
            ("models/{id}", "models/meta%2Fllama", Some("")),
            ("models/{id}", "models/meta%2F..%2Fx", None),
            ("model/{model}/invoke", "model/a%3A0/invoke", Some("a%3A0")),
            ("model/{model}/invoke", "model//invoke", None),
            ("{v}/x", "v1beta2/x", Some("")),
            ("{v}/x", "v9gamma/x", None),
            ("{v}/x", "v/x", None),
            ("a.*.b/c", "a.v1.b/c", Some("")),
            ("a.*.b/c", "a..b/c", None),
        ] {
            assert_eq!(span(pattern, path, false), wanted, "{pattern} {path}");
        }
    }

    #[test]
    fn verbs_are_those_of_the_table() {
        assert_eq!(span("models/{model}:go", "models/g:go", true), Some("g"));
        assert_eq!(span("models/{model}:go", "models/g:x:go", true), None);
        assert_eq!(span("models/{model}:go", "models/:go", true), None);
        assert_eq!(span("models/*", "models/g:go", true), None);
        assert_eq!(span("models/*", "models/g%3Ago", true), None);
        assert_eq!(span("models/*", "models/g:go", false), Some(""));
    }

    #[test]
    fn methods_are_those_of_the_table() {
        let rule = Rule::new(READ, "x", Permission::Models);
        assert!(rule.fits("GET", "x", false).is_some() && rule.fits("HEAD", "x", false).is_some());
        for method in ["POST", "get", "", "GET|HEAD", "*"] {
            assert!(rule.fits(method, "x", false).is_none(), "{method}");
        }
    }
}
