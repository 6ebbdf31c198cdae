//! Reads and writes of an exchange, each with its limit.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::Stop;
use crate::metrics::Limit;
use crate::respond::{Code, Refusal};

/// Read at once from either side. One TLS record.
const PIECE_BYTES: usize = 16 * 1024;

/// An app that sends nothing of a body it announced.
pub(crate) const REQUEST_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What it is told then.
pub(crate) const PAUSED: Refusal = Refusal::of_limit(
    Limit::BodyPause,
    Code::BadRequest,
    "the request body stopped for 60 s",
);

/// Room for a first read: most answers, and any event of a stream. A thousand open streams hold this much each.
const ROOM_BYTES: usize = 4 * 1024;

/// An upstream that is silent, before its first byte or within a body. Reasoning models think for minutes; SDKs give up after ten.
pub(super) const RESPONSE_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// A side that takes nothing more of what it was to get.
const WRITE_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Reads more of a response; false at the end of the connection.
pub(super) async fn more(
    upstream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<bool, Stop> {
    match read(upstream, buffer, RESPONSE_IDLE_TIMEOUT).await {
        Ok(read) => Ok(read > 0),
        Err(_) => Err(Stop::UpstreamDied),
    }
}

/// Reads at most one piece.
pub(crate) async fn read(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    idle: Duration,
) -> io::Result<usize> {
    if buffer.capacity() - buffer.len() < ROOM_BYTES / 4 {
        buffer.reserve(ROOM_BYTES);
    }
    let room = (buffer.capacity() - buffer.len()).min(PIECE_BYTES);
    // The limit keeps what is read ahead to one piece whatever the allocation has room for.
    let mut piece = from.take(PIECE_BYTES as u64);
    let read = timeout(idle, piece.read_buf(buffer))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    if read == room {
        // There is more than fits: from now on a whole record at a time.
        buffer.reserve(PIECE_BYTES);
    }
    Ok(read)
}

/// Writes all of it.
pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let whole = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    within(WRITE_IDLE_TIMEOUT, whole).await
}

/// `work`, given up after `limit`. Most writes go through at once, and need no timer.
pub(crate) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let mut work = pin!(work);
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
        return done;
    }
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
