//! WebSockets on the provider's side: OpenAI Realtime and Responses, Gemini Live. The handshake is ours, so
//! that the request is checked like any other; frames are the library's, over a stream that keeps every byte.

use std::pin::Pin;
use std::task::{Context, Poll};

use aws_lc_rs::digest;
use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use super::live::Live;
use super::realtime::{Realtime, Responses};
use super::record::{Tape, Tokens};
use super::reply::{Body, Piece, Reply};
use super::serve::{self, Sink};
use super::wire::{Connection, Request};
use super::{Provider, Shared, credential};

/// What RFC 6455 adds to the client's key before it is hashed.
const ACCEPT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Who speaks at this path.
pub(super) enum Speaker {
    Realtime(Realtime),
    Responses(Responses),
    Live(Live),
}

impl Speaker {
    /// The one that this request asks for; `None` when it asks for no WebSocket, or for an unknown one.
    pub fn of(provider: Provider, request: &Request) -> Option<Self> {
        let upgrade = request.header("upgrade")?;
        if !upgrade.eq_ignore_ascii_case("websocket") || request.method != "GET" {
            return None;
        }
        // Google's SDK for Node doubles the slash when its base URL has no path.
        let path = match request.path.strip_prefix("//") {
            Some(rest) => &request.path[request.path.len() - rest.len() - 1..],
            None => &request.path,
        };
        match (provider, path) {
            (Provider::OpenAi | Provider::Xai, "/v1/realtime")
            | (Provider::Azure, "/openai/v1/realtime") => {
                let model = request.parameter("model")?;
                Some(Speaker::Realtime(Realtime::new(model)))
            }
            (Provider::OpenAi, "/v1/responses") => Some(Speaker::Responses(Responses)),
            (Provider::Gemini, path)
                if path.starts_with("/ws/google.ai.generativelanguage.")
                    && path.ends_with(".GenerativeService.BidiGenerateContent") =>
            {
                Some(Speaker::Live(Live::default()))
            }
            _ => None,
        }
    }

    fn opened(&self) -> Option<Value> {
        match self {
            Speaker::Realtime(session) => Some(session.opened()),
            Speaker::Responses(_) | Speaker::Live(_) => None,
        }
    }

    fn react(&mut self, frame: &Value) -> Result<Reply, Farewell> {
        match self {
            Speaker::Realtime(session) => Ok(session.react(frame)),
            Speaker::Responses(session) => Ok(session.react(frame)),
            Speaker::Live(session) => session.react(frame),
        }
    }
}

/// Why the server ends a session.
pub(super) struct Farewell {
    pub code: u16,
    pub reason: String,
}

/// The answer that opens the WebSocket. Of the client's subprotocols only `realtime` is ever accepted.
pub(super) fn accepted(request: &Request) -> String {
    let key = request.header("sec-websocket-key").unwrap_or_default();
    let hash = digest::digest(
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{ACCEPT}").as_bytes(),
    );
    let accept = base64::engine::general_purpose::STANDARD.encode(hash);
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n"
    );
    let protocols = request.header("sec-websocket-protocol").unwrap_or_default();
    if protocols
        .split(',')
        .any(|protocol| protocol.trim() == "realtime")
    {
        head.push_str("sec-websocket-protocol: realtime\r\n");
    }
    head + "\r\n"
}

/// Speaks until one side ends it.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    connection: Connection<S>,
    shared: &Shared,
    provider: Provider,
    mut speaker: Speaker,
) -> anyhow::Result<()> {
    let (stream, received, tape) = connection.into_parts();
    let taped = Taped { stream, tape };
    let mut socket =
        WebSocketStream::from_partially_read(taped, received, Role::Server, None).await;
    if let Some(opened) = speaker.opened() {
        socket.send(Message::text(opened.to_string())).await?;
    }
    while let Some(message) = socket.next().await {
        let text = match message? {
            Message::Text(text) => text.as_bytes().to_vec(),
            // Some clients send their JSON as binary.
            Message::Binary(bytes) => bytes.to_vec(),
            Message::Close(_) => break,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        if shared
            .keys(provider)
            .iter()
            .any(|key| credential::copies(&text, key) > 0)
        {
            shared.record.leaked(provider);
            let reason = "the key stands in a frame".to_owned();
            close(&mut socket, Farewell { code: 1008, reason }).await;
            break;
        }
        let frame = serde_json::from_slice(&text).unwrap_or(json!({}));
        match speaker.react(&frame) {
            Ok(reply) => tell(&mut socket, shared, provider, &reply).await?,
            Err(farewell) => {
                close(&mut socket, farewell).await;
                break;
            }
        }
    }
    let _ = socket.close(None).await;
    Ok(())
}

/// Only what costs something is a call: greetings and acknowledgements are none.
async fn tell<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    shared: &Shared,
    provider: Provider,
    reply: &Reply,
) -> anyhow::Result<()> {
    let Body::Stream(_, pieces) = &reply.body else {
        return Ok(());
    };
    let mut frames = Frames(socket);
    if reply.tokens != Tokens::default() {
        return serve::stream(&mut frames, shared, provider, pieces, reply.tokens).await;
    }
    for piece in pieces {
        if let Piece::Bytes { bytes, .. } = piece {
            frames.piece(bytes).await?;
        }
    }
    Ok(())
}

async fn close<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    farewell: Farewell,
) {
    let frame = CloseFrame {
        code: CloseCode::from(farewell.code),
        reason: farewell.reason.into(),
    };
    // A peer that is gone needs no farewell.
    let _ = socket.close(Some(frame)).await;
    while let Some(Ok(_)) = socket.next().await {}
}

struct Frames<'a, S>(&'a mut WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Sink for Frames<'_, S> {
    async fn piece(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let text = String::from_utf8(bytes.to_vec())?;
        Ok(self.0.send(Message::text(text)).await?)
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn gone(&mut self) {
        while let Some(Ok(message)) = self.0.next().await {
            if message.is_close() {
                break;
            }
        }
    }
}

/// A stream that keeps what it receives.
struct Taped<S> {
    stream: S,
    tape: Tape,
}

impl<S: AsyncRead + Unpin> AsyncRead for Taped<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.tape.add(&buffer.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taped<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
