//! The app's body on its way up, and the eye on the app after that.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::io::{read, write};
use super::{Progress, Stop};
use crate::http1::{Decoder, Encoder, Framing, HEAD_MAX_BYTES};
use crate::respond::{Code, Refusal};

/// An app that sends nothing of a body it announced.
const REQUEST_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A request body on its way.
pub(super) struct Body {
    decoder: Decoder,
    encoder: Encoder,
    /// What is to be sent next.
    pub(super) out: Vec<u8>,
}

impl Body {
    /// The body of a request with this framing.
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            decoder: Decoder::new(framing),
            encoder: match framing {
                Framing::Chunked => Encoder::Chunked,
                Framing::None | Framing::Length(_) | Framing::UntilClose => Encoder::Plain,
            },
            out: Vec::new(),
        }
    }

    /// Makes what is to be sent of what has come, and says how much of it that was.
    pub(super) fn take(&mut self, come: &[u8]) -> Result<usize, Stop> {
        let Self {
            decoder,
            encoder,
            out,
        } = self;
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

    /// Nothing more comes.
    pub(super) fn is_done(&self) -> bool {
        self.decoder.is_done()
    }
}

/// Sends what else comes of the body, then watches for the app going away. Returns only when the exchange must end.
pub(super) async fn send_rest(
    mut body: Body,
    client: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    upstream: &mut (impl AsyncWrite + Unpin),
    progress: &Progress,
) -> Stop {
    while !body.is_done() {
        match read(client, buffer, REQUEST_IDLE_TIMEOUT).await {
            Ok(0) => return Stop::ClientGone,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Stop::Refused(Refusal::new(
                    Code::BadRequest,
                    "the request body stopped for 60 s",
                ));
            }
            Err(_) => return Stop::ClientGone,
        }
        match body.take(buffer) {
            Ok(taken) => buffer.advance(taken),
            Err(stop) => return stop,
        }
        Progress::set(&progress.body_taken);
        if !body.out.is_empty() && write(upstream, &body.out).await.is_err() {
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
