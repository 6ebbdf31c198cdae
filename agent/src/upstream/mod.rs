//! One pinned upstream per route: fixed origin, fixed server name, fixed roots, and the connections to it.
//!
//! The type carries the rule: a key leaves only through [`BoundUpstream::connection`] and [`BoundConnection::send_head`], a bound upstream comes only from
//! [`Upstream::bind`], and that compares route and origin with the opened header of the key. Nothing of a request chooses where it goes, and
//! proxies or certificate files named in the environment are not looked at.

pub mod address;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use custody::Origin;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::inject::Outgoing;
use crate::keys::Lease;
use crate::relay::io::within;
use crate::respond::{Code, Refusal};
use address::Reach;

/// Resolving the name and connecting over TCP together and, separately, the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// An upstream that takes no byte of a head for this long is not there.
const HEAD_WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// One address of several that does not answer must leave time for the next.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Addresses of one answer that are tried. Providers publish two to eight.
const ADDRESSES_MAX: usize = 8;

/// Idle connections kept per route. A pod talks to a provider over a few connections; more would only age.
const IDLE_MAX: usize = 32;

/// The largest buffer that waits with its connection. What a long answer needed is given back.
const IDLE_BUFFER_MAX: usize = 4 * 1024;

/// Idle connections older than this are closed: well under the 60 s and more that providers' front ends keep them, so that we are the ones
/// who close, and a request seldom meets a connection that is just going away.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the requests of one route go.
pub struct Upstream {
    origin: Origin,
    authority: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    reach: Reach,
    idle: Mutex<VecDeque<Idle>>,
}

struct Idle {
    stream: Stream,
    /// Empty; kept for its allocation.
    buffer: BytesMut,
    since: Instant,
}

/// Why an upstream cannot be had from its configuration.
#[derive(Debug, thiserror::Error)]
#[error("the host of base_url cannot be a TLS server name")]
pub struct BadServerName;

impl Upstream {
    /// An upstream at `origin`, verified against the roots in `tls`, at addresses within `reach`.
    pub fn new(
        origin: Origin,
        tls: Option<Arc<rustls::ClientConfig>>,
        reach: Reach,
    ) -> Result<Self, BadServerName> {
        let tls = match (origin.tls(), tls) {
            (true, Some(config)) => {
                let name =
                    ServerName::try_from(origin.host().to_owned()).map_err(|_| BadServerName)?;
                Some((TlsConnector::from(config), name))
            }
            (true, None) => return Err(BadServerName),
            (false, _) => None,
        };
        Ok(Self {
            authority: origin.authority(),
            origin,
            tls,
            reach,
            idle: Mutex::default(),
        })
    }

    /// Where its requests go.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Joins this upstream with a lease whose key may be sent to it.
    pub fn bind(
        self: &Arc<Self>,
        provider: &str,
        lease: Arc<Lease>,
    ) -> Result<BoundUpstream, Refusal> {
        let allowed = lease.provider == provider
            && lease
                .upstreams
                .iter()
                .any(|upstream| upstream.allows(&self.origin));
        if !allowed {
            return Err(Refusal::new(
                Code::UpstreamNotAllowed,
                "the key's sealed header does not name this route's provider and origin; seal it with --upstream, or correct base_url",
            ));
        }
        Ok(BoundUpstream {
            upstream: Arc::clone(self),
            lease,
        })
    }

    /// Closes idle connections that are too old.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.lock()
            .retain(|idle| now.duration_since(idle.since) < IDLE_TIMEOUT);
    }

    /// A kept connection that is still silent and open, or nothing.
    async fn reuse(&self) -> Option<(Stream, BytesMut)> {
        loop {
            let Idle {
                mut stream,
                buffer,
                since,
            } = self.lock().pop_back()?;
            if since.elapsed() < IDLE_TIMEOUT && stream.is_quiet().await {
                return Some((stream, buffer));
            }
        }
    }

    /// A TCP connection to one of the name's addresses, of those that may be dialled.
    async fn connect(&self) -> Result<TcpStream, Refusal> {
        const UNREACHABLE: Refusal =
            Refusal::new(Code::UpstreamUnreachable, "cannot connect to the provider");
        const SLOW: Refusal = Refusal::new(
            Code::UpstreamTimeout,
            "connecting to the provider took longer than 10 s",
        );
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let lookup = lookup_host((self.origin.host(), self.origin.port()));
        let found = match timeout_at(deadline, lookup).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(upstream = %self.origin, %error, "cannot resolve");
                return Err(UNREACHABLE);
            }
            Err(_) => return Err(SLOW),
        };
        let found: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
        let allowed = self.reach.allowed(found.iter().copied());
        if allowed.is_empty() && !found.is_empty() {
            tracing::warn!(upstream = %self.origin, "the name leads to addresses that are not public; if that is meant, list them in allow_addresses");
            return Err(Refusal::new(
                Code::UpstreamNotAllowed,
                "the provider's name leads to an address inside this machine, its network or its cloud; operators can list it in allow_addresses",
            ));
        }
        let mut last = UNREACHABLE;
        let mut left = allowed.len();
        for address in allowed {
            left -= 1;
            let until = match left {
                0 => deadline,
                _ => deadline.min(Instant::now() + ADDRESS_TIMEOUT),
            };
            match timeout_at(until, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => {
                    tracing::warn!(upstream = %self.origin, %error, "cannot connect");
                    last = UNREACHABLE;
                }
                Err(_) => last = SLOW,
            }
        }
        Err(last)
    }

    async fn dial(&self) -> Result<Stream, Refusal> {
        let tcp = self.connect().await?;
        // Not fatal: only latency suffers.
        let _ = tcp.set_nodelay(true);
        let Some((connector, name)) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        match timeout(HANDSHAKE_TIMEOUT, connector.connect(name.clone(), tcp)).await {
            Ok(Ok(tls)) => Ok(Stream::Tls(Box::new(tls))),
            Ok(Err(error)) => {
                tracing::warn!(upstream = %self.origin, %error, "TLS handshake failed");
                Err(Refusal::new(
                    Code::UpstreamUnreachable,
                    "the provider's TLS certificate or handshake was not accepted",
                ))
            }
            Err(_) => Err(Refusal::new(
                Code::UpstreamTimeout,
                "the TLS handshake with the provider took longer than 10 s",
            )),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upstream({})", self.origin)
    }
}

/// An upstream together with the key that may be sent to it, and to nothing else.
#[derive(Debug)]
pub struct BoundUpstream {
    upstream: Arc<Upstream>,
    lease: Arc<Lease>,
}

impl BoundUpstream {
    /// The lease in use.
    pub fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// The origin, as the app may know it.
    pub fn origin(&self) -> &Origin {
        &self.upstream.origin
    }

    /// A connection that was used before, or a new one.
    pub async fn connection(&self) -> Result<BoundConnection<'_>, Refusal> {
        match self.upstream.reuse().await {
            Some((stream, buffer)) => Ok(BoundConnection {
                bound: self,
                stream,
                reused: true,
                buffer,
            }),
            None => self.new_connection().await,
        }
    }

    /// A new connection.
    pub async fn new_connection(&self) -> Result<BoundConnection<'_>, Refusal> {
        let stream = self.upstream.dial().await?;
        Ok(BoundConnection {
            bound: self,
            stream,
            reused: false,
            buffer: BytesMut::new(),
        })
    }
}

/// A connection to the upstream that a key is bound to.
#[derive(Debug)]
pub struct BoundConnection<'a> {
    bound: &'a BoundUpstream,
    /// The bytes both ways.
    pub stream: Stream,
    /// It has carried requests before, so it may be going away just now.
    pub reused: bool,
    /// Bytes of the response that were read and not consumed.
    pub buffer: BytesMut,
}

impl BoundConnection<'_> {
    /// Writes the head with the key in it, and wipes it; the beginning of the body goes along, in the same record.
    pub async fn send_head(
        &mut self,
        request: &Outgoing<'_>,
        body: &[u8],
    ) -> Result<io::Result<()>, Refusal> {
        let head = request.serialise(&self.bound.upstream.authority, &self.bound.lease)?;
        let write = async {
            // Two slices and not one buffer: the key is copied nowhere on its way into the TLS record.
            self.stream
                .write_all_buf(&mut head.as_slice().chain(body))
                .await?;
            self.stream.flush().await
        };
        Ok(within(HEAD_WRITE_TIMEOUT, write).await)
    }

    /// Keeps the connection for the next request. Only after a complete, clean exchange.
    pub fn keep(self) {
        if !self.buffer.is_empty() {
            return;
        }
        let buffer = if self.buffer.capacity() <= IDLE_BUFFER_MAX {
            self.buffer
        } else {
            BytesMut::new()
        };
        let mut idle = self.bound.upstream.lock();
        if idle.len() >= IDLE_MAX {
            idle.pop_front();
        }
        idle.push_back(Idle {
            stream: self.stream,
            buffer,
            since: Instant::now(),
        });
    }
}

/// TLS, or plain TCP to this machine.
#[derive(Debug)]
pub enum Stream {
    /// Loopback only.
    Plain(TcpStream),
    /// Everything else.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Nothing to read and not closed: whatever an idle connection has to say, it cannot be an answer to us.
    async fn is_quiet(&mut self) -> bool {
        let mut byte = [0u8; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        poll_fn(|context| {
            Poll::Ready(
                Pin::new(&mut *self)
                    .poll_read(context, &mut buffer)
                    .is_pending(),
            )
        })
        .await
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
