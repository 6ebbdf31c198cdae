//! Request bodies that must be known before anything is sent: the model stands in them, and a request that may go to a second key must be
//! sent twice.
//!
//! Collected in memory, within bounds that hold for one body and for all together. Uploads of which nothing needs to be known do not come
//! here; they stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

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

/// What all bodies beyond [`SMALL_BYTES`], and WebSocket messages in the making, may take together; more of them wait. They are held until they are answered, since another key may
/// have to be tried.
pub(crate) const LARGE_TOTAL_BYTES: usize = 256 * 1024 * 1024;

/// The budget is counted in pieces of this size.
const UNIT_BYTES: usize = 64 * 1024;

/// How long one waits for its turn.
const LARGE_WAIT: Duration = Duration::from_secs(30);

/// Whoever holds leave that others wait for must be sending: after this time, and as much as [`PACE`] says for what has come.
const PACE_GRACE: Duration = Duration::from_secs(30);

/// Bytes per second. Apps are on this machine; one that makes up its body while it sends it does so faster.
const PACE: usize = 64 * 1024;

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

/// Leave to hold so many bytes, given back when it is dropped.
#[derive(Debug)]
pub struct Leave(OwnedSemaphorePermit);

impl Leave {
    /// How many.
    pub fn bytes(&self) -> usize {
        self.0.num_permits() * UNIT_BYTES
    }

    /// Takes over another one.
    pub fn merge(&mut self, other: Self) {
        self.0.merge(other.0);
    }
}

/// A complete body, freed together with the leave to hold it.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    bytes: Bytes,
    _leave: Option<Arc<Leave>>,
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

const TOO_SLOW: Refusal = Refusal::of_limit(
    Limit::BodyPace,
    Code::BadRequest,
    "the request body came too slowly for one of its size; send it at 64 KiB per second or more",
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
    let began = Instant::now();
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
        if leave.is_some() && began.elapsed() > allowed(bytes.len()) {
            return Err(Unread::Refused(TOO_SLOW));
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

/// How long the first `bytes` of a body may take.
fn allowed(bytes: usize) -> Duration {
    PACE_GRACE + Duration::from_secs((bytes / PACE) as u64)
}

impl Spool {
    async fn leave(&self, bytes: usize) -> Result<Leave, Unread> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let leave = self.units(units).await;
        leave.ok_or(Unread::Refused(Refusal::of_limit(
            Limit::LargeBodies,
            Code::RateLimited,
            "too many large request bodies at one time; try again in a moment",
        )))
    }

    /// Leave for a little more of something that grows; none when it does not come in time.
    pub(crate) async fn piece(self) -> Option<Leave> {
        self.units(1).await
    }

    async fn units(&self, units: u32) -> Option<Leave> {
        let waiting = Arc::clone(&self.large).acquire_many_owned(units);
        let leave = timeout(LARGE_WAIT, waiting).await;
        leave.ok()?.ok().map(Leave)
    }
}

#[cfg(test)]
impl Spool {
    /// All that there is.
    pub(crate) fn take_all(&self) -> Leave {
        let all = u32::try_from(LARGE_TOTAL_BYTES / UNIT_BYTES).unwrap_or(u32::MAX);
        Leave(
            Arc::clone(&self.large)
                .try_acquire_many_owned(all)
                .expect("nothing is taken"),
        )
    }

    /// What nobody holds.
    pub(crate) fn free_bytes(&self) -> usize {
        self.large.available_permits() * UNIT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_comes_steadily_is_always_in_time() {
        let steady = |seconds: u64| usize::try_from(seconds).unwrap_or(0) * PACE;
        for seconds in [0, 31, 1000] {
            let took = Duration::from_secs(seconds);
            assert!(took <= allowed(steady(seconds)), "{seconds}");
            let slow = Duration::from_secs(2 * seconds) + PACE_GRACE + Duration::from_secs(1);
            assert!(slow > allowed(steady(seconds)), "{seconds}");
        }
    }
}
