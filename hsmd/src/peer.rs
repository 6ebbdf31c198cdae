//! Connections with the identity that the kernel gives them, and a bound on how many one user may hold.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use attest::{OldKernel, Refused};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::server::Connected;

/// Connections that one user may hold on one socket. An agent needs one or two; a leaking client stops here, before it
/// takes all descriptors.
const CONNECTIONS_PER_UID_MAX: usize = 128;

/// Who is at the other end, by SO_PEERCRED at the time of the connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Process id; 0 when it lives in a PID namespace that we cannot see.
    pub pid: u32,
    /// The process, held by its pidfd, where callers are attested; why not, if the kernel could not say. A connection that is refused for
    /// that is kept, so that its first call hears the reason and the audit log has it.
    pub process: Option<Result<Arc<attest::Peer>, Refused>>,
}

/// Counts open connections by user.
#[derive(Debug, Clone, Default)]
struct Quota(Arc<Mutex<HashMap<u32, usize>>>);

impl Quota {
    fn take(&self, uid: u32) -> Option<Held> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid).or_default();
        if *count >= CONNECTIONS_PER_UID_MAX {
            return None;
        }
        *count += 1;
        Some(Held {
            quota: self.clone(),
            uid,
        })
    }
}

#[derive(Debug)]
struct Held {
    quota: Quota,
    uid: u32,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.quota.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

/// One accepted connection.
#[derive(Debug)]
pub struct PeerStream {
    stream: UnixStream,
    peer: Peer,
    _held: Held,
}

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The connections of a listener, as tonic wants them. A refused connection is closed; an error of `accept` is waited
/// out by the next poll and never ends the stream.
#[derive(Debug)]
pub struct Incoming {
    listener: UnixListener,
    quota: Quota,
    refused: prometheus::IntCounter,
    /// What an old kernel means, where callers are attested.
    attested: Option<OldKernel>,
}

impl Incoming {
    /// From a bound listener; `refused` counts connections over the quota.
    pub fn new(listener: UnixListener, refused: prometheus::IntCounter) -> Self {
        Self {
            listener,
            quota: Quota::default(),
            refused,
            attested: None,
        }
    }

    /// The same, with each peer's process held from the moment of `accept`.
    #[must_use]
    pub fn attested(mut self, old_kernel: OldKernel) -> Self {
        self.attested = Some(old_kernel);
        self
    }
}

impl Stream for Incoming {
    type Item = io::Result<PeerStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let stream = match this.listener.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Ok((stream, _))) => stream,
            };
            let Ok(cred) = stream.peer_cred() else {
                continue;
            };
            let peer = Peer {
                uid: cred.uid(),
                pid: cred
                    .pid()
                    .and_then(|pid| u32::try_from(pid).ok())
                    .unwrap_or(0),
                process: this
                    .attested
                    .map(|old_kernel| attest::Peer::take(stream.as_fd(), old_kernel).map(Arc::new)),
            };
            match this.quota.take(peer.uid) {
                Some(held) => {
                    return Poll::Ready(Some(Ok(PeerStream {
                        stream,
                        peer,
                        _held: held,
                    })));
                }
                None => this.refused.inc(),
            }
        }
    }
}
