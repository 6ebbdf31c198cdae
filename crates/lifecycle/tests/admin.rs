//! The operators' port over a real socket.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use lifecycle::admin::{self, AdminError, Serving};
use lifecycle::drain::{Reason, Trigger};
use lifecycle::metrics;
use lifecycle::readiness::Readiness;
use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Port {
    serving: Serving,
    readiness: Readiness,
    trigger: Trigger,
}

async fn port() -> Port {
    let trigger = Trigger::new();
    let readiness = Readiness::new(&trigger);
    let registry = Registry::new();
    metrics::register(&registry, "tacit_test", "0.0.1").unwrap();
    let bound = admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let serving = bound
        .spawn("tacit_test", readiness.clone(), registry)
        .unwrap();
    Port {
        serving,
        readiness,
        trigger,
    }
}

/// Status line and headers, and the body.
async fn ask(addr: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let (head, body) = ask(addr, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

#[tokio::test]
async fn live_is_always_yes_and_ready_follows_the_conditions() {
    let port = port().await;
    let addr = port.serving.addr();
    let store = port.readiness.task("store");
    let quorum = port.readiness.condition("quorum", "0 of 2 custodians up");

    assert_eq!(get(addr, "/live").await, (200, "live\n".into()));
    let awaited = "not ready\nstore: not done yet\nquorum: 0 of 2 custodians up\n";
    assert_eq!(get(addr, "/ready").await, (503, awaited.into()));

    store.ready();
    quorum.set_ready();
    assert_eq!(get(addr, "/ready?verbose").await, (200, "ready\n".into()));

    quorum.set_not_ready("1 of 2 custodians up");
    assert_eq!(get(addr, "/ready").await.0, 503);
    quorum.set_ready();
    port.trigger.start(Reason::Terminate);
    assert_eq!(
        get(addr, "/ready").await,
        (503, "not ready\ndraining: SIGTERM\n".into())
    );
    assert_eq!(get(addr, "/live").await.0, 200);
}

#[tokio::test]
async fn metrics_come_in_the_text_format() {
    let port = port().await;
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    let (head, body) = ask(port.serving.addr(), request).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(
        body.contains("tacit_test_build_info{version=\"0.0.1\"} 1\n"),
        "{body}"
    );
    assert!(
        body.contains("tacit_test_admin_connections_dropped_total 0\n"),
        "{body}"
    );
}

#[tokio::test]
async fn everything_else_is_refused() {
    let port = port().await;
    let addr = port.serving.addr();
    for path in [
        "/",
        "/debug/pprof",
        "/env.json",
        "/shutdown",
        "/live/",
        "/METRICS",
        "//metrics",
    ] {
        assert_eq!(get(addr, path).await.0, 404, "{path}");
    }
    let (head, _) = ask(
        addr,
        "POST /ready HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert!(head.contains("allow: GET, HEAD"), "{head}");
    let (head, body) = ask(addr, "HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 200 ") && body.is_empty(),
        "{head}"
    );
    let long = format!("GET /live HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(16 * 1024));
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The port may close before all of it is written; either way no 200 comes back.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn more_connections_than_the_bound_are_closed_and_counted() {
    let port = port().await;
    let addr = port.serving.addr();
    let mut held = Vec::new();
    for _ in 0..32 {
        held.push(TcpStream::connect(addr).await.unwrap());
    }
    let mut extra = TcpStream::connect(addr).await.unwrap();
    let mut answer = Vec::new();
    let _ = extra.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    drop(held);
    // The slots come back when the closed connections are noticed; until then we are closed unanswered.
    let body = loop {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let _ = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await;
        let mut answer = String::new();
        if stream.read_to_string(&mut answer).await.is_ok() && !answer.is_empty() {
            break answer;
        }
    };
    let line = body
        .lines()
        .find(|l| l.starts_with("tacit_test_admin_connections_dropped_total"));
    let count: u64 = line.unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert!(count >= 1, "{count}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_cut_off() {
    let port = port().await;
    let mut stream = TcpStream::connect(port.serving.addr()).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let port = port().await;
    let error = admin::bind(port.serving.addr()).await.unwrap_err();
    assert!(matches!(error, AdminError::BindFailed { addr, .. } if addr == port.serving.addr()));
    assert!(error.to_string().contains("admin_listen"));
}

#[tokio::test]
async fn dropping_the_guard_closes_the_port() {
    let port = port().await;
    let addr = port.serving.addr();
    assert_eq!(get(addr, "/live").await.0, 200);
    drop(port.serving);
    // The abort is acted on at the next turn of the runtime.
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
