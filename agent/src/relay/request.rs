//! The app's body on its way up, and the eye on the app after that.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::io::{read, write};
use super::{Progress, Stop};
use crate::http1::{Decoder, Encoder, Framing, HEAD_MAX_BYTES, RequestHead};
use crate::respond::{Code, Refusal};

/// An app that sends nothing of a body it announced.
const REQUEST_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends the request body, then watches for the app going away. Returns only when the exchange must end.
pub(super) async fn send_body(
    head: &RequestHead,
    client: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    upstream: &mut (impl AsyncWrite + Unpin),
    progress: &Progress,
) -> Stop {
    let mut decoder = Decoder::new(head.framing);
    let encoder = if head.framing == Framing::Chunked {
        Encoder::Chunked
    } else {
        Encoder::Plain
    };
    let mut out = Vec::new();
    loop {
        out.clear();
        match decoder.decode(buffer, |content| encoder.piece(content, &mut out)) {
            Ok(0) => {}
            Ok(taken) => {
                Progress::set(&progress.body_taken);
                buffer.advance(taken);
            }
            Err(_) => {
                return Stop::Refused(Refusal::new(
                    Code::BadRequest,
                    "the request body is not valid chunked coding",
                ));
            }
        }
        if decoder.is_done() {
            encoder.end(&mut out);
        }
        if !out.is_empty() && write(upstream, &out).await.is_err() {
            // The provider may have answered and closed without reading on; the response decides.
            std::future::pending::<()>().await;
        }
        if decoder.is_done() {
            break;
        }
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
    }
    Progress::set(&progress.request_done);
    watch(client, buffer).await;
    Stop::ClientGone
}

/// Returns when the app closes its connection. What it sends meanwhile is its next request, kept up to the size of a head.
async fn watch(client: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) {
    while buffer.len() < HEAD_MAX_BYTES {
        buffer.reserve(1024);
        match client.read_buf(buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    std::future::pending::<()>().await;
}
