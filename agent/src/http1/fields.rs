//! Header fields of one head: a copy of names and values, and where each lies in it.

use std::ops::Range;

/// Ordered header fields. Names are compared without regard to case.
#[derive(Clone, Default)]
pub struct Fields {
    names: String,
    values: Vec<u8>,
    /// Where each field's name and value are.
    spans: Vec<(Range<usize>, Range<usize>)>,
}

impl Fields {
    /// Copies what `httparse` found.
    pub fn copy(headers: &[httparse::Header<'_>]) -> Self {
        let (mut names, mut values) = (0, 0);
        for header in headers {
            names += header.name.len();
            values += header.value.len();
        }
        let mut fields = Self {
            names: String::with_capacity(names),
            values: Vec::with_capacity(values),
            spans: Vec::with_capacity(headers.len()),
        };
        for header in headers {
            let (name, value) = (fields.names.len(), fields.values.len());
            fields.names.push_str(header.name);
            fields.values.extend_from_slice(trim(header.value));
            fields
                .spans
                .push((name..fields.names.len(), value..fields.values.len()));
        }
        fields
    }

    /// Every field in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let part = |(name, value): &(Range<usize>, Range<usize>)| {
            (&self.names[name.clone()], &self.values[value.clone()])
        };
        self.spans.iter().map(part)
    }

    /// Values of every field of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Value of the first field of this name.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Whether a comma-separated list header contains `token`.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .any(|value| list(value).any(|item| item.eq_ignore_ascii_case(token.as_bytes())))
    }
}

/// The items of a comma-separated value.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(|item| !item.is_empty())
}

fn trim(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// Header names are private (no content is): fields may be credentials of the app.
impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fields({})", self.spans.len())
    }
}

/// Whether a field belongs to one hop and is never forwarded. `trailer` announces what we drop; each side of a WebSocket has a handshake of
/// its own.
pub fn is_hop_by_hop(name: &str) -> bool {
    const NAMES: [&str; 12] = [
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
    ];
    NAMES.iter().any(|n| name.eq_ignore_ascii_case(n))
        || name
            .get(..14)
            .is_some_and(|start| start.eq_ignore_ascii_case("sec-websocket-"))
}
