//! One connection of an app: heads are read one at a time, and answered in order.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use lifecycle::drain::Watcher;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::http2::PREFACE;
use super::{ClientStream, Door, RequestIds, http2, tls};
use crate::http1::{HEAD_MAX_BYTES, RequestHead};
use crate::metrics::Limit;
use crate::pipeline::{Done, Refused, Shared};
use crate::relay::Client;
use crate::respond::{self, Refusal};

/// Room for a first read. SDKs send heads of less than 2 KiB; a kept connection holds this much.
const HEAD_ROOM_BYTES: usize = 4096;

/// A head that has begun must be complete after this long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A kept connection without a request. Longer than the keep-alive of SDK pools (httpx: 5 s, undici: 4 s, Go: 90 s).
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// After a refusal the rest of what the app is sending is read and dropped for this long and this far, so that closing does not reset the
/// connection before the app has read why.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// What a connection works with.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) ids: Arc<RequestIds>,
    pub(super) drain: Watcher,
    /// Places for HTTP/2 streams, over all connections.
    pub(super) streams: Arc<Semaphore>,
    pub(super) scheme: Scheme,
}

/// How the app reached us, for the URLs that we answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Why no head came.
enum NoHead {
    /// The connection ended, was idle for too long, or is drained.
    Quiet,
    Refused(Refusal),
}

impl Connection {
    /// Serves what came in by `door`.
    pub(super) async fn serve(self, door: &Door, stream: TcpStream) {
        // Not fatal: only latency suffers.
        let _ = stream.set_nodelay(true);
        let http2 = match door {
            Door::Plain => self.requests(ClientStream::Tcp(stream), PREFACE).await,
            Door::Tls(acceptor) => {
                let accepted = tokio::select! {
                    accepted = acceptor.accept(stream, &self.shared.metrics) => accepted,
                    // A handshake has nothing to finish.
                    _ = self.drain.signaled() => None,
                };
                let Some(stream) = accepted else { return };
                let is_http2 = tls::is_http2(&stream);
                let stream = ClientStream::Tls(Box::new(stream));
                if is_http2 {
                    Some((stream, BytesMut::new()))
                } else {
                    // Over TLS nothing but ALPN chooses HTTP/2.
                    self.requests(stream, b"").await
                }
            }
        };
        if let Some((stream, read_ahead)) = http2 {
            http2::serve(self, stream, read_ahead).await;
        }
    }

    /// Serves one stream of an HTTP/2 connection.
    pub(super) async fn serve_pipe(self, pipe: DuplexStream) {
        self.requests(ClientStream::Duplex(pipe), b"").await;
    }

    /// Answers requests until the connection ends; or hands it back if it began with `preface`, with what was read of it.
    async fn requests(
        &self,
        stream: ClientStream,
        mut preface: &[u8],
    ) -> Option<(ClientStream, BytesMut)> {
        let mut client = Client {
            stream,
            buffer: BytesMut::new(),
            scheme: self.scheme,
            drain: self.drain.clone(),
        };
        // One for the connection, not one for each head: it stands in a list under a lock.
        let mut drained = std::pin::pin!(self.drain.signaled());
        loop {
            let head = match self.read_head(&mut client, preface, drained.as_mut()).await {
                Ok(Some(head)) => head,
                Ok(None) => return Some((client.stream, client.buffer)),
                Err(NoHead::Quiet) => return None,
                Err(NoHead::Refused(refusal)) => {
                    self.shared.metrics.rejected_head(refusal.code.name());
                    let refused = Refused { refusal, api: None };
                    self.refuse(&mut client, refused, &self.ids.next(), true)
                        .await;
                    return None;
                }
            };
            preface = b"";
            let closing = self.drain.reason().is_some();
            let request_id = self.ids.next();
            let done = self.shared.handle(&mut client, &head, &request_id, closing);
            match done.await {
                Done::KeepAlive => {}
                Done::Close => {
                    linger(&mut client).await;
                    return None;
                }
                Done::Refused(refused) => {
                    self.refuse(&mut client, refused, &request_id, head.method != "HEAD")
                        .await;
                    return None;
                }
            }
        }
    }

    /// The next head; nothing if the connection begins with `preface` (unless that is empty), which stays in the buffer.
    async fn read_head(
        &self,
        client: &mut Client,
        preface: &[u8],
        mut drained: Pin<&mut impl Future>,
    ) -> Result<Option<RequestHead>, NoHead> {
        let mut parsed = 0;
        let mut deadline = (!client.buffer.is_empty()).then(|| Instant::now() + HEAD_TIMEOUT);
        loop {
            if !preface.is_empty() && client.buffer.starts_with(preface) {
                return Ok(None);
            }
            if !preface.starts_with(&client.buffer) {
                match RequestHead::parse(&client.buffer, parsed) {
                    Err(reject) => return Err(NoHead::Refused(reject.into())),
                    Ok(Some((head, length))) => {
                        client.buffer.advance(length);
                        return Ok(Some(head));
                    }
                    Ok(None) => parsed = client.buffer.len(),
                }
            }
            let seen = client.buffer.len();
            if client.buffer.is_empty() && client.buffer.capacity() > HEAD_ROOM_BYTES {
                // Gives an idle connection's memory back.
                client.buffer = BytesMut::new();
            }
            client.buffer.reserve(HEAD_ROOM_BYTES);
            let mut piece = (&mut client.stream).take(HEAD_MAX_BYTES as u64);
            let read = timeout_at(
                deadline.unwrap_or_else(|| Instant::now() + IDLE_TIMEOUT),
                piece.read_buf(&mut client.buffer),
            );
            let read = tokio::select! {
                read = read => read,
                // A connection without a request has nothing to finish.
                _ = drained.as_mut(), if seen == 0 => return Err(NoHead::Quiet),
            };
            match read {
                Ok(Ok(1..)) => {}
                Err(_) if seen > 0 => {
                    return Err(NoHead::Refused(Refusal::of_limit(
                        Limit::HeadTime,
                        respond::Code::BadRequest,
                        "the request head was not complete after 10 s",
                    )));
                }
                Ok(_) | Err(_) => return Err(NoHead::Quiet),
            }
            deadline = deadline.or_else(|| Some(Instant::now() + HEAD_TIMEOUT));
        }
    }

    async fn refuse(
        &self,
        client: &mut Client,
        refused: Refused,
        request_id: &str,
        with_body: bool,
    ) {
        let Refused { refusal, api } = refused;
        tracing::debug!(request_id, code = refusal.code.name(), "refused");
        if let Some(limit) = refusal.limit {
            self.shared.metrics.limit(limit);
        }
        let text = respond::refusal(refusal, api, request_id, false, with_body);
        if matches!(
            timeout(HEAD_TIMEOUT, client.stream.write_all(&text)).await,
            Ok(Ok(()))
        ) {
            linger(client).await;
        }
    }
}

async fn linger(client: &mut Client) {
    client.buffer = BytesMut::new();
    if client.stream.shutdown().await.is_err() {
        return;
    }
    let drain = async {
        let mut dropped = 0;
        let mut piece = vec![0; 4096];
        while dropped < LINGER_BYTES {
            match client.stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(read) => dropped += read,
            }
        }
    };
    // When the time is up the connection is reset; the app had a second to read.
    let _ = timeout(LINGER_TIMEOUT, drain).await;
}
