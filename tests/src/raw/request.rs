//! A request as it arrived upstream, read more strictly than any provider would.
//!
//! This reader is the second opinion of every smuggling attack: what it cannot read in exactly one way it calls malformed, and the
//! scene fails for it.

use super::{fields, find, lines};

/// One request, or the beginning of one.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Which connection, counted from 0.
    pub connection: usize,
    /// Request line and fields, with the blank line.
    pub head: String,
    /// The body, without chunk framing.
    pub body: Vec<u8>,
    /// What stood behind the last chunk.
    pub trailers: String,
    /// The body ended as its framing said. False: the connection ended first.
    pub complete: bool,
    /// Why a second parser could read this otherwise.
    pub malformed: Option<&'static str>,
}

/// How much of the bytes at hand is one request.
pub enum Parsed {
    /// More must come; so far it is this.
    Partial(Seen),
    /// A whole one, and how many bytes it took.
    Whole(Seen, usize),
}

impl Seen {
    /// Reads what stands at the beginning of `bytes`.
    pub fn read(bytes: &[u8], connection: usize) -> Parsed {
        let mut seen = Seen {
            connection,
            ..Seen::default()
        };
        let Some(end) = find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
            seen.head = String::from_utf8_lossy(bytes).into_owned();
            return Parsed::Partial(seen);
        };
        seen.head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        seen.malformed = ambiguity(&bytes[..end], &seen.head);
        let rest = &bytes[end..];
        let chunked = !seen.fields("transfer-encoding").is_empty();
        let length = seen.fields("content-length").into_iter().next();
        if chunked {
            return seen.chunks(rest, end);
        }
        let length: usize = length.map_or(0, |text| text.parse().unwrap_or(0));
        if rest.len() < length {
            seen.body = rest.to_vec();
            return Parsed::Partial(seen);
        }
        seen.body = rest[..length].to_vec();
        seen.complete = true;
        Parsed::Whole(seen, end + length)
    }

    fn chunks(mut self, bytes: &[u8], before: usize) -> Parsed {
        let mut at = 0;
        loop {
            let Some(line) = find(&bytes[at..], b"\r\n") else {
                return Parsed::Partial(self);
            };
            let size = std::str::from_utf8(&bytes[at..at + line])
                .ok()
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .and_then(|text| usize::from_str_radix(text, 16).ok());
            let Some(size) = size else {
                self.malformed = Some("a chunk size that is not plain hexadecimal");
                self.complete = true;
                return Parsed::Whole(self, before + bytes.len());
            };
            at += line + 2;
            if size == 0 {
                let Some(end) = find(&bytes[at - 2..], b"\r\n\r\n") else {
                    return Parsed::Partial(self);
                };
                self.trailers = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
                self.complete = true;
                return Parsed::Whole(self, before + at - 2 + end + 4);
            }
            if bytes.len() < at + size + 2 {
                self.body
                    .extend_from_slice(&bytes[at..bytes.len().min(at + size)]);
                return Parsed::Partial(self);
            }
            self.body.extend_from_slice(&bytes[at..at + size]);
            if &bytes[at + size..at + size + 2] != b"\r\n" {
                self.malformed = Some("a chunk that does not end in CR LF");
            }
            at += size + 2;
        }
    }

    /// `METHOD target HTTP/1.1`.
    pub fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    /// The request target.
    pub fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    /// The values of every field of this name.
    pub fn fields(&self, name: &str) -> Vec<String> {
        fields(&self.head, name)
    }

    /// The credential that came: what stands in the first slot that is filled.
    pub fn key(&self) -> String {
        ["authorization", "x-api-key", "x-goog-api-key", "api-key"]
            .iter()
            .find_map(|name| self.fields(name).into_iter().next())
            .map(|value| value.trim_start_matches("Bearer ").to_owned())
            .unwrap_or_default()
    }
}

fn ambiguity(bytes: &[u8], head: &str) -> Option<&'static str> {
    let crlf = bytes.windows(2).filter(|pair| pair == b"\r\n").count();
    let (cr, lf) = (
        bytes.iter().filter(|byte| **byte == b'\r').count(),
        bytes.iter().filter(|byte| **byte == b'\n').count(),
    );
    if cr != crlf || lf != crlf {
        return Some("a bare CR or LF");
    }
    if bytes
        .iter()
        .any(|byte| matches!(byte, 0..=8 | 11 | 12 | 14..=31 | 127))
    {
        return Some("a control character");
    }
    let mut parts = head.split("\r\n").next().unwrap_or_default().split(' ');
    if !matches!(
        (parts.next(), parts.next(), parts.next(), parts.next()),
        (Some(_), Some(target), Some("HTTP/1.1"), None) if target.starts_with('/') && !target.starts_with("//")
    ) {
        return Some("a request line that is not `METHOD /path HTTP/1.1`");
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let named = head
        .split("\r\n")
        .skip(1)
        .filter(|line| !line.is_empty())
        .all(|line| {
            line.split_once(':')
                .is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(token))
        });
    if !named {
        return Some("a field without a proper name");
    }
    let lengths = fields(head, "content-length");
    let codings = fields(head, "transfer-encoding");
    if lengths.len() + codings.len() > 1 {
        return Some("two lengths");
    }
    if lengths
        .iter()
        .any(|text| text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Some("a Content-Length that is not a number");
    }
    if codings
        .iter()
        .any(|coding| !coding.eq_ignore_ascii_case("chunked"))
    {
        return Some("a Transfer-Encoding that is not chunked");
    }
    if lines(head)
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
        .count()
        != 1
    {
        return Some("not exactly one Host");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Seen {
        match Seen::read(text.as_bytes(), 0) {
            Parsed::Whole(seen, length) => {
                assert_eq!(length, text.len(), "{text}");
                seen
            }
            Parsed::Partial(seen) => panic!("partial: {seen:?}"),
        }
    }

    #[test]
    fn reads_what_is_clear_and_names_what_is_not() {
        let good = whole("POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab");
        assert_eq!((good.malformed, good.body.as_slice()), (None, &b"ab"[..]));
        let chunked = "POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\na: b\r\n\r\n";
        let chunked = whole(chunked);
        assert_eq!(
            (chunked.body.as_slice(), chunked.trailers.as_str()),
            (&b"ab"[..], "a: b\r\n")
        );
        for bad in [
            "GET //a HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: x\nb: c\r\n\r\n",
            "GET /a HTTP/1.1\r\nhost: x\r\nb : c\r\n\r\n",
            "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
            "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: +0\r\n\r\n",
        ] {
            assert!(whole(bad).malformed.is_some(), "{bad}");
        }
        let cut = Seen::read(
            b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nab",
            0,
        );
        assert!(matches!(cut, Parsed::Partial(seen) if !seen.complete && seen.body == b"ab"));
    }
}
