//! Connections from apps: accepted within a bound, read one head at a time, closed in order.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use lifecycle::drain::Watcher;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::http1::{HEAD_MAX_BYTES, RequestHead};
use crate::pipeline::{Done, Refused, Shared};
use crate::relay::Client;
use crate::respond::{self, Refusal};

/// Open connections from apps. Far beyond what a pod needs, and well under the usual 1024 × 2 descriptors with an upstream each.
const CONNECTIONS_MAX: usize = 1024;

/// Room for a first read. SDKs send heads of less than 2 KiB; a kept connection holds this much.
const HEAD_ROOM_BYTES: usize = 4096;

/// A head that has begun must be complete after this long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A kept connection without a request. Longer than the keep-alive of SDK pools (httpx: 5 s, undici: 4 s, Go: 90 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// After a refusal the rest of what the app is sending is read and dropped for this long and this far, so that closing does not reset the
/// connection before the app has read why.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// Pause after a failed accept (descriptors exhausted), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the drain begins.
pub async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    ids: Arc<RequestIds>,
    drain: Watcher,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Over the limit new connections wait in the kernel's queue.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = drain.signaled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = Connection {
            shared: Arc::clone(&shared),
            ids: Arc::clone(&ids),
            drain: drain.clone(),
        };
        tokio::spawn(async move {
            connection.shared.metrics.connections.inc();
            connection.serve(stream).await;
            connection.shared.metrics.connections.dec();
            drop(slot);
        });
    }
}

/// Binds the listener for apps.
pub async fn bind(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

/// Names for requests: random per process, then counted.
#[derive(Debug)]
pub struct RequestIds {
    start: String,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids that begin with these random bytes.
    pub fn new(random: [u8; 6]) -> Self {
        Self {
            start: hex::encode(random),
            next: AtomicU64::new(0),
        }
    }

    fn next(&self) -> String {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = String::with_capacity(32);
        // Writing to a String does not fail.
        let _ = write!(id, "req_{}{next:08x}", self.start);
        id
    }
}

struct Connection {
    shared: Arc<Shared>,
    ids: Arc<RequestIds>,
    drain: Watcher,
}

/// Why no head came.
enum NoHead {
    /// The connection ended, was idle for too long, or is drained.
    Quiet,
    Refused(Refusal),
}

impl Connection {
    async fn serve(&self, stream: TcpStream) {
        // Not fatal: only latency suffers.
        let _ = stream.set_nodelay(true);
        let mut client = Client {
            stream,
            buffer: BytesMut::new(),
        };
        // One for the connection, not one for each head: it stands in a list under a lock.
        let mut drained = std::pin::pin!(self.drain.signaled());
        loop {
            let head = match self.read_head(&mut client, drained.as_mut()).await {
                Ok(head) => head,
                Err(NoHead::Quiet) => return,
                Err(NoHead::Refused(refusal)) => {
                    self.shared.metrics.rejected_head(refusal.code.name());
                    return self
                        .refuse(
                            &mut client,
                            Refused {
                                refusal,
                                family: None,
                            },
                            true,
                        )
                        .await;
                }
            };
            let closing = self.drain.reason().is_some();
            let request_id = self.ids.next();
            match self
                .shared
                .handle(&mut client, &head, &request_id, closing)
                .await
            {
                Done::KeepAlive => {}
                Done::Close => return linger(&mut client).await,
                Done::Refused(refused) => {
                    return self
                        .refuse_as(&mut client, refused, &request_id, head.method != "HEAD")
                        .await;
                }
            }
        }
    }

    async fn read_head(
        &self,
        client: &mut Client,
        mut drained: Pin<&mut impl Future>,
    ) -> Result<RequestHead, NoHead> {
        let mut seen = 0;
        let mut deadline = (!client.buffer.is_empty()).then(|| Instant::now() + HEAD_TIMEOUT);
        loop {
            match RequestHead::parse(&client.buffer, seen) {
                Err(reject) => return Err(NoHead::Refused(reject.into())),
                Ok(Some((head, length))) => {
                    client.buffer.advance(length);
                    return Ok(head);
                }
                Ok(None) => seen = client.buffer.len(),
            }
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
                    return Err(NoHead::Refused(Refusal::new(
                        respond::Code::BadRequest,
                        "the request head was not complete after 10 s",
                    )));
                }
                Ok(_) | Err(_) => return Err(NoHead::Quiet),
            }
            deadline = deadline.or_else(|| Some(Instant::now() + HEAD_TIMEOUT));
        }
    }

    async fn refuse(&self, client: &mut Client, refused: Refused, with_body: bool) {
        self.refuse_as(client, refused, &self.ids.next(), with_body)
            .await;
    }

    async fn refuse_as(
        &self,
        client: &mut Client,
        refused: Refused,
        request_id: &str,
        with_body: bool,
    ) {
        let Refused { refusal, family } = refused;
        tracing::debug!(request_id, code = refusal.code.name(), "refused");
        let text = respond::refusal(refusal, family, request_id, false, with_body);
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
