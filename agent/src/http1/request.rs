//! The gate: a request head is parsed once, strictly, into a value that cannot be ambiguous.

use std::mem::MaybeUninit;

use super::head::{find_end, framing};
use super::{Fields, Framing, HEADERS_MAX, Reject, Upgrade, fields, target};

/// A request head that passed the gate.
#[derive(Debug)]
pub struct RequestHead {
    /// One of the methods that provider APIs use.
    pub method: &'static str,
    /// Canonical path, from the listener's root.
    pub path: String,
    /// Query as sent, without credentials.
    pub query: String,
    /// Host, in lower case, without its port.
    pub host: String,
    /// Host with its port, as sent.
    pub authority: String,
    /// Length of the body; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// The app asks for a WebSocket.
    pub upgrade: Option<Upgrade>,
    /// The app waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// HTTP/1.0: no chunked answers.
    pub is_http10: bool,
    /// The connection may carry another request afterwards.
    pub keep_alive: bool,
    /// All fields, credentials of the app included: what is forwarded is decided in `inject`.
    pub fields: Fields,
}

/// Methods that provider APIs use. TRACE would echo our key, CONNECT would choose the upstream.
const METHODS: [&str; 6] = ["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD"];

impl RequestHead {
    /// Parses the head at the beginning of `bytes`; `seen` bytes of it were looked at before. `Some((head, n))` consumed `n` bytes.
    pub fn parse(bytes: &[u8], seen: usize) -> Result<Option<(Self, usize)>, Reject> {
        let Some(end) = find_end(bytes, seen)? else {
            return Ok(None);
        };
        let head = &bytes[..end];
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(head, &mut headers) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Reject::Bad("the head is incomplete")),
            Err(httparse::Error::TooManyHeaders) => return Err(Reject::TooLarge),
            Err(_) => return Err(Reject::Bad("the head is not HTTP/1.1")),
        }
        // httparse forgives a separator of several blanks; whoever sends one wants two readings.
        if head
            .split(|b| *b == b'\r')
            .next()
            .is_some_and(|line| line.iter().filter(|b| **b == b' ').count() != 2)
        {
            return Err(Reject::Bad(
                "the request line is not `METHOD target HTTP/1.1`",
            ));
        }
        let (method, target, version) = (request.method, request.path, request.version);
        let parsed = Self::check(
            method.unwrap_or(""),
            target.unwrap_or(""),
            version == Some(0),
            Fields::copy(request.headers),
        )?;
        Ok(Some((parsed, end)))
    }

    fn check(method: &str, target: &str, is_http10: bool, fields: Fields) -> Result<Self, Reject> {
        let method = METHODS
            .into_iter()
            .find(|known| *known == method)
            .ok_or(Reject::Bad("the method is not one that provider APIs use"))?;
        let (path, query) = target::parse(target)?;
        let (host, authority) = host(&fields)?;
        if fields.all("content-type").nth(1).is_some() {
            return Err(Reject::Bad("Content-Type occurs twice"));
        }
        if is_http10 && fields.first("transfer-encoding").is_some() {
            return Err(Reject::Bad("Transfer-Encoding in HTTP/1.0"));
        }
        let expects_continue = expectation(&fields)?;
        let framing = framing(&fields)?.unwrap_or(Framing::None);
        let upgrade = Upgrade::read(&fields, method, is_http10, framing)?;
        let close = fields.lists("connection", "close");
        let keep = !is_http10 || fields.lists("connection", "keep-alive");
        Ok(Self {
            method,
            query: target::without_credentials(query),
            path,
            host,
            authority,
            framing,
            upgrade,
            expects_continue: expects_continue && !is_http10,
            is_http10,
            keep_alive: keep && !close,
            fields,
        })
    }

    /// Whether a body follows.
    pub fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// Whether the app nominated this field as one of its hop alone.
    pub fn nominates(&self, name: &str) -> bool {
        self.fields.lists("connection", name)
    }
}

/// Exactly one Host, and nothing in it but a name or address and a port.
fn host(fields: &Fields) -> Result<(String, String), Reject> {
    let mut hosts = fields.all("host");
    let (Some(value), None) = (hosts.next(), hosts.next()) else {
        return Err(Reject::Bad("there must be exactly one Host header"));
    };
    let bad = Reject::Bad("the Host header is not a name or an address with an optional port");
    let value = std::str::from_utf8(value).map_err(|_| bad)?;
    let (name, port) = match value
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((address, "")) => (address, None),
        Some((address, port)) => (address, Some(port.strip_prefix(':').ok_or(bad)?)),
        None => match value.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (value, None),
        },
    };
    let bracketed = value.starts_with('[');
    let legal = |b: u8| {
        b.is_ascii_alphanumeric()
            || if bracketed {
                b == b':' || b == b'.'
            } else {
                matches!(b, b'.' | b'-' | b'_')
            }
    };
    if name.is_empty()
        || !name.bytes().all(legal)
        || port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with('+'))
    {
        return Err(bad);
    }
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

fn expectation(fields: &Fields) -> Result<bool, Reject> {
    let mut expects = false;
    for value in fields.all("expect") {
        for item in fields::list(value) {
            if !item.eq_ignore_ascii_case(b"100-continue") {
                return Err(Reject::Bad("Expect is not `100-continue`"));
            }
            expects = true;
        }
    }
    Ok(expects)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(head: &str) -> Result<RequestHead, Reject> {
        RequestHead::parse(head.as_bytes(), 0).map(|parsed| parsed.unwrap().0)
    }

    fn with(extra: &str) -> Result<RequestHead, Reject> {
        parse(&format!(
            "POST /openai/v1/files HTTP/1.1\r\nHost: localhost:4100\r\n{extra}\r\n"
        ))
    }

    #[test]
    fn heads_that_pass_and_their_nearest_neighbours_that_do_not() {
        let table: [(&str, &str); 10] = [
            (
                "Content-Type: a/b\r\n",
                "Content-Type: a/b\r\nContent-Type: a/b\r\n",
            ),
            ("Content-Length: 4\r\n", "Content-Length: +4\r\n"),
            (
                "Content-Length: 4\r\n",
                "Content-Length: 4\r\nContent-Length: 4\r\n",
            ),
            ("Content-Length: 4\r\n", "Content-Length: 4, 4\r\n"),
            (
                "Content-Length: 4\r\n",
                "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                "Transfer-Encoding: chunked\r\n",
                "Transfer-Encoding: gzip, chunked\r\n",
            ),
            (
                "Transfer-Encoding: Chunked\r\n",
                "Transfer-Encoding: xchunked\r\n",
            ),
            (
                "Transfer-Encoding: chunked\r\n",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            ),
            ("X-A: b\r\n", "X-A : b\r\n"),
            ("Expect: 100-continue\r\n", "Expect: 200-ok\r\n"),
        ];
        for (good, bad) in table {
            assert!(with(good).is_ok(), "{good:?}");
            assert!(with(bad).is_err(), "{bad:?}");
        }
        assert!(with("X-A: b\r\n c\r\n").is_err(), "obs-fold");
        assert_eq!(
            with("Transfer-Encoding: chunked\r\n").unwrap().framing,
            Framing::Chunked
        );
    }

    #[test]
    fn hosts_that_pass_and_their_nearest_neighbours_that_do_not() {
        for good in [
            "localhost",
            "127.0.0.1:4100",
            "[::1]:4100",
            "Tacit-Agent.ns.svc",
            "[::1]",
        ] {
            assert!(
                parse(&format!(
                    "GET /openai/v1/models HTTP/1.1\r\nHost: {good}\r\n\r\n"
                ))
                .is_ok(),
                "{good}"
            );
        }
        for bad in [
            "",
            "api.openai.com:x@evil",
            "a@b",
            "a:99999",
            "a:",
            "a:+1",
            "a/b",
            "[::1",
            "[::1]x",
            "a b",
            "a,b",
            "::1",
        ] {
            assert!(
                parse(&format!(
                    "GET /openai/v1/models HTTP/1.1\r\nHost: {bad}\r\n\r\n"
                ))
                .is_err(),
                "{bad}"
            );
        }
        assert!(
            parse("GET /openai/v1/models HTTP/1.1\r\n\r\n").is_err(),
            "no Host"
        );
        assert!(
            parse("GET /openai/v1/models HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").is_err(),
            "two"
        );
        assert!(
            parse("GET http://evil/openai HTTP/1.1\r\nHost: a\r\n\r\n").is_err(),
            "absolute-form"
        );
    }

    #[test]
    fn request_lines_that_are_refused() {
        for line in [
            "TRACE /x HTTP/1.1",
            "CONNECT a:1 HTTP/1.1",
            "get /x HTTP/1.1",
            "GET  /x HTTP/1.1",
            "GET /x HTTP/2.0",
            "GET /x",
            "OPTIONS * HTTP/1.1",
        ] {
            assert!(
                parse(&format!("{line}\r\nHost: a\r\n\r\n")).is_err(),
                "{line}"
            );
        }
    }

    const SOCKET: &str = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn socket(extra: &str) -> Result<RequestHead, Reject> {
        parse(&format!(
            "GET /openai/v1/realtime HTTP/1.1\r\nHost: localhost\r\n{SOCKET}{extra}\r\n"
        ))
    }

    #[test]
    fn a_websocket_handshake_passes_and_none_of_its_neighbours_does() {
        assert!(with("").unwrap().upgrade.is_none());
        let upgrade = socket("").unwrap().upgrade.unwrap();
        assert_eq!(upgrade.key, "dGhlIHNhbXBsZSBub25jZQ==");
        let request = |method: &str, version: &str, fields: &str| {
            parse(&format!(
                "{method} /openai/v1/realtime {version}\r\nHost: localhost\r\n{fields}\r\n"
            ))
        };
        assert!(request("GET", "HTTP/1.1", &SOCKET.replace("websocket", "WebSocket")).is_ok());
        assert!(request("POST", "HTTP/1.1", SOCKET).is_err());
        assert!(request("GET", "HTTP/1.0", SOCKET).is_err());
        for (good, bad) in [
            ("Upgrade: websocket", "Upgrade: h2c"),
            ("Upgrade: websocket", "Upgrade: websocket, h2c"),
            (
                "Upgrade: websocket",
                "Upgrade: websocket\r\nUpgrade: websocket",
            ),
            ("Upgrade: websocket", "Upgrade:"),
            ("keep-alive, Upgrade", "keep-alive"),
            ("Version: 13", "Version: 8"),
            ("Version: 13", "Version: 13, 8"),
            ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13"),
            ("Sec-WebSocket-Version: 13\r\n", ""),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZTE="),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j****"),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ] {
            assert!(SOCKET.contains(good));
            let neighbour = SOCKET.replacen(good, bad, 1);
            assert!(request("GET", "HTTP/1.1", &neighbour).is_err(), "{bad}");
        }
        for extra in [
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "Content-Length: 0\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Expect: 100-continue\r\n",
        ] {
            assert!(socket(extra).is_err(), "{extra}");
        }
    }

    #[test]
    fn subprotocols_are_tokens_and_none_that_goes_on_is_a_credential() {
        let offered = |value: &str| {
            let parsed = socket(&format!("Sec-WebSocket-Protocol: {value}\r\n"));
            parsed.map(|head| head.upgrade.unwrap().protocols)
        };
        assert_eq!(
            offered("realtime, openai-insecure-api-key.sk-dummy, openai-organization.org-1, openai-project.p, openai-beta.realtime-v1").unwrap(),
            ["realtime", "openai-beta.realtime-v1"]
        );
        let twice = socket(
            "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b, OpenAI-Insecure-API-Key.x\r\n",
        );
        assert_eq!(twice.unwrap().upgrade.unwrap().protocols, ["a", "b"]);
        assert_eq!(offered("a,b,c,d,e,f,g,h").unwrap().len(), 8);
        for bad in [
            "a,b,c,d,e,f,g,h,i",
            "a, a",
            "a b",
            "a/b",
            "\"a\"",
            "a;q=1",
            "\u{e4}",
        ] {
            assert!(offered(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_connection_header_decides_what_follows() {
        assert!(with("").unwrap().keep_alive);
        assert!(!with("Connection: foo, Close\r\n").unwrap().keep_alive);
        assert!(with("Connection: foo, x-b\r\n").unwrap().nominates("X-B"));
        let old = |extra: &str| parse(&format!("GET /x HTTP/1.0\r\nHost: a\r\n{extra}\r\n"));
        assert!(!old("").unwrap().keep_alive);
        assert!(old("Connection: keep-alive\r\n").unwrap().keep_alive);
        assert!(old("Transfer-Encoding: chunked\r\n").is_err());
    }

    #[test]
    fn a_hundred_headers_pass_and_one_more_does_not() {
        let many = |n: usize| with(&(0..n).map(|i| format!("X-{i}: a\r\n")).collect::<String>());
        assert!(many(HEADERS_MAX - 1).is_ok());
        assert_eq!(many(HEADERS_MAX).unwrap_err(), Reject::TooLarge);
    }
}
