//! Connections from apps: accepted within a bound, plain or with TLS, each served as a task of its own.
//!
//! Nothing that one app does may keep another waiting: what can stall (a handshake, a head, a body) stalls its own task, under a limit of its
//! own, and each door has places of its own.

mod answer;
mod authority;
mod connection;
mod http2;
mod stream;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lifecycle::drain::Watcher;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::metrics::Limit;
use crate::pipeline::Shared;

pub use authority::{Authority, AuthorityError};
pub use connection::Scheme;
use connection::{Connection, IDLE_TIMEOUT, LINGER_TIMEOUT};
pub use stream::{ClientStream, ReadHalf, WriteHalf};
pub use tls::{Tls, publish};

/// Open connections from apps, for each door. Far beyond what a pod needs, and well under the usual 1024 × 2 descriptors with an upstream each.
const CONNECTIONS_MAX: usize = 1024;

/// Pause after a failed accept (descriptors exhausted), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How apps come in at a listener.
#[derive(Debug)]
pub enum Door {
    /// HTTP/1.1, or HTTP/2 by prior knowledge.
    Plain,
    /// The same within TLS; ALPN chooses.
    Tls(Tls),
}

/// What all doors share.
#[derive(Clone)]
pub struct House {
    shared: Arc<Shared>,
    ids: Arc<RequestIds>,
    drain: Watcher,
    streams: Arc<Semaphore>,
}

impl House {
    /// Connections end when `drain` begins, those with a request when that has ended.
    pub fn new(shared: Arc<Shared>, ids: Arc<RequestIds>, drain: Watcher) -> Self {
        Self {
            shared,
            ids,
            drain,
            streams: Arc::new(Semaphore::new(http2::STREAMS_MAX)),
        }
    }

    fn connection(&self, door: &Door) -> Connection {
        Connection {
            shared: Arc::clone(&self.shared),
            ids: Arc::clone(&self.ids),
            drain: self.drain.clone(),
            streams: Arc::clone(&self.streams),
            scheme: match door {
                Door::Plain => Scheme::Http,
                Door::Tls(_) => Scheme::Https,
            },
        }
    }
}

/// Accepts until the drain begins.
pub async fn accept(listener: TcpListener, door: Door, house: House) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let door = Arc::new(door);
    let metrics = &house.shared.metrics;
    loop {
        if slots.available_permits() == 0 {
            metrics.limit(Limit::Connections);
        }
        // Over the limit new connections wait in the kernel's queue.
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            _ = house.drain.signaled() => return,
        };
        let Ok(slot) = slot else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = house.drain.signaled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (connection, door) = (house.connection(&door), Arc::clone(&door));
        let open = metrics.connections.clone();
        tokio::spawn(async move {
            open.inc();
            connection.serve(&door, stream).await;
            open.dec();
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
        id.push_str("req_");
        id.push_str(&self.start);
        // At least eight digits. Each request has one, so without the machinery of `format!`.
        let digits = (u64::BITS - next.leading_zeros()).div_ceil(4).max(8);
        for digit in (0..digits).rev() {
            let nibble = u32::try_from(next >> (4 * digit) & 15).unwrap_or(0);
            id.push(char::from_digit(nibble, 16).unwrap_or('0'));
        }
        id
    }
}
