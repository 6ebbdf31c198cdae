//! One exchange with the upstream: the request body and the response run at the same time, and neither is collected.
//!
//! The response may begin before the request has ended. An app that goes away ends the upstream side at once: a provider bills for every
//! token that it goes on producing. A body that breaks off is never completed for the other side.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use prometheus::Histogram;
use providers::UpstreamFault;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::http1::{
    Decoder, Encoder, Framing, HEAD_MAX_BYTES, RequestHead, ResponseHead, response, target,
};
use crate::inject::Outgoing;
use crate::respond::{Code, Refusal};
use crate::upstream::{BoundConnection, BoundUpstream};

/// Read at once from either side. One TLS record.
const PIECE_BYTES: usize = 16 * 1024;

/// An app that sends nothing of a body it announced.
const REQUEST_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// An upstream that is silent, before its first byte or within a body. Reasoning models think for minutes; SDKs give up after ten.
const RESPONSE_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// A side that takes nothing more of what it was to get.
const WRITE_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Error bodies up to this size are read before they are relayed, to see whether they are about our key. Real ones are under 2 KiB.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// Interim responses (1xx) tolerated before the real one.
const INTERIM_MAX: usize = 8;

/// The app's connection: the socket, and bytes that were read and not consumed.
#[derive(Debug)]
pub struct Client {
    /// The socket.
    pub stream: TcpStream,
    /// Read ahead: the beginning of the body, or a pipelined request.
    pub buffer: BytesMut,
}

/// How an exchange ended.
#[derive(Debug)]
pub enum Ended {
    /// The response was relayed completely.
    Relayed {
        /// Its status.
        status: u16,
        /// Whether the app's connection may carry another request.
        keep_alive: bool,
    },
    /// Nothing was sent to the app yet: it gets this.
    Refused(Refusal),
    /// The app went away.
    ClientGone,
    /// The response broke off after it had begun; the app's connection must be closed.
    Broken,
}

/// What goes into every response head besides the upstream's fields.
#[derive(Clone, Copy)]
pub struct Marks<'a> {
    /// `x-tacit-request-id`.
    pub request_id: &'a str,
    /// The agent is draining: the app should come back on another connection.
    pub closing: bool,
    /// When the head of the request was complete.
    pub started: Instant,
    /// Gets the time from there to the head having gone upstream, connecting left out.
    pub overhead: &'a Histogram,
}

#[derive(Default)]
struct Progress {
    /// The request body went upstream completely.
    request_done: AtomicBool,
    /// At least one byte of the request body was taken, so that it cannot be sent again.
    body_taken: AtomicBool,
    /// At least one byte of the response was seen.
    answered: AtomicBool,
    /// The app has got at least part of a response head.
    responded: AtomicBool,
    /// That head said `connection: close`.
    promised_close: AtomicBool,
}

impl Progress {
    fn set(flag: &AtomicBool) {
        flag.store(true, Ordering::Relaxed);
    }

    fn is(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }
}

enum Stop {
    ClientGone,
    Refused(Refusal),
    /// The upstream's connection ended or failed.
    UpstreamDied,
}

const BROKE_OFF: Refusal = Refusal::new(
    Code::UpstreamUnreachable,
    "the provider closed the connection before it answered",
);

/// Carries out one request on `bound`.
pub async fn exchange(
    client: &mut Client,
    bound: &BoundUpstream,
    request: &Outgoing<'_>,
    marks: Marks<'_>,
) -> Ended {
    let before = marks.started.elapsed();
    let mut connection = match bound.connection().await {
        Ok(connection) => connection,
        Err(refusal) => return Ended::Refused(refusal),
    };
    let connected = Instant::now();
    if request.head().expects_continue
        && client
            .stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .is_err()
    {
        return Ended::ClientGone;
    }
    loop {
        let progress = Progress::default();
        let reused = connection.reused;
        let sent = || {
            marks
                .overhead
                .observe((before + connected.elapsed()).as_secs_f64())
        };
        match attempt(client, &mut connection, request, marks, &progress, sent).await {
            Ok((status, reusable)) => {
                let complete = Progress::is(&progress.request_done);
                if reusable && complete {
                    connection.keep();
                }
                return Ended::Relayed {
                    status,
                    keep_alive: complete && !Progress::is(&progress.promised_close),
                };
            }
            Err(Stop::ClientGone) => return Ended::ClientGone,
            Err(_) if Progress::is(&progress.responded) => return Ended::Broken,
            Err(Stop::Refused(refusal)) => return Ended::Refused(refusal),
            // A kept connection may be closed by the other end just as we begin to use it.
            Err(Stop::UpstreamDied) if reused && may_repeat(request.head(), &progress) => {
                match bound.new_connection().await {
                    Ok(fresh) => connection = fresh,
                    Err(refusal) => return Ended::Refused(refusal),
                }
            }
            Err(Stop::UpstreamDied) => return Ended::Refused(BROKE_OFF),
        }
    }
}

/// Only what the upstream cannot have acted upon, or may be asked twice: never a POST that may have been carried out.
fn may_repeat(head: &RequestHead, progress: &Progress) -> bool {
    if Progress::is(&progress.answered) || Progress::is(&progress.body_taken) {
        return false;
    }
    head.framing != Framing::None && head.framing != Framing::Length(0)
        || matches!(head.method, "GET" | "HEAD")
}

async fn attempt(
    client: &mut Client,
    connection: &mut BoundConnection<'_>,
    request: &Outgoing<'_>,
    marks: Marks<'_>,
    progress: &Progress,
    sent: impl FnOnce(),
) -> Result<(u16, bool), Stop> {
    match connection.send_head(request).await {
        Ok(Ok(())) => sent(),
        Ok(Err(_)) => return Err(Stop::UpstreamDied),
        Err(refusal) => return Err(Stop::Refused(refusal)),
    }
    let Client { stream, buffer } = client;
    let (mut from_client, mut to_client) = stream.split();
    let (mut from_upstream, mut to_upstream) = tokio::io::split(&mut connection.stream);
    let up = send_body(
        request.head(),
        &mut from_client,
        buffer,
        &mut to_upstream,
        progress,
    );
    let down = relay_response(
        &mut from_upstream,
        &mut connection.buffer,
        &mut to_client,
        request,
        marks,
        progress,
    );
    tokio::select! {
        // A response that is complete counts, even if the app went away in the same moment.
        biased;
        ended = down => ended,
        stop = up => Err(stop),
    }
}

/// Sends the request body, then watches for the app going away. Returns only when the exchange must end.
async fn send_body(
    head: &RequestHead,
    client: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    upstream: &mut (impl AsyncWrite + Unpin),
    progress: &Progress,
) -> Stop {
    let mut decoder = Decoder::new(head.framing);
    let encoder = if head.framing == Framing::Chunked {
        Encoder::Chunked
    } else {
        Encoder::Plain
    };
    let mut out = Vec::new();
    loop {
        out.clear();
        match decoder.decode(buffer, |content| encoder.piece(content, &mut out)) {
            Ok(0) => {}
            Ok(taken) => {
                Progress::set(&progress.body_taken);
                buffer.advance(taken);
            }
            Err(_) => {
                return Stop::Refused(Refusal::new(
                    Code::BadRequest,
                    "the request body is not valid chunked coding",
                ));
            }
        }
        if decoder.is_done() {
            encoder.end(&mut out);
        }
        if !out.is_empty() && write(upstream, &out).await.is_err() {
            // The provider may have answered and closed without reading on; the response decides.
            std::future::pending::<()>().await;
        }
        if decoder.is_done() {
            break;
        }
        match read(client, buffer, REQUEST_IDLE_TIMEOUT).await {
            Ok(0) => return Stop::ClientGone,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Stop::Refused(Refusal::new(
                    Code::BadRequest,
                    "the request body stopped for 60 s",
                ));
            }
            Err(_) => return Stop::ClientGone,
        }
    }
    Progress::set(&progress.request_done);
    watch(client, buffer).await;
    Stop::ClientGone
}

/// Returns when the app closes its connection. What it sends meanwhile is its next request, kept up to the size of a head.
async fn watch(client: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) {
    while buffer.len() < HEAD_MAX_BYTES {
        buffer.reserve(1024);
        match client.read_buf(buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    std::future::pending::<()>().await;
}

/// Relays the response. `Ok((status, reusable))` when it was complete.
async fn relay_response(
    upstream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    client: &mut (impl AsyncWrite + Unpin),
    request: &Outgoing<'_>,
    marks: Marks<'_>,
    progress: &Progress,
) -> Result<(u16, bool), Stop> {
    let head = read_head(upstream, buffer, request.head().method, progress).await?;
    let mut decoder = Decoder::new(head.framing);
    let mut early = Vec::new();
    if UpstreamFault::possible(head.status) {
        collect(upstream, buffer, &mut decoder, &mut early).await;
        let family = request.route().family;
        let unreadable = head.is_encoded() && !early.is_empty();
        if unreadable || family.classify(head.status, &early) == UpstreamFault::AuthBad {
            return Err(Stop::Refused(Refusal::new(
                Code::UpstreamCredentialsRejected,
                "the provider did not accept the key that Tacit holds; your security team has been told",
            )));
        }
    }
    let (text, encoder) = render_head(&head, request, marks, progress);
    let mut out = text;
    encoder.piece(&early, &mut out);
    if decoder.is_done() {
        encoder.end(&mut out);
    }
    Progress::set(&progress.responded);
    write(client, &out).await.map_err(|_| Stop::ClientGone)?;
    while !decoder.is_done() {
        if buffer.is_empty() && !more(upstream, buffer).await? {
            if decoder.ends_with_connection() {
                out.clear();
                encoder.end(&mut out);
                write(client, &out).await.map_err(|_| Stop::ClientGone)?;
                return Ok((head.status, false));
            }
            return Err(Stop::UpstreamDied);
        }
        out.clear();
        let taken = decoder
            .decode(buffer, |content| encoder.piece(content, &mut out))
            .map_err(|_| Stop::UpstreamDied)?;
        buffer.advance(taken);
        if decoder.is_done() {
            encoder.end(&mut out);
        }
        if !out.is_empty() {
            write(client, &out).await.map_err(|_| Stop::ClientGone)?;
        }
    }
    Ok((head.status, head.keep_alive))
}

/// The head of the final response; interim ones are dropped (we have answered `Expect` ourselves).
async fn read_head(
    upstream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    method: &str,
    progress: &Progress,
) -> Result<ResponseHead, Stop> {
    const PROTOCOL: Refusal = Refusal::new(
        Code::UpstreamUnreachable,
        "the provider's answer is not valid HTTP/1.1",
    );
    let mut interim = 0;
    let mut seen = 0;
    loop {
        match ResponseHead::parse(buffer, seen, method) {
            Err(_) => return Err(Stop::Refused(PROTOCOL)),
            Ok(Some((head, length))) => {
                buffer.advance(length);
                seen = 0;
                match head.status {
                    101 => return Err(Stop::Refused(PROTOCOL)),
                    100..=199 if interim < INTERIM_MAX => interim += 1,
                    100..=199 => return Err(Stop::Refused(PROTOCOL)),
                    _ => return Ok(head),
                }
            }
            Ok(None) => {
                seen = buffer.len();
                match read(upstream, buffer, RESPONSE_IDLE_TIMEOUT).await {
                    Ok(0) => return Err(Stop::UpstreamDied),
                    Ok(_) => Progress::set(&progress.answered),
                    // While the app is still sending, the upstream has nothing to answer; the body has a time limit of its own.
                    Err(error)
                        if error.kind() == io::ErrorKind::TimedOut
                            && !Progress::is(&progress.request_done) => {}
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        return Err(Stop::Refused(Refusal::new(
                            Code::UpstreamTimeout,
                            "the provider was silent for ten minutes",
                        )));
                    }
                    Err(_) => return Err(Stop::UpstreamDied),
                }
            }
        }
    }
}

/// Reads the beginning of an error body. Whatever goes wrong shows again when the rest is relayed.
async fn collect(
    upstream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    decoder: &mut Decoder,
    into: &mut Vec<u8>,
) {
    while !decoder.is_done() && into.len() < ERROR_BODY_MAX {
        if buffer.is_empty() && !matches!(more(upstream, buffer).await, Ok(true)) {
            return;
        }
        match decoder.decode(buffer, |content| into.extend_from_slice(content)) {
            Ok(taken) => buffer.advance(taken),
            Err(_) => return,
        }
    }
}

/// The response head for the app, and how its body is written.
fn render_head(
    head: &ResponseHead,
    request: &Outgoing<'_>,
    marks: Marks<'_>,
    progress: &Progress,
) -> (Vec<u8>, Encoder) {
    let asked = request.head();
    let mut out = Vec::with_capacity(1024);
    let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    line(&[
        b"HTTP/1.1 ",
        head.status.to_string().as_bytes(),
        b" ",
        response::reason(head.status).as_bytes(),
        b"\r\n",
    ]);
    for (name, value) in head.forwarded() {
        line(&[name.as_bytes(), b": ", value, b"\r\n"]);
    }
    for name in ["x-goog-upload-url", "x-goog-upload-control-url"] {
        if let Some(url) = head
            .fields
            .first(name)
            .and_then(|url| through_us(url, request))
        {
            line(&[name.as_bytes(), b": ", url.as_bytes(), b"\r\n"]);
        }
    }
    line(&[
        b"x-tacit-request-id: ",
        marks.request_id.as_bytes(),
        b"\r\n",
    ]);
    let encoder = match head.framing {
        Framing::Length(length) => {
            line(&[b"content-length: ", length.to_string().as_bytes(), b"\r\n"]);
            Encoder::Plain
        }
        Framing::None => {
            // To a HEAD this says how long the body would be.
            if let Some(length) = head
                .fields
                .first("content-length")
                .filter(|_| asked.method == "HEAD")
            {
                line(&[b"content-length: ", length, b"\r\n"]);
            }
            Encoder::Plain
        }
        Framing::Chunked | Framing::UntilClose if asked.is_http10 => Encoder::Plain,
        Framing::Chunked | Framing::UntilClose => {
            line(&[b"transfer-encoding: chunked\r\n"]);
            Encoder::Chunked
        }
    };
    let unbounded =
        asked.is_http10 && matches!(head.framing, Framing::Chunked | Framing::UntilClose);
    if !asked.keep_alive || unbounded || marks.closing || !Progress::is(&progress.request_done) {
        Progress::set(&progress.promised_close);
        line(&[b"connection: close\r\n"]);
    } else if asked.is_http10 {
        line(&[b"connection: keep-alive\r\n"]);
    }
    line(&[b"\r\n"]);
    (out, encoder)
}

/// Google answers a resumable upload with an absolute URL that SDKs call next: it must lead through us, or the key would be missing there.
fn through_us(url: &[u8], request: &Outgoing<'_>) -> Option<String> {
    let url = std::str::from_utf8(url).ok()?;
    let rest = url.strip_prefix(&request.route().wanted.origin.to_string())?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return None;
    }
    let query = target::without_credentials(query);
    let mark = if query.is_empty() { "" } else { "?" };
    Some(format!(
        "http://{}/{}{path}{mark}{query}",
        request.head().authority,
        request.route().name
    ))
}

/// Reads more of a response; false at the end of the connection.
async fn more(
    upstream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<bool, Stop> {
    match read(upstream, buffer, RESPONSE_IDLE_TIMEOUT).await {
        Ok(read) => Ok(read > 0),
        Err(_) => Err(Stop::UpstreamDied),
    }
}

async fn read(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    idle: Duration,
) -> io::Result<usize> {
    buffer.reserve(PIECE_BYTES);
    // The limit keeps what is read ahead to one piece whatever the allocation has room for.
    let mut piece = from.take(PIECE_BYTES as u64);
    timeout(idle, piece.read_buf(buffer))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let whole = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    timeout(WRITE_IDLE_TIMEOUT, whole)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
