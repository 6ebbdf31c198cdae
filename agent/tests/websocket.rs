//! WebSockets, from outside: every way in which SDKs authenticate, what of it the provider sees, and who hears of whose end.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use agent::ws::handshake::accept_value;
use futures_util::{SinkExt as _, StreamExt as _};
use support::{Conn, KEY, OK, Running, Upstream, field, fields, patient, status};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const APP_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const LIVE: &str = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";

fn handshake(target: &str, extra: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}{extra}\r\n")
}

/// The provider's side: answers the handshake as a provider does, choosing the first subprotocol.
async fn accept(conn: &mut Conn) -> Option<String> {
    let head = conn.head().await?;
    let accept = accept_value(&field(&head, "sec-websocket-key").unwrap());
    let chosen = field(&head, "sec-websocket-protocol").map_or(String::new(), |offered| {
        let first = offered.split(',').next().unwrap().to_owned();
        format!("Sec-WebSocket-Protocol: {first}\r\n")
    });
    conn.write(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{chosen}X-Echo: {KEY}\r\n\r\n"
    ))
    .await;
    Some(head)
}

type Provider = WebSocketStream<TlsStream<TcpStream>>;

async fn provider(conn: Conn) -> Provider {
    WebSocketStream::from_raw_socket(conn.stream, Role::Server, None).await
}

/// A provider that sends every message back, and reports how each socket ended.
async fn echoing(dir: &TempDir) -> (Upstream, mpsc::Receiver<Option<Message>>) {
    let (ended, ends) = mpsc::channel(16);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let ended = ended.clone();
        async move {
            if accept(&mut conn).await.is_none() {
                return;
            }
            let mut socket = provider(conn).await;
            let mut last = None;
            while let Some(Ok(message)) = socket.next().await {
                if message.is_close() {
                    last = Some(message);
                } else if message.is_text() || message.is_binary() {
                    socket.send(message).await.unwrap();
                }
            }
            ended.send(last).await.unwrap();
        }
    })
    .await;
    (upstream, ends)
}

/// Opens a socket, and gives the head of the answer too.
async fn open(agent: &Running, request: &str) -> (String, WebSocketStream<TcpStream>) {
    let mut app = agent.connect().await;
    app.send(request).await;
    let head = patient(app.until(b"\r\n\r\n")).await.unwrap();
    let head = String::from_utf8(head).unwrap();
    assert_eq!(status(&head), 101, "{head}");
    assert!(app.came_along().is_empty());
    let socket = WebSocketStream::from_raw_socket(app.stream, Role::Client, None).await;
    (head, socket)
}

async fn says(socket: &mut WebSocketStream<TcpStream>, text: &str) -> String {
    socket.send(Message::text(text)).await.unwrap();
    let answer = patient(socket.next()).await.unwrap().unwrap();
    answer.to_text().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_the_sdks_opens_a_socket_with_our_key_and_none_of_theirs() {
    let dir = TempDir::new().unwrap();
    let (upstream, _ends) = echoing(&dir).await;
    let agent = Running::start(&dir, &upstream).await;
    let bearer = "Authorization: Bearer sk-dummy-1\r\n";
    let subprotocols = "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-dummy-2, openai-organization.org-dummy, openai-project.proj-dummy\r\n";
    let extension = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let cases = [
        (
            "/openai/v1/realtime?model=gpt-realtime".to_owned(),
            bearer,
            "authorization",
            None,
        ),
        (
            "/openai/v1/realtime?model=gpt-realtime".to_owned(),
            subprotocols,
            "authorization",
            Some("realtime"),
        ),
        (
            "/openai/v1/responses".to_owned(),
            extension,
            "authorization",
            None,
        ),
        (
            format!("/gemini{LIVE}"),
            "x-goog-api-key: dummy-3\r\n",
            "x-goog-api-key",
            None,
        ),
        (
            format!("/gemini{LIVE}?key=dummy-4&alt=x"),
            "",
            "x-goog-api-key",
            None,
        ),
        (
            format!("/gemini{LIVE}?access_token=dummy-5"),
            "Authorization: Token auth_tokens/dummy-6\r\n",
            "x-goog-api-key",
            None,
        ),
    ];
    for (target, extra, slot, protocol) in cases {
        upstream.wire.lock().unwrap().clear();
        let (head, mut socket) = open(&agent, &handshake(&target, extra)).await;
        assert_eq!(
            field(&head, "sec-websocket-accept").unwrap(),
            accept_value(APP_KEY)
        );
        assert_eq!(
            field(&head, "sec-websocket-protocol").as_deref(),
            protocol,
            "{target}"
        );
        assert!(field(&head, "x-tacit-request-id").is_some());
        assert!(!head.contains(KEY) && field(&head, "sec-websocket-extensions").is_none());
        let text = r#"{"type":"x","setup":{"model":"models/g"}}"#;
        assert_eq!(says(&mut socket, text).await, text);
        let received = upstream.received();
        let asked = &received[..received.find("\r\n\r\n").unwrap() + 4];
        assert_eq!(asked.matches(KEY).count(), 1, "{target}");
        assert!(field(asked, slot).unwrap().ends_with(KEY));
        assert!(!asked.contains("dummy"), "{asked}");
        assert_eq!(fields(asked, "upgrade"), ["websocket"]);
        assert_eq!(fields(asked, "connection"), ["Upgrade"]);
        assert_eq!(fields(asked, "sec-websocket-version"), ["13"]);
        assert_eq!(field(asked, "sec-websocket-protocol").as_deref(), protocol);
        assert!(fields(asked, "sec-websocket-extensions").is_empty());
        let keys = fields(asked, "sec-websocket-key");
        assert!(keys.len() == 1 && keys[0] != APP_KEY && keys[0].len() == 24);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_is_refused_and_reaches_nobody() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let agent = Running::start(&dir, &upstream).await;
    let realtime = "/openai/v1/realtime?model=gpt-realtime";
    let good = handshake(realtime, "");
    let cases = [
        (good.replace("Upgrade: websocket", "Upgrade: h2c"), 400),
        (good.replace("GET", "POST"), 400),
        (good.replace("Version: 13", "Version: 12"), 400),
        (good.replace(APP_KEY, "c2hvcnQ="), 400),
        (good.replace("Connection: Upgrade\r\n", ""), 400),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 400),
        (handshake(realtime, "Content-Length: 0\r\n"), 400),
        (handshake(realtime, "Origin: https://evil.example\r\n"), 403),
        (handshake("/openai/v1/chat/completions", ""), 403),
        (handshake("/openai/v1/realtime/client_secrets", ""), 403),
        (handshake("/anthropic/v1/messages", ""), 403),
        (handshake("/nobody/v1/realtime", ""), 400),
    ];
    for (request, code) in cases {
        let (head, _) = agent.ask(&request).await;
        assert_eq!(status(&head), code, "{request}");
    }
    assert_eq!(upstream.received(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_socket_is_an_ordinary_answer() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        while let Some(head) = conn.head().await {
            let accept = accept_value(&field(&head, "sec-websocket-key").unwrap());
            let switch = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
            let answer = match field(&head, "x-case").unwrap().as_str() {
                "missing" => "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
                "credentials" => format!(
                    "HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n\r\n{}",
                    KEY.len(),
                    KEY
                ),
                "accept" => format!("{switch}{}\r\n\r\n", accept_value(APP_KEY)),
                "protocol" => format!("{switch}{accept}\r\nSec-WebSocket-Protocol: other\r\n\r\n"),
                "extension" => format!("{switch}{accept}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
                "ok" => OK.to_owned(),
                _ => return,
            };
            conn.write(answer).await;
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    for (case, code, tacit) in [
        ("missing", 404, None),
        ("ok", 200, None),
        ("credentials", 502, Some("upstream_credentials_rejected")),
        ("accept", 502, Some("upstream_unreachable")),
        ("protocol", 502, Some("upstream_unreachable")),
        ("extension", 502, Some("upstream_unreachable")),
        ("gone", 502, Some("upstream_unreachable")),
    ] {
        let request = handshake("/openai/v1/responses", &format!("X-Case: {case}\r\n"));
        let (head, body) = agent.ask(&request).await;
        assert_eq!(status(&head), code, "{case}");
        assert_eq!(field(&head, "x-tacit-error").as_deref(), tacit, "{case}");
        assert!(!head.contains(KEY) && !body.contains(KEY));
    }
    // And a socket that nobody asked for is none.
    let plain = Upstream::answering(
        dir.path(),
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    )
    .await;
    let agent = Running::start(&dir, &plain).await;
    let (head, _) = agent
        .ask("GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(status(&head), 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_masked_in_messages_and_usage_is_counted() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        accept(&mut conn).await.unwrap();
        let mut socket = provider(conn).await;
        while let Some(Ok(message)) = socket.next().await {
            if !message.is_text() {
                continue;
            }
            let event = format!(
                r#"{{"type":"response.done","key":"{KEY}","response":{{"usage":{{"input_tokens":7,"output_tokens":5,"total_tokens":12}}}}}}"#
            );
            socket.send(Message::text(event)).await.unwrap();
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let request = handshake("/openai/v1/realtime?model=gpt-realtime", "");
    let (_, mut socket) = open(&agent, &request).await;
    for _ in 0..2 {
        let event = says(&mut socket, r#"{"type":"response.create"}"#).await;
        assert!(
            event.contains("response.done") && !event.contains(KEY),
            "{event}"
        );
    }
    assert_eq!(agent.metric("tacit_agent_websockets"), 1);
    socket.close(None).await.unwrap();
    while patient(socket.next()).await.is_some() {}
    let label = "{key=\"openai\",kind=\"output\",provider=\"openai\"}";
    patient(async {
        while agent.metric(&format!("tacit_agent_tokens_total{label}")) < 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(agent.metric("tacit_agent_websockets"), 0);
    let ok = "tacit_agent_requests_total{key=\"openai\",outcome=\"ok\",provider=\"openai\"}";
    assert_eq!(agent.metric(ok), 1);
    assert_eq!(
        agent.metric("tacit_agent_echo_hits_total{key=\"openai\",provider=\"openai\"}"),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_judged_closes_the_socket() {
    let dir = TempDir::new().unwrap();
    let (upstream, mut ends) = echoing(&dir).await;
    let agent = Running::start(&dir, &upstream).await;
    let (_, mut socket) = open(&agent, &handshake("/openai/v1/responses", "")).await;
    let twice = r#"{"type":"response.create","model":"a","model":"b"}"#;
    let event = says(&mut socket, twice).await;
    assert!(event.starts_with(r#"{"type":"error","error":{"#), "{event}");
    let last = patient(socket.next()).await.unwrap().unwrap();
    assert!(
        matches!(&last, Message::Close(Some(frame)) if u16::from(frame.code) == 1008),
        "{last:?}"
    );
    assert!(patient(ends.recv()).await.unwrap().unwrap().is_close());
    patient(async {
        let refused =
            "tacit_agent_requests_total{key=\"openai\",outcome=\"refused\",provider=\"openai\"}";
        while agent.metric(refused) < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_leaves_ends_the_upstream_at_once() {
    let dir = TempDir::new().unwrap();
    let (upstream, mut ends) = echoing(&dir).await;
    let agent = Running::start(&dir, &upstream).await;
    let (_, mut socket) = open(&agent, &handshake("/openai/v1/responses", "")).await;
    assert_eq!(says(&mut socket, "{}").await, "{}");
    drop(socket);
    let last = patient(ends.recv()).await.unwrap();
    assert!(
        matches!(&last, Some(Message::Close(Some(frame))) if u16::from(frame.code) == 1001),
        "{last:?}"
    );
    // And while the provider has not answered the handshake.
    let (met, mut meets) = mpsc::channel(1);
    let (gone, mut goes) = mpsc::channel(1);
    let silent = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let (met, gone) = (met.clone(), gone.clone());
        async move {
            conn.head().await.unwrap();
            met.send(()).await.unwrap();
            assert!(conn.closed().await);
            gone.send(()).await.unwrap();
        }
    })
    .await;
    let agent = Running::start(&dir, &silent).await;
    let mut app = agent.connect().await;
    app.send(handshake("/openai/v1/responses", "")).await;
    patient(meets.recv()).await.unwrap();
    drop(app);
    patient(goes.recv()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_come_with_the_handshake_are_not_lost() {
    let dir = TempDir::new().unwrap();
    let (upstream, _ends) = echoing(&dir).await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    // Too early, but in order: a masked text frame right behind the handshake.
    let frame = [0x81, 0x82, 0, 0, 0, 0, b'{', b'}'];
    let early = [handshake("/openai/v1/responses", "").as_bytes(), &frame].concat();
    app.send(early).await;
    patient(app.until(b"\r\n\r\n")).await.unwrap();
    assert_eq!(patient(app.exactly(4)).await, [0x81, 0x02, b'{', b'}']);
    // And what the provider sends in one record with its answer.
    let eager = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        let head = conn.head().await.unwrap();
        let accept = accept_value(&field(&head, "sec-websocket-key").unwrap());
        let answer = format!(
            "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        let frame = [0x81, 0x02, b'h', b'i'];
        conn.write([answer.as_bytes(), &frame].concat()).await;
        conn.until(b"never").await;
    })
    .await;
    let agent = Running::start(&dir, &eager).await;
    let mut app = agent.connect().await;
    app.send(handshake("/openai/v1/responses", "")).await;
    patient(app.until(b"\r\n\r\n")).await.unwrap();
    assert_eq!(patient(app.exactly(4)).await, [0x81, 0x02, b'h', b'i']);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_refuses_new_sockets_and_lets_open_ones_go_on() {
    let dir = TempDir::new().unwrap();
    let (upstream, _ends) = echoing(&dir).await;
    let agent = Arc::new(Running::start(&dir, &upstream).await);
    let (_, mut socket) = open(&agent, &handshake("/openai/v1/responses", "")).await;
    // A connection that has begun its head when the drain begins.
    let mut late = agent.connect().await;
    let request = handshake("/openai/v1/responses", "");
    let (beginning, end) = request.split_at(20);
    late.send(beginning).await;
    patient(async {
        while agent.metric("tacit_agent_connections") < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(says(&mut socket, "{}").await, "{}");
    agent.drain.start(lifecycle::drain::Reason::Terminate);
    late.send(end).await;
    if let Some(head) = patient(late.until(b"\r\n\r\n")).await {
        let head = String::from_utf8(head).unwrap();
        assert_eq!(status(&head), 429, "{head}");
    }
    assert_eq!(says(&mut socket, "{}").await, "{}");
    assert!(!agent.served.is_finished());
    socket.close(None).await.unwrap();
    while patient(socket.next()).await.is_some() {}
    let served = Arc::into_inner(agent).unwrap().served;
    patient(served).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_open_over_tls_too() {
    use rustls_pki_types::pem::PemObject as _;
    let dir = TempDir::new().unwrap();
    let (upstream, _ends) = echoing(&dir).await;
    let ca_file = dir.path().join("for-apps.pem");
    let text = format!(
        "{}[tls]\nlisten = \"127.0.0.1:0\"\nca_file = {ca_file:?}\n",
        support::config(&dir, &upstream)
    );
    let agent = Running::from_text(&text).await;
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls_pki_types::CertificateDer::from_pem_file(&ca_file).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(agent.tls_addr.unwrap()).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap();
    // As an SDK's own client does it.
    let url = "wss://localhost/openai/v1/realtime?model=gpt-realtime";
    let (mut socket, answer) = patient(tokio_tungstenite::client_async(url, tls))
        .await
        .unwrap();
    assert_eq!(answer.status(), 101);
    socket.send(Message::text("{}")).await.unwrap();
    let back = patient(socket.next()).await.unwrap().unwrap();
    assert_eq!(back, Message::text("{}"));
}
