//! What messages in the making may take of the memory that all large bodies share.
//!
//! The WebSocket library puts a message together before anyone sees it, so what is counted here are the bytes that were read of a stream
//! since its last message went on. Beyond a small part each piece needs leave from the [`Spool`]; without leave nothing is read, which is
//! back-pressure for whoever sends, and who waits too long is turned away rather than left to wait for others that wait for it.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::{Leave, Spool};

/// Up to here a message needs no leave: 256 sockets in both directions take 32 MiB at most.
const FREE_BYTES: usize = 64 * 1024;

/// The room of one direction of one socket. Clones are the same room.
#[derive(Clone, Debug)]
pub struct Room {
    spool: Spool,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    leave: Option<Leave>,
}

impl Room {
    /// An empty one.
    pub fn new(spool: &Spool) -> Self {
        Self {
            spool: spool.clone(),
            taken: Arc::default(),
        }
    }

    /// The message has gone on, and what it took is free.
    pub fn clear(&self) {
        *self.taken() = Taken::default();
    }

    /// A control frame of this payload stood between the parts of a message, and takes nothing any more.
    pub fn skip(&self, payload: usize) {
        /// Head and mask of such a frame.
        const HEAD: usize = 6;
        let mut taken = self.taken();
        taken.bytes = taken.bytes.saturating_sub(payload + HEAD);
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        let taken = self.taken();
        let leave = taken.leave.as_ref().map_or(0, Leave::bytes);
        taken.bytes > FREE_BYTES + leave
    }

    fn grow(&self, more: Leave) {
        let mut taken = self.taken();
        match &mut taken.leave {
            Some(leave) => leave.merge(more),
            none => *none = Some(more),
        }
    }
}

type Waiting = Pin<Box<dyn Future<Output = Option<Leave>> + Send>>;

/// A stream that is read no faster than there is room for its messages.
pub struct Bounded<S> {
    stream: S,
    room: Room,
    waiting: Option<Waiting>,
}

impl<S> Bounded<S> {
    /// Reads of `stream` count in `room`.
    pub fn new(stream: S, room: Room) -> Self {
        Self {
            stream,
            room,
            waiting: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    /// [`ErrorKind::OutOfMemory`]: there was no room in time.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.room.is_full() {
            let spool = &this.room.spool;
            let waiting = this
                .waiting
                .get_or_insert_with(|| Box::pin(spool.clone().piece()));
            let leave = ready!(waiting.as_mut().poll(cx));
            this.waiting = None;
            match leave {
                Some(leave) => this.room.grow(leave),
                None => return Poll::Ready(Err(ErrorKind::OutOfMemory.into())),
            }
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        this.room.taken().bytes += buffer.filled().len() - before;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::body::LARGE_TOTAL_BYTES;

    /// Reads `length` bytes through `bounded`.
    async fn read(bounded: &mut Bounded<tokio::io::DuplexStream>, length: usize) -> io::Result<()> {
        bounded.read_exact(&mut vec![0; length]).await.map(|_| ())
    }

    #[tokio::test(start_paused = true)]
    async fn messages_beyond_what_all_share_are_waited_for_and_then_turned_away() {
        let spool = Spool::default();
        let all = spool.take_all();
        let (near, mut far) = tokio::io::duplex(4 * FREE_BYTES);
        let room = Room::new(&spool);
        let mut bounded = Bounded::new(near, room.clone());
        far.write_all(&vec![1; 4 * FREE_BYTES]).await.unwrap();
        // A small message passes whatever the others do, and after it another one.
        read(&mut bounded, FREE_BYTES).await.unwrap();
        room.clear();
        read(&mut bounded, FREE_BYTES + 1).await.unwrap();
        let refused = read(&mut bounded, 1).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::OutOfMemory);
        // With leave it goes on, and the leave comes back when the message has gone on.
        drop(all);
        read(&mut bounded, FREE_BYTES).await.unwrap();
        assert!(spool.free_bytes() < LARGE_TOTAL_BYTES);
        room.clear();
        assert_eq!(spool.free_bytes(), LARGE_TOTAL_BYTES);
    }

    #[tokio::test]
    async fn control_frames_do_not_fill_it() {
        let spool = Spool::default();
        let (near, mut far) = tokio::io::duplex(1024);
        let room = Room::new(&spool);
        let mut bounded = Bounded::new(near, room.clone());
        for _ in 0..(2 * FREE_BYTES / 131) {
            far.write_all(&[0; 131]).await.unwrap();
            read(&mut bounded, 131).await.unwrap();
            room.skip(125);
        }
        assert_eq!(spool.free_bytes(), LARGE_TOTAL_BYTES);
        assert_eq!(room.taken().bytes, 0);
    }
}
