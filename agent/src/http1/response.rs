//! An upstream's response head, read as strictly as a request's, and what of it the app gets.

use std::mem::MaybeUninit;

use super::head::{find_end, framing};
use super::{Fields, Framing, HEADERS_MAX, Reject, fields};

/// A response head.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status code, 100 to 599.
    pub status: u16,
    /// Length of the body, for the method that was asked.
    pub framing: Framing,
    /// The upstream keeps the connection.
    pub keep_alive: bool,
    /// All fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// Parses the head of an answer to `method`; otherwise as [`super::RequestHead::parse`].
    pub fn parse(bytes: &[u8], seen: usize, method: &str) -> Result<Option<(Self, usize)>, Reject> {
        let Some(end) = find_end(bytes, seen)? else {
            return Ok(None);
        };
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        match parser.parse_response_with_uninit_headers(&mut response, &bytes[..end], &mut headers)
        {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Reject::Bad("the head is incomplete")),
            Err(httparse::Error::TooManyHeaders) => return Err(Reject::TooLarge),
            Err(_) => return Err(Reject::Bad("the head is not HTTP/1.1")),
        }
        let (status, version) = (response.code.unwrap_or(0), response.version);
        let fields = Fields::copy(response.headers);
        if !(100..600).contains(&status) {
            return Err(Reject::Bad("the status is none that exists"));
        }
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        let declared = framing(&fields)?;
        let framing = if bodiless {
            Framing::None
        } else {
            declared.unwrap_or(Framing::UntilClose)
        };
        let keep = version == Some(1) || fields.lists("connection", "keep-alive");
        // A body that is announced where none may be, other than to HEAD, could come all the same, and be taken for the next answer.
        let stray = method != "HEAD"
            && framing == Framing::None
            && !matches!(declared, None | Some(Framing::Length(0)));
        let keep_alive = keep
            && !fields.lists("connection", "close")
            && framing != Framing::UntilClose
            && !stray;
        Ok(Some((
            Self {
                status,
                framing,
                keep_alive,
                fields,
            },
            end,
        )))
    }

    /// The fields that the app gets: nothing of the hop, no cookies, no advice to leave us for another host, nothing in our name.
    pub fn forwarded(&self) -> impl Iterator<Item = (&str, &[u8])> {
        const DROPPED: [&str; 8] = [
            "alt-svc",
            "authentication-info",
            // What goes on is decoded.
            "content-encoding",
            "set-cookie",
            "strict-transport-security",
            "www-authenticate",
            "x-goog-upload-url",
            "x-goog-upload-control-url",
        ];
        self.fields.iter().filter(|(name, _)| {
            !fields::is_hop_by_hop(name)
                && !DROPPED.iter().any(|n| name.eq_ignore_ascii_case(n))
                && !self.fields.lists("connection", name)
                && !name
                    .get(..8)
                    .is_some_and(|start| start.eq_ignore_ascii_case("x-tacit-"))
        })
    }
}

/// Reason phrases for the statuses that occur; the upstream's own phrase is not relayed, since it is free text.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        529 => "Overloaded",
        _ => match status / 100 {
            2 => "OK",
            3 => "Redirect",
            4 => "Client Error",
            _ => "Server Error",
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(head: &str, method: &str) -> Result<ResponseHead, Reject> {
        ResponseHead::parse(head.as_bytes(), 0, method).map(|parsed| parsed.unwrap().0)
    }

    #[test]
    fn the_body_length_follows_from_status_and_method() {
        let framing =
            |head: &str, method| parse(head, method).map(|head| (head.framing, head.keep_alive));
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framing(ok, "GET"), Ok((Framing::Length(5), true)));
        assert_eq!(framing(ok, "HEAD"), Ok((Framing::None, true)));
        assert_eq!(
            framing("HTTP/1.1 204 x\r\n\r\n", "GET"),
            Ok((Framing::None, true))
        );
        assert_eq!(
            framing("HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n", "GET"),
            Ok((Framing::None, false))
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\n\r\n", "GET"),
            Ok((Framing::UntilClose, false))
        );
        assert_eq!(
            framing("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", "GET"),
            Ok((Framing::Length(5), false))
        );
        assert!(
            framing(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                "GET"
            )
            .is_err()
        );
        assert!(
            framing(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                "GET"
            )
            .is_err()
        );
    }

    #[test]
    fn the_app_gets_no_cookie_no_alternative_and_no_field_in_our_name() {
        let head = parse(
            "HTTP/1.1 200 OK\r\nX-Request-Id: 1\r\nSet-Cookie: a\r\nAlt-Svc: h3\r\nX-Tacit-Error: x\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n",
            "GET",
        )
        .unwrap();
        let names: Vec<&str> = head.forwarded().map(|(name, _)| name).collect();
        assert_eq!(names, ["X-Request-Id"]);
    }
}
