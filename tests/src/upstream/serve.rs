//! Accepts connections, checks the credential, hands the request to its API, sends the answer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::record::{Outcome, Seen, Tokens};
use super::reply::{Body, Piece, Reply};
use super::websocket::{self, Speaker};
use super::wire::{Connection, Request};
use super::{
    Mode, Provider, Shared, anthropic, bedrock, cohere, credential, flavour, gemini, openai,
};

/// How long a held stream waits for its client to leave: far longer than any story, so that a hang is the
/// story's to explain.
const HELD_MAX: Duration = Duration::from_secs(120);

/// Until the task is aborted; its connections end with it.
pub(super) async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Small events must leave at once: a test that waits for one would otherwise wait for Nagle.
        let _ = stream.set_nodelay(true);
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            // A failed handshake is the client's to report: stories about wrong roots expect it.
            if let Ok(stream) = tls.accept(stream).await {
                let connection = Connection::new(stream, shared.record.tape());
                serve(connection, &shared).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut connection: Connection<S>, shared: &Shared) {
    loop {
        let request = match connection.request().await {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(reason) => {
                let reply = Reply::json(
                    json!({"error": {"message": reason.to_string(), "code": "bad_http"}}),
                );
                let provider = shared.alone.unwrap_or(Provider::OpenAi);
                let reply = reply.status(400);
                let _ = send(&mut connection, shared, provider, &reply, true).await;
                break;
            }
        };
        let provider = shared.alone.unwrap_or_else(|| provider(&request));
        let refused = credential::refusal(shared, provider, &request);
        let mode = shared.mode();
        let speaker = match (&refused, mode) {
            (None, Mode::Normal | Mode::CutStreamAfter(_)) => Speaker::of(provider, &request),
            _ => None,
        };
        if let Some(speaker) = speaker {
            let head = websocket::accepted(&request);
            shared.record.request(seen(provider, request, refused, 101));
            if connection.write(head.as_bytes()).await.is_ok() {
                // The stream's end is in the record, whatever it was.
                let _ = websocket::serve(connection, shared, provider, speaker).await;
            }
            return;
        }
        let reply = match (&refused, mode) {
            (Some(_), _) | (None, Mode::KeyRejected) => key_rejected(provider, &request),
            (None, Mode::Status(status)) => failed(provider, status),
            (None, Mode::Normal | Mode::CutStreamAfter(_)) => answer(provider, &request),
        };
        let close = request.close;
        if let Body::Json(_) = reply.body {
            let outcome = match reply.status {
                200 => Outcome::Complete,
                _ => Outcome::Failed,
            };
            shared.record.settle(provider, outcome, reply.tokens);
        }
        let seen = seen(provider, request, refused, reply.status);
        shared.record.request(seen);
        if send(&mut connection, shared, provider, &reply, close)
            .await
            .is_err()
            || close
        {
            break;
        }
    }
    connection.close().await;
}

fn seen(provider: Provider, request: Request, refused: Option<String>, status: u16) -> Seen {
    Seen {
        provider,
        method: request.method,
        path: request.path,
        query: request.query,
        headers: request.headers,
        body: request.body,
        refused,
        status,
    }
}

/// Which API is meant. `/v1/models` and `/v1/files` exist more than once; the providers' own headers
/// decide, as they would by host name in the world.
fn provider(request: &Request) -> Provider {
    let path = request.path.as_str();
    if path.starts_with("/v1/messages") || request.header("anthropic-version").is_some() {
        Provider::Anthropic
    } else if path.starts_with("/v1beta/")
        || path.contains(':')
        || request.header("x-goog-api-key").is_some()
    {
        Provider::Gemini
    } else {
        Provider::OpenAi
    }
}

fn answer(provider: Provider, request: &Request) -> Reply {
    match provider {
        Provider::Anthropic => anthropic::answer(request),
        Provider::Gemini | Provider::Vertex => gemini::answer(provider, request),
        Provider::Bedrock => bedrock::answer(request),
        Provider::Cohere => cohere::answer(request),
        Provider::OpenAi
        | Provider::Azure
        | Provider::Mistral
        | Provider::Groq
        | Provider::DeepSeek
        | Provider::Xai
        | Provider::Together
        | Provider::Fireworks
        | Provider::OpenRouter
        | Provider::Perplexity => openai::answer(provider, request),
    }
}

fn key_rejected(provider: Provider, request: &Request) -> Reply {
    match provider {
        Provider::Anthropic => anthropic::key_rejected(),
        Provider::Gemini | Provider::Vertex => gemini::key_rejected(provider),
        Provider::Bedrock => bedrock::key_rejected(),
        Provider::Cohere => cohere::key_rejected(),
        Provider::OpenAi
        | Provider::Azure
        | Provider::Mistral
        | Provider::Groq
        | Provider::DeepSeek
        | Provider::Xai
        | Provider::Together
        | Provider::Fireworks
        | Provider::OpenRouter
        | Provider::Perplexity => flavour::key_rejected(provider, request),
    }
}

fn failed(provider: Provider, status: u16) -> Reply {
    match provider {
        Provider::Anthropic => anthropic::failed(status),
        Provider::Gemini | Provider::Vertex => gemini::failed(status),
        Provider::Bedrock => bedrock::failed(status),
        Provider::Cohere => cohere::failed(status),
        Provider::OpenAi
        | Provider::Azure
        | Provider::Mistral
        | Provider::Groq
        | Provider::DeepSeek
        | Provider::Xai
        | Provider::Together
        | Provider::Fireworks
        | Provider::OpenRouter
        | Provider::Perplexity => flavour::failed(status),
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    shared: &Shared,
    provider: Provider,
    reply: &Reply,
    close: bool,
) -> anyhow::Result<()> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status));
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("x-upstream: test-provider\r\n");
    if close {
        head.push_str("connection: close\r\n");
    }
    match &reply.body {
        Body::Json(value) => {
            let body = value.to_string();
            head.push_str(&format!(
                "content-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            ));
            head.push_str(&body);
            connection.write(head.as_bytes()).await
        }
        Body::Stream(content_type, pieces) => {
            head.push_str(&format!("content-type: {content_type}\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"));
            connection.write(head.as_bytes()).await?;
            stream(
                &mut Chunks(connection),
                shared,
                provider,
                pieces,
                reply.tokens,
            )
            .await
        }
    }
}

/// Where the pieces of a stream go: chunks of a body, or frames of a WebSocket.
pub(super) trait Sink {
    /// Sends a piece at once.
    async fn piece(&mut self, bytes: &[u8]) -> anyhow::Result<()>;
    /// Says that the stream is complete.
    async fn end(&mut self) -> anyhow::Result<()>;
    /// Returns when the client has left.
    async fn gone(&mut self);
}

struct Chunks<'a, S>(&'a mut Connection<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Sink for Chunks<'_, S> {
    async fn piece(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.0.write(&chunk).await
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        self.0.write(b"0\r\n\r\n").await
    }

    async fn gone(&mut self) {
        self.0.gone().await;
    }
}

/// Sends pieces one by one, with the test's gate after the first and its cut where it wants one, and settles
/// the call: what was written is billed, whether anybody read it or not.
pub(super) async fn stream(
    sink: &mut impl Sink,
    shared: &Shared,
    provider: Provider,
    pieces: &[Piece],
    whole: Tokens,
) -> anyhow::Result<()> {
    let mut written = 0;
    let broken = |outcome, output| {
        let tokens = Tokens {
            output,
            reasoning: 0,
            ..whole
        };
        shared.record.settle(provider, outcome, tokens);
    };
    for (index, piece) in pieces.iter().enumerate() {
        if matches!(shared.mode(), Mode::CutStreamAfter(count) if index >= count) {
            broken(Outcome::Failed, written);
            bail!("cut by the test");
        }
        match piece {
            Piece::Bytes { bytes, output } => {
                let last = index + 1 == pieces.len();
                if last {
                    // Before the client can know that it is over, so that whoever then asks finds it counted.
                    shared.record.settle(provider, Outcome::Complete, whole);
                }
                let sent = sink.piece(bytes).await;
                if sent.is_err() && !last {
                    broken(Outcome::Cancelled, written);
                }
                sent?;
                written += output;
            }
            Piece::Hold => {
                let left = timeout(HELD_MAX, sink.gone()).await;
                broken(Outcome::Cancelled, written);
                ensure!(left.is_ok(), "the client did not leave a held stream");
                bail!("the client has left");
            }
            Piece::Failure(bytes) => {
                broken(Outcome::Failed, written);
                sink.piece(bytes).await?;
            }
        }
        if index == 0 {
            at_the_gate(shared).await;
        }
    }
    sink.end().await
}

async fn at_the_gate(shared: &Shared) {
    let mut gate = shared.gate.subscribe();
    if *gate.borrow() {
        return;
    }
    shared.waiting.send_modify(|waiting| *waiting += 1);
    // Fails only when the provider is being dropped, and then the task goes with it.
    let _ = gate.wait_for(|open| *open).await;
    shared.waiting.send_modify(|waiting| *waiting -= 1);
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        _ => "Error",
    }
}
