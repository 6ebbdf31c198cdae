//! One exchange with the upstream: the request body and the response run at the same time, and neither is collected.
//!
//! The response may begin before the request has ended. An app that goes away ends the upstream side at once: a provider bills for every
//! token that it goes on producing. A body that breaks off is never completed for the other side.

mod io;
mod request;
mod response;

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf as _, BytesMut};
use prometheus::Histogram;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::http1::{Framing, RequestHead};
use crate::inject::Outgoing;
use crate::respond::{Code, Refusal};
use crate::upstream::{BoundConnection, BoundUpstream};
use request::{Body, send_rest};
use response::relay_response;

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
    // What has come of the body goes in one write with the head: one record, one packet, for most requests all there is.
    let mut body = Body::new(request.head().framing);
    let taken = body.take(&client.buffer)?;
    match connection.send_head(request, &body.out).await {
        Ok(Ok(())) => sent(),
        Ok(Err(_)) => return Err(Stop::UpstreamDied),
        Err(refusal) => return Err(Stop::Refused(refusal)),
    }
    client.buffer.advance(taken);
    if taken > 0 {
        Progress::set(&progress.body_taken);
    }
    if body.is_done() {
        Progress::set(&progress.request_done);
    }
    let Client { stream, buffer } = client;
    let (mut from_client, mut to_client) = stream.split();
    if body.is_done() {
        // Nearly always. Nothing is left to write, so the upstream needs no halves that share a lock.
        let down = relay_response(
            &mut connection.stream,
            &mut connection.buffer,
            &mut to_client,
            request,
            marks,
            progress,
        );
        return tokio::select! {
            // A response that is complete counts, even if the app went away in the same moment.
            biased;
            ended = down => ended,
            () = request::watch(&mut from_client, buffer) => Err(Stop::ClientGone),
        };
    }
    let (mut from_upstream, mut to_upstream) = tokio::io::split(&mut connection.stream);
    let up = send_rest(body, &mut from_client, buffer, &mut to_upstream, progress);
    let down = relay_response(
        &mut from_upstream,
        &mut connection.buffer,
        &mut to_client,
        request,
        marks,
        progress,
    );
    tokio::select! {
        biased;
        ended = down => ended,
        stop = up => Err(stop),
    }
}
