//! One WebSocket from the app's handshake to the end: the provider is asked first, and the app hears 101 only after a valid 101.

use std::time::Duration;

use bytes::Buf as _;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::frames::Frames;
use super::handshake::{Offer, response_head};
use super::relay::{APP_TOO_LARGE, CROWDED, Closed, Ending, Side, UPSTREAM_TOO_LARGE, relay};
use super::room::Room;
use crate::agent::DRAIN_TIMEOUT;
use crate::body::Spool;
use crate::http1::{HEAD_MAX_BYTES, ResponseHead, Upgrade};
use crate::inject::Outgoing;
use crate::keys::{KeySource, Terms, Wanted};
use crate::listen::ClientStream;
use crate::metrics::{Limit, Metrics};
use crate::relay::{self as http, Client, Ended, Marks, io};
use crate::respond::{Code, Refusal};
use crate::sieve::Settled;
use crate::upstream::{BoundConnection, BoundUpstream};

/// Sockets open at one time: no pod talks to so many sessions. What their messages take is bounded for all together.
const SOCKETS_MAX: usize = 256;

/// A provider answers a handshake in under a second; one that opens a session first, in a few.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// While a socket is open its key is asked for again so often: a revoked one closes it, and so do terms that have changed. Answered from memory, but for `lease.ttl = "0s"`.
const KEY_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How long before the end of a drain the sockets that are still open are closed in order, rather than reset.
const GOODBYE: Duration = Duration::from_secs(3);

const NOT_OVER_HTTP2: Refusal = Refusal::new(
    Code::BadRequest,
    "WebSocket over HTTP/2 is not offered; open an HTTP/1.1 connection for it",
);

const ENDING: Refusal = Refusal::new(
    Code::RateLimited,
    "the agent is ending; open the WebSocket again in a moment",
);

const OTHER_TERMS: Refusal = Refusal::new(
    Code::PermissionDenied,
    "what the key may be used for has changed; open the WebSocket again",
);

const TOO_MANY: Refusal = Refusal::new(
    Code::RateLimited,
    "this agent has 256 WebSockets open, which is all it may",
);

const SILENT: Refusal = Refusal::new(
    Code::UpstreamTimeout,
    "the provider did not answer the WebSocket handshake within 30 s",
);

const BROKE_OFF: Refusal = Refusal::new(
    Code::UpstreamUnreachable,
    "the provider closed the connection before it answered the WebSocket handshake",
);

/// The sockets of this agent.
#[derive(Debug)]
pub struct Sockets {
    slots: Semaphore,
    spool: Spool,
    metrics: Metrics,
}

/// A socket that is to be opened.
pub struct Opening<'a> {
    /// What the app asks for.
    pub upgrade: &'a Upgrade,
    /// The provider, with the key that may go there.
    pub bound: &'a BoundUpstream,
    /// The request, granted.
    pub request: Outgoing<'a>,
    /// What goes into the answer.
    pub marks: Marks<'a>,
    /// Where the key came from, and which it is: a revoked one closes the socket.
    pub key: (&'a dyn KeySource, &'a Wanted),
}

/// What the provider said.
enum Answer {
    /// A WebSocket, with this subprotocol.
    Socket(Option<String>),
    /// Something else; its head is still in the connection's buffer.
    Http,
}

impl Sockets {
    /// None yet. Their messages share the memory of `spool` with the bodies of requests.
    pub fn new(metrics: &Metrics, spool: &Spool) -> Self {
        Self {
            spool: spool.clone(),
            slots: Semaphore::new(SOCKETS_MAX),
            metrics: metrics.clone(),
        }
    }

    /// Opens a socket and relays it to its end. An answer of the provider that is no socket is relayed as any other.
    pub async fn exchange(
        &self,
        client: &mut Client,
        opening: Opening<'_>,
        mut frames: Frames<'_>,
    ) -> (Ended, Settled) {
        match self.run(client, opening, &mut frames).await {
            Ended::Socket(closed) => {
                let settled = frames.settle(closed.is_clean());
                (Ended::Socket(closed), settled)
            }
            ended => (ended, frames.settle_answer()),
        }
    }

    async fn run(
        &self,
        client: &mut Client,
        opening: Opening<'_>,
        frames: &mut Frames<'_>,
    ) -> Ended {
        let Opening {
            upgrade,
            bound,
            request,
            marks,
            key: (keys, wanted),
        } = opening;
        // The library refuses the fields that ask for one.
        if matches!(client.stream, ClientStream::Duplex(_)) {
            return Ended::Refused(NOT_OVER_HTTP2);
        }
        if marks.closing {
            return Ended::Refused(ENDING);
        }
        let Ok(_slot) = self.slots.try_acquire() else {
            self.metrics.limit(Limit::Sockets);
            return Ended::Refused(TOO_MANY);
        };
        let offer = match Offer::new(upgrade) {
            Ok(offer) => offer,
            Err(refusal) => return Ended::Refused(refusal),
        };
        let request = request.offering(&offer);
        // Never a kept connection: this one will be kept by nobody, and must not be found closed.
        let mut connection = match client.unless_gone(bound.new_connection()).await {
            Some(Ok(connection)) => connection,
            Some(Err(refusal)) => return Ended::NotSent(refusal),
            None => return Ended::ClientGone,
        };
        let asking = timeout(ANSWER_TIMEOUT, ask(&mut connection, &request, &offer));
        let protocol = match client.unless_gone(asking).await {
            None => return Ended::ClientGone,
            Some(Err(_)) => return Ended::Refused(SILENT),
            Some(Ok(Err(refusal))) => return Ended::Refused(refusal),
            Some(Ok(Ok(Answer::Http))) => {
                return http::answer(client, connection, &request, marks, frames.sieve()).await;
            }
            Some(Ok(Ok(Answer::Socket(protocol)))) => protocol,
        };
        let head = response_head(upgrade, protocol.as_deref(), marks.request_id);
        if io::write(&mut client.stream, head.as_bytes())
            .await
            .is_err()
        {
            return Ended::ClientGone;
        }
        self.metrics.sockets.inc();
        let ends = ends(client.drain.clone(), keys, wanted, &bound.lease().terms);
        let app = Side {
            read_ahead: client.buffer.split().to_vec(),
            stream: &mut client.stream,
            room: Room::new(&self.spool),
        };
        let upstream = Side {
            read_ahead: connection.buffer.split().to_vec(),
            stream: &mut connection.stream,
            room: Room::new(&self.spool),
        };
        let closed = relay(app, upstream, ends, frames).await;
        self.metrics.sockets.dec();
        match closed {
            Closed::Refused(APP_TOO_LARGE | UPSTREAM_TOO_LARGE) => {
                self.metrics.limit(Limit::SocketMessage);
            }
            Closed::Refused(CROWDED) => self.metrics.limit(Limit::LargeBodies),
            _ => {}
        }
        Ended::Socket(closed)
    }
}

/// Sends the handshake and reads the head of the answer.
async fn ask(
    connection: &mut BoundConnection<'_>,
    request: &Outgoing<'_>,
    offer: &Offer<'_>,
) -> Result<Answer, Refusal> {
    const PROTOCOL: Refusal = Refusal::new(
        Code::UpstreamUnreachable,
        "the provider's answer is not valid HTTP/1.1",
    );
    connection
        .send_head(request, b"")
        .await?
        .map_err(|_| BROKE_OFF)?;
    let mut seen = 0;
    loop {
        let parsed = ResponseHead::parse(&connection.buffer, seen, request.head().method);
        match parsed.map_err(|_| PROTOCOL)? {
            Some((head, length)) if head.status == 101 => {
                let protocol = offer.accept(&head)?.map(str::to_owned);
                connection.buffer.advance(length);
                return Ok(Answer::Socket(protocol));
            }
            // The relay reads it once more, and drops what is only interim.
            Some(_) => return Ok(Answer::Http),
            None => {
                seen = connection.buffer.len();
                connection.buffer.reserve(HEAD_MAX_BYTES.min(4096));
                let read = connection.stream.read_buf(&mut connection.buffer).await;
                if read.map_err(|_| BROKE_OFF)? == 0 {
                    return Err(BROKE_OFF);
                }
            }
        }
    }
}

/// What ends a socket that both sides would go on with.
async fn ends(
    drain: lifecycle::drain::Watcher,
    keys: &dyn KeySource,
    wanted: &Wanted,
    terms: &Terms,
) -> Ending {
    let drained = async {
        drain.signaled().await;
        sleep(DRAIN_TIMEOUT.saturating_sub(GOODBYE)).await;
    };
    let revoked = async {
        loop {
            sleep(KEY_CHECK_INTERVAL).await;
            match keys.lease(wanted).await {
                Err(refusal) if refusal.code == Code::KeyRevoked => return refusal,
                // What was opened, and each message since, was judged by other terms.
                Ok(lease) if *lease.terms != *terms => return OTHER_TERMS,
                Ok(_) | Err(_) => {}
            }
        }
    };
    tokio::select! {
        () = drained => Ending::Draining,
        refusal = revoked => Ending::Refused(refusal),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::keys::fake::Fake;
    use crate::keys::terms::Models;
    use lifecycle::drain::{Reason, Trigger};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_a_socket_in_time_and_a_revoked_key_before_that() {
        let wanted = Wanted {
            key_id: "k".parse().unwrap(),
            provider: "openai".to_owned(),
            origin: "https://api.openai.com".parse().unwrap(),
        };
        let revoked = Refusal::new(Code::KeyRevoked, "revoked");
        let unreachable = Refusal::new(Code::HsmUnavailable, "not now");
        let (fake, drain) = (
            Fake::new(Duration::from_secs(60), Duration::ZERO),
            Trigger::new(),
        );
        // An HSM that cannot be reached says nothing about the key.
        for answer in [Ok((1, 1)), Err(unreachable), Ok((2, 2)), Err(revoked)] {
            fake.then(answer);
        }
        let began = Instant::now();
        let open = Terms::open();
        let ending = ends(drain.watcher(), &fake, &wanted, &open).await;
        assert_eq!(ending, Ending::Refused(revoked));
        assert_eq!(began.elapsed(), 4 * KEY_CHECK_INTERVAL);
        let steady = Fake::new(Duration::from_secs(60), Duration::ZERO);
        drain.start(Reason::Terminate);
        let began = Instant::now();
        let ending = ends(drain.watcher(), &steady, &wanted, &open).await;
        assert_eq!(ending, Ending::Draining);
        assert_eq!(began.elapsed(), DRAIN_TIMEOUT - GOODBYE);
        // Other terms, even wider ones, are not those that the messages so far were judged by.
        let opened_under = Terms {
            models: Models::from_names(["one".to_owned()]),
            ..Terms::open()
        };
        let began = Instant::now();
        let ending = ends(Trigger::new().watcher(), &steady, &wanted, &opened_under).await;
        assert_eq!(ending, Ending::Refused(OTHER_TERMS));
        assert_eq!(began.elapsed(), KEY_CHECK_INTERVAL);
    }
}
