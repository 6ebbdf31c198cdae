//! One exchange with the upstream: the request body and the response run at the same time, and the response is never collected.
//!
//! The response may begin before the request has ended. An app that goes away ends the upstream side at once: a provider bills for every
//! token that it goes on producing. A body that breaks off is never completed for the other side.

pub(crate) mod io;
mod request;
mod response;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use lifecycle::drain::Watcher;
use prometheus::Histogram;
use providers::UpstreamFault;
use tokio::time::Instant;

use crate::body::Whole;
use crate::http1::{Framing, RequestHead};
use crate::inject::Outgoing;
use crate::listen::{ClientStream, Scheme};
use crate::respond::{Code, Refusal};
use crate::sieve::{Settled, Sieve};
use crate::upstream::{BoundConnection, BoundUpstream};
use crate::ws::Closed;
use request::{Body, send_rest};
pub use response::CREDENTIALS_REJECTED;
use response::relay_response;

/// The app's connection: the socket, and bytes that were read and not consumed.
#[derive(Debug)]
pub struct Client {
    /// The socket.
    pub stream: ClientStream,
    /// Read ahead: the beginning of the body, or a pipelined request.
    pub buffer: BytesMut,
    /// How the app reached us.
    pub scheme: Scheme,
    /// Says when the agent is to end.
    pub drain: Watcher,
}

/// The body of the request.
#[derive(Clone, Copy, Debug)]
pub enum Sending<'a> {
    /// As it comes from the app.
    Stream,
    /// It is here already.
    Whole(&'a Whole),
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
    /// Nothing was sent to the app yet: it gets this. The provider may have seen the request.
    Refused(Refusal),
    /// The provider has seen nothing of the request, and the app has got nothing.
    NotSent(Refusal),
    /// Nothing was sent to the app yet, and another attempt may do better.
    Rejected(Rejected),
    /// It became a WebSocket, which ended so.
    Socket(Closed),
    /// The app went away.
    ClientGone,
    /// The response broke off after it had begun; the app's connection must be closed.
    Broken,
}

/// What the provider said no with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// What it is about.
    pub fault: UpstreamFault,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
}

/// What goes into every response head besides the upstream's fields.
#[derive(Clone, Copy)]
pub struct Marks<'a> {
    /// `x-tacit-request-id`.
    pub request_id: &'a str,
    /// How the app reached us.
    pub scheme: Scheme,
    /// The agent is draining: the app should come back on another connection.
    pub closing: bool,
    /// When the head of the request was complete.
    pub started: Instant,
    /// Gets the time from there to the head having gone upstream, connecting left out.
    pub overhead: &'a Histogram,
    /// No other attempt comes after this one: what the provider says is the answer.
    pub last: bool,
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
    Rejected(Rejected),
    /// The upstream's connection ended or failed.
    UpstreamDied,
}

const BROKE_OFF: Refusal = Refusal::new(
    Code::UpstreamUnreachable,
    "the provider closed the connection before it answered",
);

/// Carries out one request on `bound`, and says what came of it and what it used.
pub async fn exchange(
    client: &mut Client,
    bound: &BoundUpstream,
    request: &Outgoing<'_>,
    sending: Sending<'_>,
    marks: Marks<'_>,
) -> (Ended, Settled) {
    let mut sieve = Sieve::new(request.shape(), bound.lease());
    let ended = match run(client, bound, request, sending, marks, &mut sieve).await {
        Ok(ended) => ended,
        Err(refusal) => Ended::Refused(refusal),
    };
    (ended, sieve.settle())
}

async fn run(
    client: &mut Client,
    bound: &BoundUpstream,
    request: &Outgoing<'_>,
    sending: Sending<'_>,
    marks: Marks<'_>,
    sieve: &mut Sieve,
) -> Result<Ended, Refusal> {
    let before = marks.started.elapsed();
    let connecting = client.unless_gone(bound.connection());
    let Some(connection) = connecting.await else {
        return Ok(Ended::ClientGone);
    };
    let mut connection = match connection {
        Ok(connection) => connection,
        Err(refusal) => return Ok(Ended::NotSent(refusal)),
    };
    let connected = Instant::now();
    // Flushed, which a TLS stream needs.
    if matches!(sending, Sending::Stream)
        && request.head().expects_continue
        && io::write(&mut client.stream, b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .is_err()
    {
        return Ok(Ended::ClientGone);
    }
    loop {
        let progress = Progress::default();
        let reused = connection.reused;
        let sent = || {
            marks
                .overhead
                .observe((before + connected.elapsed()).as_secs_f64())
        };
        let tried = attempt(
            client,
            &mut connection,
            (request, sending),
            marks,
            &progress,
            sieve,
            sent,
        );
        return Ok(match tried.await {
            Ok((status, reusable)) => {
                let complete = Progress::is(&progress.request_done);
                if reusable && complete {
                    connection.keep();
                }
                Ended::Relayed {
                    status,
                    keep_alive: complete && !Progress::is(&progress.promised_close),
                }
            }
            Err(Stop::ClientGone) => Ended::ClientGone,
            Err(_) if Progress::is(&progress.responded) => Ended::Broken,
            Err(Stop::Refused(refusal)) => return Err(refusal),
            Err(Stop::Rejected(rejected)) => Ended::Rejected(rejected),
            // A kept connection may be closed by the other end just as we begin to use it.
            Err(Stop::UpstreamDied) if reused && may_repeat(request.head(), sending, &progress) => {
                connection = bound.new_connection().await?;
                continue;
            }
            Err(Stop::UpstreamDied) => return Err(BROKE_OFF),
        });
    }
}

/// Only what the upstream cannot have acted upon, or may be asked twice: never a POST that may have been carried out.
fn may_repeat(head: &RequestHead, sending: Sending<'_>, progress: &Progress) -> bool {
    if Progress::is(&progress.answered) || Progress::is(&progress.body_taken) {
        return false;
    }
    // A body of which nothing was sent has not been acted upon; one that is here and empty has been sent with the head.
    (matches!(sending, Sending::Stream) && head.has_body()) || matches!(head.method, "GET" | "HEAD")
}

async fn attempt(
    client: &mut Client,
    connection: &mut BoundConnection<'_>,
    (request, sending): (&Outgoing<'_>, Sending<'_>),
    marks: Marks<'_>,
    progress: &Progress,
    sieve: &mut Sieve,
    sent: impl FnOnce(),
) -> Result<(u16, bool), Stop> {
    // What has come of the body goes in one write with the head: one record, one packet, for most requests all there is.
    let mut body = Body::new(request.head().framing, sending);
    let taken = body.take(&client.buffer)?;
    match connection.send_head(request, body.out()).await {
        Ok(Ok(())) => sent(),
        Ok(Err(_)) => return Err(Stop::UpstreamDied),
        Err(refusal) => return Err(Stop::Refused(refusal)),
    }
    client.buffer.advance(taken);
    if taken > 0 || matches!(sending, Sending::Whole(whole) if !whole.bytes().is_empty()) {
        Progress::set(&progress.body_taken);
    }
    if body.is_done() {
        Progress::set(&progress.request_done);
    }
    both_ways(client, connection, body, request, marks, progress, sieve).await
}

/// Relays the answer to a request that went out completely, and whose beginning may be in the connection's buffer.
pub(crate) async fn answer(
    client: &mut Client,
    mut connection: BoundConnection<'_>,
    request: &Outgoing<'_>,
    marks: Marks<'_>,
    sieve: &mut Sieve,
) -> Ended {
    let progress = Progress::default();
    Progress::set(&progress.request_done);
    let body = Body::new(Framing::None, Sending::Stream);
    let answered = both_ways(
        client,
        &mut connection,
        body,
        request,
        marks,
        &progress,
        sieve,
    );
    match answered.await {
        Ok((status, reusable)) => {
            if reusable {
                connection.keep();
            }
            Ended::Relayed {
                status,
                keep_alive: !Progress::is(&progress.promised_close),
            }
        }
        Err(Stop::ClientGone) => Ended::ClientGone,
        Err(_) if Progress::is(&progress.responded) => Ended::Broken,
        Err(Stop::Refused(refusal)) => Ended::Refused(refusal),
        Err(Stop::Rejected(rejected)) => Ended::Rejected(rejected),
        Err(Stop::UpstreamDied) => Ended::Refused(BROKE_OFF),
    }
}

/// The rest of the body up and the response down, until the one or the other ends it.
async fn both_ways(
    client: &mut Client,
    connection: &mut BoundConnection<'_>,
    body: Body<'_>,
    request: &Outgoing<'_>,
    marks: Marks<'_>,
    progress: &Progress,
    sieve: &mut Sieve,
) -> Result<(u16, bool), Stop> {
    let Client { stream, buffer, .. } = client;
    let (mut from_client, mut to_client) = stream.split();
    if body.is_done() {
        // Nearly always. Nothing is left to write, so the upstream needs no halves that share a lock.
        let down = relay_response(
            (&mut connection.stream, &mut connection.buffer),
            &mut to_client,
            request,
            marks,
            progress,
            sieve,
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
        (&mut from_upstream, &mut connection.buffer),
        &mut to_client,
        request,
        marks,
        progress,
        sieve,
    );
    tokio::select! {
        biased;
        ended = down => ended,
        stop = up => Err(stop),
    }
}

impl Client {
    /// Waits for `work` as long as the app is there; what the app sends meanwhile is kept for later, up to a bound.
    pub async fn unless_gone<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let Self { stream, buffer, .. } = self;
        tokio::select! {
            biased;
            done = work => Some(done),
            () = request::watch(stream, buffer) => None,
        }
    }
}
