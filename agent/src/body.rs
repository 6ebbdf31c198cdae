//! Request bodies that must be known before anything is sent: the model stands in them, and a request that may go to a second key must be
//! sent twice.
//!
//! Collected in memory, within bounds that hold for one body and for all together. Uploads of which nothing needs to be known do not come
//! here; they stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http1::{Decoder, Framing, RequestHead};
use crate::metrics::Limit;
use crate::relay::Client;
use crate::relay::io::{PAUSED, REQUEST_IDLE_TIMEOUT, read, write};
use crate::respond::{Code, Refusal};

/// Up to here a body needs no leave: 1024 connections together stay below what a pod is given.
const SMALL_BYTES: usize = 256 * 1024;

/// Largest body that is collected. Anthropic takes 32 MiB, Gemini 20 MiB inline, audio uploads have 25 MiB.
pub const WHOLE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Up to here a body that is there is copied. A larger one keeps the place where it lies, and the connection gets another for its next head,
/// which costs more than such a copy.
const COPIED_MAX: usize = 2 * 1024;

/// What all bodies beyond [`SMALL_BYTES`] may take together; more of them wait. They are held until they are answered, since another key may
/// have to be tried.
const LARGE_TOTAL_BYTES: usize = 256 * 1024 * 1024;

/// The budget is counted in pieces of this size.
const UNIT_BYTES: usize = 64 * 1024;

/// How long one waits for its turn.
const LARGE_WAIT: Duration = Duration::from_secs(30);

/// Leave to collect large bodies.
#[derive(Clone, Debug)]
pub struct Spool {
    large: Arc<Semaphore>,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            large: Arc::new(Semaphore::new(LARGE_TOTAL_BYTES / UNIT_BYTES)),
        }
    }
}

/// A complete body, freed together with the leave to hold it.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    bytes: Bytes,
    _leave: Option<Arc<OwnedSemaphorePermit>>,
}

impl Whole {
    /// Its bytes, without any coding of the hop.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same body with some ranges replaced. The edits are sorted and do not overlap.
    #[must_use]
    pub fn edited(&self, edits: &[providers::Edit]) -> Self {
        if edits.is_empty() {
            return self.clone();
        }
        let grown: usize = edits.iter().map(|edit| edit.text.len()).sum();
        let mut out = BytesMut::with_capacity(self.bytes.len() + grown);
        let mut at = 0;
        for edit in edits {
            out.extend_from_slice(&self.bytes[at..edit.range.start]);
            out.extend_from_slice(&edit.text);
            at = edit.range.end;
        }
        out.extend_from_slice(&self.bytes[at..]);
        Self {
            bytes: out.freeze(),
            _leave: self._leave.clone(),
        }
    }
}

/// Why a body could not be collected.
#[derive(Debug)]
pub enum Unread {
    /// The app went away.
    ClientGone,
    /// To be answered with this.
    Refused(Refusal),
}

const TOO_LARGE: Refusal = Refusal::of_limit(
    Limit::Body,
    Code::BadRequest,
    "the request body has more than 64 MiB, and this endpoint's must be read before it is sent on",
);

/// Collects the body of a request whose head was read from `client`.
pub async fn collect(
    client: &mut Client,
    head: &RequestHead,
    spool: &Spool,
) -> Result<Whole, Unread> {
    let announced = match head.framing {
        Framing::None => return Ok(Whole::default()),
        Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Framing::Chunked | Framing::UntilClose => 0,
    };
    if announced > WHOLE_MAX_BYTES {
        return Err(Unread::Refused(TOO_LARGE));
    }
    let mut leave = None;
    if announced > SMALL_BYTES {
        leave = Some(spool.leave(announced).await?);
    }
    if head.expects_continue && client.buffer.is_empty() {
        let went = write(&mut client.stream, b"HTTP/1.1 100 Continue\r\n\r\n");
        went.await.map_err(|_| Unread::ClientGone)?;
    }
    // Most bodies came along with their head.
    if matches!(head.framing, Framing::Length(_)) && client.buffer.len() >= announced {
        let bytes = if announced <= COPIED_MAX {
            let bytes = Bytes::copy_from_slice(&client.buffer[..announced]);
            client.buffer.advance(announced);
            bytes
        } else {
            client.buffer.split_to(announced).freeze()
        };
        return Ok(Whole {
            bytes,
            _leave: leave.map(Arc::new),
        });
    }
    let mut decoder = Decoder::new(head.framing);
    let mut bytes = BytesMut::with_capacity(announced);
    loop {
        let taken = decoder
            .decode(&client.buffer, |content| bytes.extend_from_slice(content))
            .map_err(|_| {
                Unread::Refused(Refusal::new(
                    Code::BadRequest,
                    "the request body is not valid chunked coding",
                ))
            })?;
        client.buffer.advance(taken);
        if bytes.len() > WHOLE_MAX_BYTES {
            return Err(Unread::Refused(TOO_LARGE));
        }
        if bytes.len() > SMALL_BYTES && leave.is_none() {
            // Nobody has said how long it will be.
            leave = Some(spool.leave(WHOLE_MAX_BYTES).await?);
        }
        if decoder.is_done() {
            return Ok(Whole {
                bytes: bytes.freeze(),
                _leave: leave.map(Arc::new),
            });
        }
        match read(&mut client.stream, &mut client.buffer, REQUEST_IDLE_TIMEOUT).await {
            Ok(1..) => {}
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                return Err(Unread::Refused(PAUSED));
            }
            Ok(0) | Err(_) => return Err(Unread::ClientGone),
        }
    }
}

impl Spool {
    async fn leave(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Unread> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let waiting = Arc::clone(&self.large).acquire_many_owned(units);
        match timeout(LARGE_WAIT, waiting).await {
            Ok(Ok(leave)) => Ok(leave),
            Ok(Err(_)) | Err(_) => Err(Unread::Refused(Refusal::of_limit(
                Limit::LargeBodies,
                Code::RateLimited,
                "too many large request bodies at one time; try again in a moment",
            ))),
        }
    }
}
