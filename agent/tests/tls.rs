//! TLS for apps, from outside: who trusts the file gets through, who does not is told by the handshake, and who stalls stalls alone.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::agent::{BuildError, Deps};
use agent::clock::BootClock;
use agent::config::Config;
use lifecycle::drain::Trigger;
use prometheus::Registry;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use support::{KEY, OK, Running, Upstream, config, patient};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

fn ca_file(dir: &TempDir) -> PathBuf {
    dir.path().join("for-apps.pem")
}

fn with_tls(dir: &TempDir, upstream: &Upstream, listen: &str) -> String {
    let tls = format!("[tls]\nlisten = {listen:?}\nca_file = {:?}\n", ca_file(dir));
    format!("hosts = [\"agent.ns.svc\"]\n{}{tls}", config(dir, upstream))
}

async fn start(dir: &TempDir, upstream: &Upstream) -> Running {
    Running::from_text(&with_tls(dir, upstream, "127.0.0.1:0")).await
}

/// What an SDK makes of `SSL_CERT_FILE`.
fn trusting(file: &Path, alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn connect(
    agent: &Running,
    connector: &TlsConnector,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(agent.tls_addr.unwrap()).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    patient(connector.connect(name, tcp)).await
}

const GET: &str =
    "GET /openai/v1/models HTTP/1.1\r\nHost: localhost:4143\r\nConnection: close\r\n\r\n";

async fn ask(mut stream: TlsStream<TcpStream>, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    patient(stream.read_to_end(&mut all)).await.unwrap();
    String::from_utf8(all).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_trusts_the_file_gets_through_by_every_name_and_one_that_does_not_is_told() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let agent = start(&dir, &upstream).await;
    let file = ca_file(&dir);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let pem = std::fs::read_to_string(&file).unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----") && !pem.contains("KEY"));
    for alpn in [&[][..], &[&b"http/1.1"[..]]] {
        for name in ["localhost", "127.0.0.1", "::1", "agent.ns.svc"] {
            let stream = connect(&agent, &trusting(&file, alpn), name).await.unwrap();
            let answer = ask(stream, GET).await;
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}"),
                "{answer}"
            );
            assert!(!answer.contains(KEY));
        }
    }
    assert_eq!(upstream.received().matches(KEY).count(), 8);
    // Another name, another authority, and no TLS at all.
    let trusts = trusting(&file, &[]);
    assert!(connect(&agent, &trusts, "api.openai.com").await.is_err());
    let stranger = trusting(&upstream.ca_file, &[]);
    assert!(connect(&agent, &stranger, "localhost").await.is_err());
    let mut plain = TcpStream::connect(agent.tls_addr.unwrap()).await.unwrap();
    plain.write_all(GET.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    // It may be reset, since what was sent is not read.
    let _ = patient(plain.read_to_end(&mut all)).await;
    assert!(!String::from_utf8_lossy(&all).contains("HTTP"));
    patient(async {
        while agent.metric("tacit_agent_tls_handshakes_total{outcome=\"failed\"}") < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        agent.metric("tacit_agent_tls_handshakes_total{outcome=\"ok\"}"),
        8
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_chosen_by_alpn_and_by_nothing_else() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let agent = start(&dir, &upstream).await;
    let stream = connect(
        &agent,
        &trusting(&ca_file(&dir), &[b"h2", b"http/1.1"]),
        "localhost",
    )
    .await
    .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::get("https://localhost/openai/v1/models")
        .body(())
        .unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(patient(response).await.unwrap().status(), 200);
    let stream = connect(
        &agent,
        &trusting(&ca_file(&dir), &[b"http/1.1"]),
        "localhost",
    )
    .await
    .unwrap();
    let answer = ask(stream, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    // What is neither is no common protocol.
    let other = trusting(&ca_file(&dir), &[b"spdy/3"]);
    assert!(connect(&agent, &other, "localhost").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_that_lead_back_through_us_have_the_apps_scheme() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        while let Some(head) = conn.head().await {
            let host = support::field(&head, "host").unwrap();
            conn.write(format!(
                "HTTP/1.1 200 OK\r\nx-goog-upload-url: https://{host}/upload/v1/files?upload_id=7\r\ncontent-length: 0\r\n\r\n"
            ))
            .await;
        }
    })
    .await;
    let agent = start(&dir, &upstream).await;
    let request = "POST /gemini/upload/v1beta/files HTTP/1.1\r\nHost: localhost:4143\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let stream = connect(&agent, &trusting(&ca_file(&dir), &[]), "localhost")
        .await
        .unwrap();
    let answer = ask(stream, request).await;
    assert_eq!(
        support::field(&answer, "x-goog-upload-url").as_deref(),
        Some("https://localhost:4143/gemini/upload/v1/files?upload_id=7")
    );
    let (head, _) = agent.ask(request).await;
    assert_eq!(
        support::field(&head, "x-goog-upload-url").as_deref(),
        Some("http://localhost:4143/gemini/upload/v1/files?upload_id=7")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_handshakes_hold_up_neither_requests_nor_the_end() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let agent = start(&dir, &upstream).await;
    let mut stalled = Vec::new();
    for at in 0..64u8 {
        let mut tcp = TcpStream::connect(agent.tls_addr.unwrap()).await.unwrap();
        // Nothing at all, or the beginning of a ClientHello.
        tcp.write_all(&[0x16, 3, 1, 2, 0, 1][..usize::from(at % 7)])
            .await
            .unwrap();
        stalled.push(tcp);
    }
    let stream = connect(&agent, &trusting(&ca_file(&dir), &[]), "localhost")
        .await
        .unwrap();
    assert!(ask(stream, GET).await.starts_with("HTTP/1.1 200"));
    let (head, _) = agent.ask(GET).await;
    assert!(head.starts_with("HTTP/1.1 200"));
    agent.drain.start(lifecycle::drain::Reason::Terminate);
    patient(agent.served).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_does_not_replace_what_apps_of_the_first_one_trust() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let agent = start(&dir, &upstream).await;
    let before = std::fs::read(ca_file(&dir)).unwrap();
    let build = |text: String| async move {
        let deps = Deps {
            clock: Arc::new(BootClock),
            drain: Trigger::new(),
            registry: Registry::new(),
            config_path: None,
            confined: None,
        };
        Config::parse(&text, &mut |_| None)
            .unwrap()
            .build(deps)
            .await
    };
    let taken = agent.tls_addr.unwrap().to_string();
    let error = build(with_tls(&dir, &upstream, &taken))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, BuildError::Bind { .. }), "{error}");
    assert_eq!(std::fs::read(ca_file(&dir)).unwrap(), before);
    // On a port of its own it is another authority.
    build(with_tls(&dir, &upstream, "127.0.0.1:0"))
        .await
        .unwrap();
    assert_ne!(std::fs::read(ca_file(&dir)).unwrap(), before);
    let nowhere = with_tls(&dir, &upstream, "127.0.0.1:0").replace("for-apps.pem", "none/ca.pem");
    let error = build(nowhere).await.err().unwrap();
    assert!(
        error.is_configuration() && matches!(error, BuildError::CaFile { .. }),
        "{error}"
    );
}
