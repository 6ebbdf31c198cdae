//! The body of an HTTP/2 answer: an HTTP/1.1 response, read from a pipe and taken out of its framing.
//!
//! What ends before its framing says so is an error, which the protocol turns into a reset: an answer that broke off never looks complete.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::Response;
use hyper::body::{Body, Frame};
use tokio::io::{AsyncReadExt as _, DuplexStream, ReadHalf};

use std::sync::Arc;

use super::http2::{Open, Sending, belongs};
use crate::http1::{Decoder, ResponseHead};
use crate::respond::{self, Refusal};

/// Read at once.
const PIECE_BYTES: usize = 16 * 1024;

/// An answer on its way to the app.
pub(super) struct Answer {
    decoder: Decoder,
    buffer: BytesMut,
    pipe: Option<Pipe>,
}

/// Dropped with the answer, so that an app which resets the stream ends everything behind it.
struct Pipe {
    read: ReadHalf<DuplexStream>,
    _sending: Sending,
    _open: Arc<Open>,
}

/// The response broke off, or its framing is wrong.
#[derive(Debug, thiserror::Error)]
#[error("the response broke off")]
pub(super) struct BrokeOff;

impl Answer {
    /// What the connection loop answers: `buffer` is what came behind the head.
    pub(super) fn relayed(
        head: ResponseHead,
        read: ReadHalf<DuplexStream>,
        buffer: BytesMut,
        sending: Sending,
        open: Arc<Open>,
    ) -> Result<Response<Self>, h2::Error> {
        let pipe = Pipe {
            read,
            _sending: sending,
            _open: open,
        };
        Self::response(head, buffer, Some(pipe))
    }

    /// A refusal of our own.
    pub(super) fn refusal(
        refusal: Refusal,
        request_id: &str,
        with_body: bool,
    ) -> Result<Response<Self>, h2::Error> {
        let mut buffer =
            BytesMut::from(&respond::refusal(refusal, None, request_id, true, with_body)[..]);
        let method = if with_body { "GET" } else { "HEAD" };
        let (head, length) = ResponseHead::parse(&buffer, 0, method)
            .ok()
            .flatten()
            .ok_or(h2::Reason::INTERNAL_ERROR)?;
        buffer.advance(length);
        Self::response(head, buffer, None)
    }

    fn response(
        head: ResponseHead,
        buffer: BytesMut,
        pipe: Option<Pipe>,
    ) -> Result<Response<Self>, h2::Error> {
        let mut response = Response::builder().status(head.status);
        for (name, value) in head.fields.iter().filter(|(name, _)| belongs(name)) {
            response = response.header(name, value);
        }
        response
            .body(Self {
                decoder: Decoder::new(head.framing),
                buffer,
                pipe,
            })
            // A field that HTTP/1.1 may have and the library does not take.
            .map_err(|_| h2::Reason::INTERNAL_ERROR.into())
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let Self {
            decoder,
            buffer,
            pipe,
        } = self.get_mut();
        loop {
            let mut piece = Vec::new();
            let taken = decoder.decode(buffer, |content| piece.extend_from_slice(content));
            let Ok(taken) = taken else {
                return Poll::Ready(Some(Err(BrokeOff)));
            };
            buffer.advance(taken);
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
            }
            if decoder.is_done() {
                return Poll::Ready(None);
            }
            let Some(Pipe { read, .. }) = pipe else {
                return Poll::Ready(Some(Err(BrokeOff)));
            };
            // Reading into a buffer keeps no state between polls.
            buffer.reserve(PIECE_BYTES);
            match ready!(pin!(read.read_buf(buffer)).poll(context)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(BrokeOff))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }
}
