//! The app's body on its way up, and the eye on the app after that.

use std::io;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::io::{PAUSED, REQUEST_IDLE_TIMEOUT, read, write};
use super::{Progress, Sending, Stop};
use crate::http1::{Decoder, Encoder, Framing, HEAD_MAX_BYTES};
use crate::listen::ReadHalf;
use crate::respond::{Code, Refusal};

/// What of a whole body goes along with the head, in one write, and then at once. One TLS record less its head.
const PIECE_BYTES: usize = 12 * 1024;

/// A request body on its way.
pub(super) enum Body<'a> {
    /// Decoded from the app, encoded for the upstream.
    Stream {
        decoder: Decoder,
        encoder: Encoder,
        /// What is to be sent next.
        out: Vec<u8>,
    },
    /// All of it is here.
    Whole {
        /// What is to be sent next.
        now: &'a [u8],
        /// What after that.
        rest: &'a [u8],
    },
}

impl<'a> Body<'a> {
    /// The body of a request that came with this framing.
    pub(super) fn new(framing: Framing, sending: Sending<'a>) -> Self {
        match sending {
            Sending::Stream => Self::Stream {
                decoder: Decoder::new(framing),
                encoder: match framing {
                    Framing::Chunked => Encoder::Chunked,
                    Framing::None | Framing::Length(_) | Framing::UntilClose => Encoder::Plain,
                },
                out: Vec::new(),
            },
            Sending::Whole(whole) => Self::Whole {
                now: &[],
                rest: whole.bytes(),
            },
        }
    }

    /// Makes what is to be sent next, from what has come of a stream, and says how much of that it took.
    pub(super) fn take(&mut self, come: &[u8]) -> Result<usize, Stop> {
        match self {
            Self::Stream {
                decoder,
                encoder,
                out,
            } => {
                out.clear();
                let taken = decoder.decode(come, |content| encoder.piece(content, out));
                let taken = taken.map_err(|_| {
                    Stop::Refused(Refusal::new(
                        Code::BadRequest,
                        "the request body is not valid chunked coding",
                    ))
                })?;
                if decoder.is_done() {
                    encoder.end(out);
                }
                Ok(taken)
            }
            Self::Whole { now, rest } => {
                (*now, *rest) = rest.split_at(rest.len().min(PIECE_BYTES));
                Ok(0)
            }
        }
    }

    /// What is to be sent next.
    pub(super) fn out(&self) -> &[u8] {
        match self {
            Self::Stream { out, .. } => out,
            Self::Whole { now, .. } => now,
        }
    }

    /// Nothing comes after what is to be sent next.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Stream { decoder, .. } => decoder.is_done(),
            Self::Whole { rest, .. } => rest.is_empty(),
        }
    }
}

/// Sends what else comes of the body, then watches for the app going away. Returns only when the exchange must end.
pub(super) async fn send_rest(
    mut body: Body<'_>,
    client: &mut ReadHalf<'_>,
    buffer: &mut BytesMut,
    upstream: &mut (impl AsyncWrite + Unpin),
    progress: &Progress,
) -> Stop {
    while !body.is_done() {
        if matches!(body, Body::Stream { .. }) {
            match read(client, buffer, REQUEST_IDLE_TIMEOUT).await {
                Ok(0) => return Stop::ClientGone,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Stop::Refused(PAUSED);
                }
                Err(_) => return Stop::ClientGone,
            }
        }
        match body.take(buffer) {
            Ok(taken) => buffer.advance(taken),
            Err(stop) => return stop,
        }
        Progress::set(&progress.body_taken);
        if body.out().is_empty() {
            continue;
        }
        let went = match body {
            Body::Whole { .. } => tokio::select! {
                biased;
                went = write(upstream, body.out()) => went,
                () = watch(client, buffer) => return Stop::ClientGone,
            },
            // While a stream waits for the upstream, it is not read from: that is the app's back-pressure.
            Body::Stream { .. } => tokio::select! {
                biased;
                went = write(upstream, body.out()) => went,
                () = client.closed_behind() => return Stop::ClientGone,
            },
        };
        if went.is_err() {
            // The provider may have answered and closed without reading on; the response decides.
            std::future::pending::<()>().await;
        }
    }
    Progress::set(&progress.request_done);
    watch(client, buffer).await;
    Stop::ClientGone
}

/// Returns when the app closes its connection. What it sends meanwhile is its next request, kept up to the size of a head.
pub(super) async fn watch(client: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) {
    while buffer.len() < HEAD_MAX_BYTES {
        buffer.reserve(1024);
        match client.read_buf(buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    std::future::pending::<()>().await;
}
