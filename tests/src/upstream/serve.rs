//! Accepts connections, checks the credential, hands the request to its API, sends the answer.

use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::record::Seen;
use super::reply::{Body, Reply};
use super::wire::{Connection, Request};
use super::{Mode, Provider, Shared, anthropic, credential, gemini, openai};

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
                let _ = send(&mut connection, shared, &reply.status(400), true).await;
                break;
            }
        };
        let provider = provider(&request);
        let refused = credential::refusal(shared, provider, &request);
        let reply = match (&refused, shared.mode()) {
            (Some(_), _) | (None, Mode::KeyRejected) => key_rejected(provider, &request),
            (None, Mode::Status(status)) => failed(provider, status),
            (None, Mode::Normal | Mode::CutStreamAfter(_)) => answer(provider, &request),
        };
        let close = request.close;
        shared.record.served(provider, reply.tokens);
        shared.record.request(Seen {
            provider,
            method: request.method,
            path: request.path,
            query: request.query,
            headers: request.headers,
            body: request.body,
            refused,
            status: reply.status,
        });
        if send(&mut connection, shared, &reply, close).await.is_err() || close {
            break;
        }
    }
    connection.close().await;
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
        Provider::OpenAi => openai::answer(request),
        Provider::Anthropic => anthropic::answer(request),
        Provider::Gemini => gemini::answer(request),
    }
}

fn key_rejected(provider: Provider, request: &Request) -> Reply {
    match provider {
        Provider::OpenAi => openai::key_rejected(request),
        Provider::Anthropic => anthropic::key_rejected(),
        Provider::Gemini => gemini::key_rejected(),
    }
}

fn failed(provider: Provider, status: u16) -> Reply {
    match provider {
        Provider::OpenAi => openai::failed(status),
        Provider::Anthropic => anthropic::failed(status),
        Provider::Gemini => gemini::failed(status),
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    shared: &Shared,
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
        Body::Events(events) => {
            head.push_str("content-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
            connection.write(head.as_bytes()).await?;
            stream(connection, shared, events).await
        }
    }
}

/// Sends events one by one, with the test's gate after the first and its cut where it wants one.
async fn stream<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    shared: &Shared,
    events: &[String],
) -> anyhow::Result<()> {
    for (index, event) in events.iter().enumerate() {
        if matches!(shared.mode(), Mode::CutStreamAfter(count) if index >= count) {
            anyhow::bail!("cut by the test");
        }
        connection
            .write(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
            .await?;
        if index == 0 {
            at_the_gate(shared).await;
        }
    }
    connection.write(b"0\r\n\r\n").await
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
