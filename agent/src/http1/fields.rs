//! Header fields of one head: a copy of the bytes and where names and values lie in it.

use std::ops::Range;

/// Ordered header fields. Names are compared without regard to case.
#[derive(Clone, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    spans: Vec<(Range<usize>, Range<usize>)>,
}

impl Fields {
    /// Copies what `httparse` found.
    pub fn copy(headers: &[httparse::Header<'_>]) -> Self {
        let size = headers.iter().map(|h| h.name.len() + h.value.len()).sum();
        let mut fields = Self {
            bytes: Vec::with_capacity(size),
            spans: Vec::with_capacity(headers.len()),
        };
        for header in headers {
            let start = fields.bytes.len();
            fields.bytes.extend_from_slice(header.name.as_bytes());
            let middle = fields.bytes.len();
            fields.bytes.extend_from_slice(trim(header.value));
            fields
                .spans
                .push((start..middle, middle..fields.bytes.len()));
        }
        fields
    }

    /// Every field in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.spans.iter().map(|(name, value)| {
            let name = std::str::from_utf8(&self.bytes[name.clone()]).unwrap_or_default();
            (name, &self.bytes[value.clone()])
        })
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
