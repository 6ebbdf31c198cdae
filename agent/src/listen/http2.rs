//! HTTP/2 from apps, prior-knowledge or by ALPN: every stream becomes an HTTP/1.1 request in this process.
//!
//! There is one gate, one connection loop and one relay. A stream is written as HTTP/1.1 bytes into a pipe, whose other end is served exactly
//! like a socket; what comes back is read by the same parser that reads the upstream's answers. So nothing here decides what may pass: this
//! room refuses only what those bytes could not say (a Host that contradicts `:authority`, fields of a hop), and never sends a body on as
//! complete that was not: a reset of the app ends the pipe, and with it the upstream; an answer that breaks off is a reset.
//!
//! The frames are hyper's and h2's work: pseudo-fields, lower-case names, fields of a hop, the length of a body against its Content-Length, and
//! floods of resets, settings and continuations are judged there. A `#` and what follows in `:path` is cut off there before we see it, so
//! it goes nowhere. Request trailers and interim answers are dropped. WebSocket over HTTP/2 (RFC 8441) is not offered: extended CONNECT is
//! not announced, and refused when it comes; clients open an HTTP/1.1 connection for it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{Method, Request, Response, request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::Answer;
use super::stream::Rewound;
use super::{ClientStream, Connection, IDLE_TIMEOUT, LINGER_TIMEOUT};
use crate::http1::{Encoder, HEAD_MAX_BYTES, HEADERS_MAX, ResponseHead, fields};
use crate::metrics::Limit;
use crate::respond::{Code, Refusal};

/// How a client begins that knows without asking that we speak HTTP/2.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Streams at once on one connection: what RFC 9113 recommends as the least, and what SDK pools count on. More are refused by reset.
const STREAMS_PER_CONNECTION: u32 = 100;

/// Streams at once over all connections: as many as there may be HTTP/1.1 connections, since each has an upstream connection like those.
pub(super) const STREAMS_MAX: usize = super::CONNECTIONS_MAX;

/// Field section of a request as HTTP/2 counts it: 32 bytes more for each field than in HTTP/1.1. The gate has the last word, so that heads
/// between its limit and this one are answered in the API's own format; beyond it the library answers 431 by itself.
const FIELDS_MAX: u32 = (HEAD_MAX_BYTES + 32 * HEADERS_MAX) as u32;

/// Table of header compression, per connection and direction: the protocol's default.
const HPACK_TABLE_BYTES: u32 = 4096;

/// Body bytes that a stream, and a connection, may have in flight towards us: enough for an upload over loopback at full speed, and a bound
/// on what a hostile app makes us hold.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Bytes of an answer that wait for an app which does not read, per stream; and in the pipe between, per direction.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
const PIPE_BYTES: usize = 64 * 1024;

/// Streams that the app opened and reset before we came to look at them: beyond this the connection is ended (rapid reset, CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;

/// A stream at which nothing moves for this long is reset: longer than every limit behind it, so that it is the end of an app that reads
/// nothing of a small answer, which no other limit sees.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Serves one connection until it ends, is idle for too long, or is drained.
pub(super) async fn serve(connection: Connection, stream: ClientStream, read_ahead: BytesMut) {
    let streams = Streams::default();
    let service = {
        let (connection, streams) = (connection.clone(), streams.clone());
        service_fn(move |request| carry(connection.clone(), streams.clone(), request))
    };
    let mut builder = http2::Builder::new(Unstalled);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(FIELDS_MAX)
        .header_table_size(HPACK_TABLE_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        // The upstream's own date is relayed.
        .auto_date_header(false);
    let io = TokioIo::new(Rewound::new(read_ahead, stream));
    let mut http2 = pin!(builder.serve_connection(io, service));
    let mut closing = false;
    loop {
        let opened = streams.opened();
        let patience = if closing {
            LINGER_TIMEOUT
        } else {
            IDLE_TIMEOUT
        };
        tokio::select! {
            ended = http2.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "an HTTP/2 connection failed");
                }
                return;
            }
            _ = connection.drain.signaled(), if !closing => {}
            () = sleep(patience) => {
                if streams.any_since(opened) {
                    continue;
                }
                if closing {
                    // It was told, and has nothing in flight.
                    return;
                }
            }
        }
        closing = true;
        http2.as_mut().graceful_shutdown();
    }
}

/// How many streams a connection has and had.
#[derive(Clone, Default)]
struct Streams {
    opened: Arc<AtomicU64>,
    /// Each open stream holds one.
    here: Arc<()>,
}

impl Streams {
    fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    fn open(&self, slot: OwnedSemaphorePermit) -> Arc<Open> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Arc::new(Open {
            _slot: slot,
            _here: Arc::clone(&self.here),
        })
    }

    /// Whether there is a stream, or was one after `opened` had been read. The connection's service and its loop hold one mark each.
    fn any_since(&self, opened: u64) -> bool {
        self.opened() != opened || Arc::strong_count(&self.here) > 2
    }
}

/// Held by both ends of a stream's pipe.
pub(super) struct Open {
    _slot: OwnedSemaphorePermit,
    _here: Arc<()>,
}

/// Carries one stream out as an HTTP/1.1 request of its own.
async fn carry(
    connection: Connection,
    streams: Streams,
    request: Request<Incoming>,
) -> Result<Response<Answer>, h2::Error> {
    let Ok(slot) = Arc::clone(&connection.streams).try_acquire_owned() else {
        connection.shared.metrics.limit(Limit::Streams);
        // Says that nothing was done, so that the app may come again.
        return Err(h2::Reason::REFUSED_STREAM.into());
    };
    let open = streams.open(slot);
    let (parts, body) = request.into_parts();
    let (head, encoder) = match render(&parts, hyper::body::Body::is_end_stream(&body)) {
        Ok(rendered) => rendered,
        Err(refusal) => {
            connection.shared.metrics.rejected_head(refusal.code.name());
            return Answer::refusal(
                refusal,
                &connection.ids.next(),
                parts.method != Method::HEAD,
            );
        }
    };
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let (mut answer, to) = tokio::io::split(ours);
    let held = Arc::clone(&open);
    tokio::spawn(async move {
        connection.serve_pipe(theirs).await;
        drop(held);
    });
    let sending = Sending(tokio::spawn(send(to, head, encoder, body)));
    let mut buffer = BytesMut::new();
    let head = read_head(&mut answer, &mut buffer, parts.method.as_str())
        .await
        .ok_or(h2::Reason::INTERNAL_ERROR)?;
    Answer::relayed(head, answer, buffer, sending, open)
}

/// The stream's head as HTTP/1.1, and how its body is to be written. What is legal is for the gate to say.
fn render(parts: &request::Parts, is_bodiless: bool) -> Result<(Vec<u8>, Encoder), Refusal> {
    let bad = |message| Refusal::new(Code::BadRequest, message);
    let mut out = Vec::with_capacity(1024);
    let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    // CONNECT has no path; the gate refuses it by its method.
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    line(&[
        parts.method.as_str().as_bytes(),
        b" ",
        path.as_bytes(),
        b" HTTP/1.1\r\n",
    ]);

    let mut hosts = parts
        .headers
        .get_all(HOST)
        .iter()
        .map(|host| host.as_bytes());
    let authority = parts
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    match (authority, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => return Err(bad("there must be exactly one Host header")),
        (Some(authority), Some(host), None) if !authority.eq_ignore_ascii_case(host) => {
            return Err(bad("the Host header contradicts :authority"));
        }
        (Some(host), _, None) | (None, Some(host), None) => line(&[b"host: ", host, b"\r\n"]),
        // The gate says what is missing.
        (None, None, None) => {}
    }
    for (name, value) in &parts.headers {
        if name == HOST {
            continue;
        }
        let name = name.as_str();
        // The library resets such streams; the bytes made here must not depend on that, since these fields would change how they are read.
        if matches!(
            name,
            "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection"
        ) {
            return Err(bad("a field of one hop has no place in HTTP/2"));
        }
        line(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    let encoder = if is_bodiless || parts.headers.contains_key(CONTENT_LENGTH) {
        Encoder::Plain
    } else {
        line(&[b"transfer-encoding: chunked\r\n"]);
        Encoder::Chunked
    };
    line(&[b"\r\n"]);
    Ok((out, encoder))
}

/// The task that sends a request; it ends with the stream.
pub(super) struct Sending(tokio::task::JoinHandle<()>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends head and body into the pipe. If the body breaks off, so does the pipe: then the app is gone for whoever reads it.
async fn send(mut pipe: WriteHalf<DuplexStream>, head: Vec<u8>, encoder: Encoder, body: Incoming) {
    if pour(&mut pipe, head, encoder, body).await.is_err() {
        // The other end may be gone already.
        let _ = pipe.shutdown().await;
    }
}

async fn pour(
    pipe: &mut WriteHalf<DuplexStream>,
    mut out: Vec<u8>,
    encoder: Encoder,
    mut body: Incoming,
) -> io::Result<()> {
    pipe.write_all(&out).await?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| io::ErrorKind::UnexpectedEof)?;
        // Trailers are dropped.
        if let Some(piece) = frame.data_ref() {
            out.clear();
            encoder.piece(piece, &mut out);
            pipe.write_all(&out).await?;
        }
    }
    out.clear();
    encoder.end(&mut out);
    pipe.write_all(&out).await
}

/// The head of the final response.
async fn read_head(
    pipe: &mut ReadHalf<DuplexStream>,
    buffer: &mut BytesMut,
    method: &str,
) -> Option<ResponseHead> {
    let mut seen = 0;
    loop {
        match ResponseHead::parse(buffer, seen, method).ok()? {
            Some((head, length)) => {
                buffer.advance(length);
                if head.status >= 200 {
                    return Some(head);
                }
                seen = 0;
            }
            None => {
                seen = buffer.len();
                buffer.reserve(4096);
                if pipe.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
        }
    }
}

/// Whether a field of an HTTP/1.1 response has a place in HTTP/2.
pub(super) fn belongs(name: &str) -> bool {
    !fields::is_hop_by_hop(name) || name.eq_ignore_ascii_case("content-length")
}

/// Runs each stream as a task, and drops it (which resets the stream) when nothing has moved for too long.
#[derive(Clone, Copy)]
struct Unstalled;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Unstalled {
    fn execute(&self, stream: F) {
        tokio::spawn(async move {
            let mut stream = pin!(stream);
            let mut limit = pin!(sleep_until(Instant::now() + STREAM_IDLE_TIMEOUT));
            poll_fn(|context: &mut Context<'_>| {
                if limit.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                limit.as_mut().reset(Instant::now() + STREAM_IDLE_TIMEOUT);
                stream.as_mut().poll(context)
            })
            .await;
        });
    }
}
