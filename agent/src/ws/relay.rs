//! Messages in passing, both ways at the same time, each shown to the hooks before it goes on.
//!
//! A message is put together before it is looked at, so what a hook has judged is what the other side reads, however it was cut into frames.
//! One message per direction is in memory, and none is read before the last one is written: a side that does not read is the other side's
//! back-pressure. Pings are answered on the spot and passed on empty, so that neither path falls silent and nothing can hide in them. When one
//! side goes, the other is told at once; a provider that breaks off is never made to look as if it had closed.

mod farewell;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::room::{Bounded, Room};
use crate::metrics::Limit;
use crate::respond::{Code, Refusal};
use farewell::{Farewell, Stop, part};

/// Largest message and frame. OpenAI takes 15 MiB of audio in one event and sends less; Gemini's limits are lower.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// What is read at once, allocated for as long as the socket is open: twice a socket, with many of them silent for minutes.
const READ_BYTES: usize = 8 * 1024;

/// A socket on which nothing moves at all, not even a ping. Providers end sessions sooner or ping them; an app that thinks for ten minutes
/// between two turns keeps its session.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// A side that takes nothing of a message: as for HTTP bodies.
const WRITE_TIMEOUT: Duration = Duration::from_secs(300);

/// The last words to both sides, and their answers.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// A message of the app beyond [`MESSAGE_MAX_BYTES`].
pub const APP_TOO_LARGE: Refusal = Refusal::new(
    Code::BadRequest,
    "a WebSocket message is larger than 16 MiB",
);

/// A message of the provider beyond it.
pub const UPSTREAM_TOO_LARGE: Refusal = Refusal::new(
    Code::UpstreamUnreachable,
    "the provider sent a WebSocket message larger than 16 MiB",
);

/// There was no memory for a message in time.
pub const CROWDED: Refusal = Refusal::of_limit(
    Limit::LargeBodies,
    Code::RateLimited,
    "too many large messages and bodies at one time; open the WebSocket again in a moment",
);

const APP_BROKE_RULES: Refusal = Refusal::new(
    Code::BadRequest,
    "the app's frames are not valid WebSocket frames",
);

const NOT_TEXT: Refusal = Refusal::new(
    Code::EchoBlocked,
    "a text message could not be masked and stay text",
);

/// What looks at messages in passing. Calls are short and never wait.
pub trait Hooks: Send {
    /// A message of the app, text or binary, before it goes on. What it gives back goes instead.
    ///
    /// # Errors
    /// It must not go on: the socket is closed with this.
    fn app_says(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, Refusal>;

    /// A message of the provider, text or binary, before the app gets it: read, and masked in place. Text must stay UTF-8.
    ///
    /// # Errors
    /// The app must not get it: the socket is closed with this.
    fn upstream_says(&mut self, message: &mut [u8]) -> Result<(), Refusal>;

    /// The reason that the provider gives for closing, masked in place.
    fn close_reason(&mut self, reason: &mut [u8]);

    /// How the API itself says in a message that something is refused, if it has a way.
    fn event(&self, refusal: &Refusal) -> Option<String>;
}

/// One side: its stream after the handshake, and what was read of it beyond.
#[derive(Debug)]
pub struct Side<S> {
    /// The bytes both ways.
    pub stream: S,
    /// The beginning of its first frames.
    pub read_ahead: Vec<u8>,
    /// What its messages may take.
    pub room: Room,
}

/// Why a socket is to be closed from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The agent is ending.
    Draining,
    /// What was allowed is no longer.
    Refused(Refusal),
}

/// How a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The app closed it.
    App,
    /// The provider closed it.
    Upstream,
    /// The app went away without a word.
    AppGone,
    /// The provider broke off.
    UpstreamGone,
    /// We closed it, with this.
    Refused(Refusal),
    /// Nothing had moved for [`IDLE_TIMEOUT`].
    Idle,
    /// The agent is ending.
    Draining,
}

impl Closed {
    /// Whether one of the two sides closed it in order.
    pub fn is_clean(self) -> bool {
        match self {
            Self::App | Self::Upstream => true,
            Self::AppGone | Self::UpstreamGone | Self::Refused(_) | Self::Idle | Self::Draining => {
                false
            }
        }
    }
}

/// Relays until one side ends, nothing moves any more, or `ends` says so.
pub async fn relay<A, U>(
    app: Side<A>,
    upstream: Side<U>,
    ends: impl Future<Output = Ending>,
    hooks: &mut impl Hooks,
) -> Closed
where
    A: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (up, down) = (app.room.clone(), upstream.room.clone());
    let (mut to_app, mut from_app) = socket(app, Role::Server).await.split();
    let (mut to_upstream, mut from_upstream) = socket(upstream, Role::Client).await.split();
    let moved = Mutex::new(Instant::now());
    let stop = {
        let hooks = Mutex::new(&mut *hooks);
        tokio::select! {
            stop = upwards(&mut from_app, &mut to_upstream, &up, &hooks, &moved) => stop,
            stop = downwards(&mut from_upstream, &mut to_app, &down, &hooks, &moved) => stop,
            () = idle(&moved) => Stop::Idle,
            ending = ends => match ending {
                Ending::Draining => Stop::Draining,
                Ending::Refused(refusal) => Stop::Refused(refusal, CloseCode::Policy),
            },
        }
    };
    let Farewell {
        closed,
        app,
        upstream,
    } = Farewell::after(stop, hooks);
    let both = async {
        tokio::join!(
            part(&mut to_app, &mut from_app, app),
            part(&mut to_upstream, &mut from_upstream, upstream)
        );
    };
    // Whoever does not listen is left.
    let _ = timeout(FAREWELL_TIMEOUT, both).await;
    closed
}

async fn socket<S: AsyncRead + AsyncWrite + Unpin>(
    side: Side<S>,
    role: Role,
) -> WebSocketStream<Bounded<S>> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX_BYTES))
        .max_frame_size(Some(MESSAGE_MAX_BYTES))
        .read_buffer_size(READ_BYTES)
        // Each message is written as it comes.
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MESSAGE_MAX_BYTES);
    let stream = Bounded::new(side.stream, side.room);
    WebSocketStream::from_partially_read(stream, side.read_ahead, role, Some(config)).await
}

type To<S> = SplitSink<WebSocketStream<Bounded<S>>, Message>;
type From<S> = SplitStream<WebSocketStream<Bounded<S>>>;

/// The app's messages to the provider.
async fn upwards<A, U, H: Hooks>(
    app: &mut From<A>,
    upstream: &mut To<U>,
    room: &Room,
    hooks: &Mutex<&mut H>,
    moved: &Mutex<Instant>,
) -> Stop
where
    A: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = match app.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return app_failed(&error),
            None => return Stop::AppGone,
        };
        touch(moved);
        let judged = |bytes: &[u8]| lock(hooks).app_says(bytes);
        let message = match message {
            Message::Text(text) => match judged(text.as_bytes()) {
                Ok(None) => Message::Text(text),
                Ok(Some(other)) => match Utf8Bytes::try_from(Bytes::from(other)) {
                    Ok(other) => Message::Text(other),
                    Err(_) => return Stop::Refused(APP_BROKE_RULES, CloseCode::Invalid),
                },
                Err(refusal) => return Stop::Refused(refusal, CloseCode::Policy),
            },
            Message::Binary(bytes) => match judged(&bytes) {
                Ok(None) => Message::Binary(bytes),
                Ok(Some(other)) => Message::Binary(other.into()),
                Err(refusal) => return Stop::Refused(refusal, CloseCode::Policy),
            },
            Message::Ping(payload) => {
                room.skip(payload.len());
                Message::Ping(Bytes::new())
            }
            Message::Close(frame) => return Stop::AppClosed(frame),
            Message::Pong(payload) => {
                room.skip(payload.len());
                continue;
            }
            Message::Frame(_) => continue,
        };
        let is_control = matches!(message, Message::Ping(_));
        if !send(upstream, message).await {
            return Stop::UpstreamGone;
        }
        if !is_control {
            room.clear();
        }
        touch(moved);
    }
}

/// The provider's messages to the app.
async fn downwards<A, U, H: Hooks>(
    upstream: &mut From<U>,
    app: &mut To<A>,
    room: &Room,
    hooks: &Mutex<&mut H>,
    moved: &Mutex<Instant>,
) -> Stop
where
    A: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = match upstream.next().await {
            Some(Ok(message)) => message,
            Some(Err(Error::Capacity(_))) => {
                return Stop::Refused(UPSTREAM_TOO_LARGE, CloseCode::Size);
            }
            Some(Err(error)) if is_crowded(&error) => {
                return Stop::Refused(CROWDED, CloseCode::Again);
            }
            Some(Err(_)) | None => return Stop::UpstreamGone,
        };
        touch(moved);
        let masked = |bytes: Bytes| {
            let mut bytes = editable(bytes);
            lock(hooks).upstream_says(&mut bytes)?;
            Ok::<Bytes, Refusal>(bytes.freeze())
        };
        let message = match message {
            Message::Text(text) => match masked(text.into()) {
                Ok(bytes) => match Utf8Bytes::try_from(bytes) {
                    Ok(text) => Message::Text(text),
                    Err(_) => return Stop::Refused(NOT_TEXT, CloseCode::Error),
                },
                Err(refusal) => return Stop::Refused(refusal, CloseCode::Error),
            },
            Message::Binary(bytes) => match masked(bytes) {
                Ok(bytes) => Message::Binary(bytes),
                Err(refusal) => return Stop::Refused(refusal, CloseCode::Error),
            },
            Message::Ping(payload) => {
                room.skip(payload.len());
                Message::Ping(Bytes::new())
            }
            Message::Close(frame) => return Stop::UpstreamClosed(frame),
            Message::Pong(payload) => {
                room.skip(payload.len());
                continue;
            }
            Message::Frame(_) => continue,
        };
        let is_control = matches!(message, Message::Ping(_));
        if !send(app, message).await {
            return Stop::AppGone;
        }
        if !is_control {
            room.clear();
        }
        touch(moved);
    }
}

/// Sends one message; false when the other end takes nothing for too long.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(to: &mut To<S>, message: Message) -> bool {
    match timeout(WRITE_TIMEOUT, to.send(message)).await {
        Ok(Ok(())) => true,
        // It may have said why before it closed: what is still to be read of it decides, and then comes its end.
        Ok(Err(_)) => std::future::pending().await,
        Err(_) => false,
    }
}

/// Whether there was no room for a message.
fn is_crowded(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == std::io::ErrorKind::OutOfMemory)
}

fn app_failed(error: &Error) -> Stop {
    match error {
        error if is_crowded(error) => Stop::Refused(CROWDED, CloseCode::Again),
        Error::Capacity(_) => Stop::Refused(APP_TOO_LARGE, CloseCode::Size),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Stop::AppGone,
        Error::Protocol(_) => Stop::Refused(APP_BROKE_RULES, CloseCode::Protocol),
        Error::Utf8(_) => Stop::Refused(APP_BROKE_RULES, CloseCode::Invalid),
        _ => Stop::AppGone,
    }
}

fn editable(bytes: Bytes) -> BytesMut {
    bytes
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

fn lock<'a, T>(mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn touch(moved: &Mutex<Instant>) {
    *lock(moved) = Instant::now();
}

/// Returns when nothing has moved for too long.
async fn idle(moved: &Mutex<Instant>) {
    loop {
        let end = *lock(moved) + IDLE_TIMEOUT;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

#[cfg(test)]
mod tests;
