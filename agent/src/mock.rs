//! Mock mode: a route that answers by itself, in its provider's own format, without a key and without network.
//!
//! What it answers is made in `providers::mock`; this room only writes it. The request has passed the same gate, route and endpoint table as
//! a live one, so that what works here is not refused there.

use std::fmt::Write as _;
use std::time::Duration;

use crate::body::Whole;
use crate::http1::{Encoder, RequestHead, response};
use crate::relay::io::write;
use crate::relay::{Client, Ended};
use crate::route::Route;

/// A request to a mock route.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Its head.
    pub head: &'a RequestHead,
    /// Its path behind the route's prefix.
    pub path: &'a str,
    /// Its body.
    pub body: &'a Whole,
    /// `x-tacit-request-id`.
    pub request_id: &'a str,
    /// The agent is draining.
    pub closing: bool,
}

/// Answers.
pub async fn answer(client: &mut Client, route: &Route, asked: Asked<'_>) -> Ended {
    let Asked {
        head,
        path,
        body,
        request_id,
        closing,
    } = asked;
    let wish = head.fields.first("x-tacit-mock");
    let answer = providers::mock::answer(
        route.api.family(),
        Some(&route.name),
        head.method,
        path,
        &head.query,
        body.bytes(),
        wish.and_then(|wish| std::str::from_utf8(wish).ok()),
    );
    let keep_alive = head.keep_alive && !closing && !answer.cut;
    let (encoder, framing) = match answer.pieces.as_slice() {
        [] => (Encoder::Plain, "content-length: 0\r\n".to_owned()),
        [one] if !answer.cut => (Encoder::Plain, format!("content-length: {}\r\n", one.len())),
        _ if head.is_http10 => (Encoder::Plain, String::new()),
        _ => (
            Encoder::Chunked,
            "transfer-encoding: chunked\r\n".to_owned(),
        ),
    };
    let keep_alive = keep_alive && !(framing.is_empty());
    let mut text = String::with_capacity(512);
    // Writing to a String does not fail.
    let _ = write!(
        text,
        "HTTP/1.1 {} {}\r\n{framing}x-tacit-request-id: {request_id}\r\n",
        answer.status,
        response::reason(answer.status)
    );
    for (name, value) in &answer.headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if !keep_alive {
        text.push_str("connection: close\r\n");
    }
    text.push_str("\r\n");
    let mut out = text.into_bytes();
    for (n, piece) in answer.pieces.iter().enumerate() {
        if n > 0 && answer.pause_ms > 0 {
            let pause = tokio::time::sleep(Duration::from_millis(answer.pause_ms));
            if client.unless_gone(pause).await.is_none() {
                return Ended::ClientGone;
            }
        }
        if head.method != "HEAD" {
            encoder.piece(piece, &mut out);
        }
        // Each piece by itself, as a stream would come.
        if write(&mut client.stream, &out).await.is_err() {
            return Ended::ClientGone;
        }
        out.clear();
    }
    if answer.cut {
        return Ended::Broken;
    }
    if head.method != "HEAD" {
        encoder.end(&mut out);
    }
    match write(&mut client.stream, &out).await {
        Ok(()) => Ended::Relayed {
            status: answer.status,
            keep_alive,
        },
        Err(_) => Ended::ClientGone,
    }
}
