//! What a connection from an app can be, so that everything behind the listener has one type to read from and write to.
//!
//! TCP is by far the most frequent one and is split without a lock; the others share theirs between the two halves. This room moves bytes and
//! looks at none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf};
use tokio::net::{TcpStream, tcp};
use tokio_rustls::server::TlsStream;

/// A connection from an app.
#[derive(Debug)]
pub enum ClientStream {
    /// Plain TCP, on the pod's loopback.
    Tcp(TcpStream),
    /// TLS with our own certificate, for SDKs that insist on it.
    Tls(Box<TlsStream<TcpStream>>),
    /// One stream of an HTTP/2 connection, translated in this process.
    Duplex(DuplexStream),
}

/// The reading half of a [`ClientStream`].
#[derive(Debug)]
pub enum ReadHalf<'a> {
    /// Without a lock.
    Tcp(tcp::ReadHalf<'a>),
    /// Shares a lock with its other half.
    Tls(tokio::io::ReadHalf<&'a mut TlsStream<TcpStream>>),
    /// Shares a lock with its other half.
    Duplex(tokio::io::ReadHalf<&'a mut DuplexStream>),
}

/// The writing half of a [`ClientStream`].
#[derive(Debug)]
pub enum WriteHalf<'a> {
    /// Without a lock.
    Tcp(tcp::WriteHalf<'a>),
    /// Shares a lock with its other half.
    Tls(tokio::io::WriteHalf<&'a mut TlsStream<TcpStream>>),
    /// Shares a lock with its other half.
    Duplex(tokio::io::WriteHalf<&'a mut DuplexStream>),
}

impl ClientStream {
    /// Both directions, to be used at the same time.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Tls(stream) => {
                let (read, write) = tokio::io::split(&mut **stream);
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
            Self::Duplex(stream) => {
                let (read, write) = tokio::io::split(stream);
                (ReadHalf::Duplex(read), WriteHalf::Duplex(write))
            }
        }
    }
}

/// How often a stalled connection is looked at: the kernel says that the other side has closed, but not anew while bytes wait to be read.
const GONE_INTERVAL: Duration = Duration::from_millis(500);

impl ReadHalf<'_> {
    /// Returns when the app has closed its side although bytes from it still wait to be read. Only TCP can tell; the other kinds wait for
    /// the limit on writing.
    pub async fn closed_behind(&self) {
        let Self::Tcp(half) = self else {
            return std::future::pending().await;
        };
        loop {
            match half.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => {}
                Ok(_) | Err(_) => return,
            }
            tokio::time::sleep(GONE_INTERVAL).await;
        }
    }
}

/// `$call` on whatever stream there is.
macro_rules! each {
    ($type:ident, $this:expr, $stream:ident => $call:expr) => {
        match $this.get_mut() {
            $type::Tcp($stream) => $call,
            $type::Tls($stream) => $call,
            $type::Duplex($stream) => $call,
        }
    };
}

macro_rules! reads {
    ($type:ident $(<$life:lifetime>)?) => {
        impl AsyncRead for $type $(<$life>)? {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                each!($type, self, stream => Pin::new(stream).poll_read(context, buffer))
            }
        }
    };
}

macro_rules! writes {
    ($type:ident $(<$life:lifetime>)?) => {
        impl AsyncWrite for $type $(<$life>)? {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                each!($type, self, stream => Pin::new(stream).poll_write(context, bytes))
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                each!($type, self, stream => Pin::new(stream).poll_flush(context))
            }

            fn poll_shutdown(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                each!($type, self, stream => Pin::new(stream).poll_shutdown(context))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                each!($type, self, stream => Pin::new(stream).poll_write_vectored(context, slices))
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $type::Tcp(stream) => stream.is_write_vectored(),
                    $type::Tls(stream) => stream.is_write_vectored(),
                    $type::Duplex(stream) => stream.is_write_vectored(),
                }
            }
        }
    };
}

reads!(ClientStream);
reads!(ReadHalf<'_>);
writes!(ClientStream);
writes!(WriteHalf<'_>);

/// A stream of which something was read before it was known what it is.
#[derive(Debug)]
pub(super) struct Rewound {
    read_ahead: BytesMut,
    stream: ClientStream,
}

impl Rewound {
    /// First `read_ahead`, then what `stream` has.
    pub(super) fn new(read_ahead: BytesMut, stream: ClientStream) -> Self {
        Self { read_ahead, stream }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.read_ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.read_ahead.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
