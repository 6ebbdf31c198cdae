//! HTTP/2 from apps, from outside: the same gate, the same relay, and resets that reach the other side.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, Request};
use support::raw_h2::{Fate, Fields, RawH2, data, headers, reset};
use support::{KEY, OK, Running, Upstream, field, patient};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::Notify;

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A client of the agent, and the task that drives it.
async fn client(agent: &Running) -> (SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let tcp = TcpStream::connect(agent.addr).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    (client.ready().await.unwrap(), driver)
}

fn post(path: &str) -> http::request::Builder {
    Request::post(format!("http://localhost:4100{path}"))
        .header("authorization", "Bearer sk-dummy-of-the-app")
}

/// An endpoint whose bodies are not looked at, and so are not collected either.
const UPLOADS: &str = "/gemini/upload/v1beta/files";

fn chat() -> Request<()> {
    post("/openai/v1/chat/completions").body(()).unwrap()
}

fn open(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
) -> (ResponseFuture, SendStream<Bytes>) {
    client.send_request(request, false).unwrap()
}

/// Reads until all that came ends with `text`: what could be the beginning of the key comes a moment later.
async fn until(response: &mut h2::RecvStream, text: &str) {
    let mut all = Vec::new();
    while !all.ends_with(text.as_bytes()) {
        let piece = patient(response.data()).await.unwrap().unwrap();
        response
            .flow_control()
            .release_capacity(piece.len())
            .unwrap();
        all.extend(piece);
    }
}

async fn body(response: &mut h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = response.data().await {
        let piece = piece?;
        response.flow_control().release_capacity(piece.len())?;
        all.extend(piece);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_leaves_as_http_1_with_the_key_and_the_answer_comes_back() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        while let Some(head) = conn.head().await {
            match field(&head, "content-length") {
                Some(length) => drop(conn.body(length.parse().unwrap()).await.unwrap()),
                None => drop(conn.until(b"0\r\n\r\n").await.unwrap()),
            }
            conn.write("HTTP/1.1 201 x\r\nx-request-id: r1\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello")
                .await;
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let (mut client, _driver) = client(&agent).await;
    for length in [Some("4"), None] {
        let mut request = post(&format!("{UPLOADS}?a=b&key=k"));
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let (response, mut send) = open(&mut client, request.body(()).unwrap());
        send.send_data("bo".into(), false).unwrap();
        send.send_data("dy".into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("authorization", "Bearer sk-in-a-trailer".parse().unwrap());
        send.send_trailers(trailers).unwrap();
        let response = patient(response).await.unwrap();
        let (parts, mut answer) = response.into_parts();
        assert_eq!(parts.status, 201);
        assert_eq!(parts.headers["x-request-id"], "r1");
        assert_eq!(parts.headers["content-length"], "5");
        assert!(parts.headers.contains_key("x-tacit-request-id"));
        assert!(!parts.headers.contains_key("connection"));
        assert_eq!(patient(body(&mut answer)).await.unwrap(), b"hello");
    }
    let received = upstream.received();
    assert!(received.starts_with("POST /upload/v1beta/files?a=b HTTP/1.1\r\nhost: localhost:"));
    assert_eq!(received.matches(KEY).count(), 2);
    for absent in ["sk-dummy", "sk-in-a-trailer", "key=k", ":authority"] {
        assert!(!received.contains(absent), "{absent}");
    }
    assert!(
        received.contains("\r\n\r\nbody")
            && received.contains("\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n")
    );
}

/// What it is, its fields, its body.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, Option<&'a [u8]>);

/// Sends one raw stream, with a body or without, and says what became of it.
async fn knock(agent: &Running, fields: Fields<'_>, content: Option<&[u8]>) -> Fate {
    let mut raw = RawH2::connect(agent.addr).await;
    raw.send(&headers(1, fields, content.is_none())).await;
    if let Some(content) = content {
        raw.send(&data(1, content, true)).await;
    }
    patient(raw.fate(1)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_pass_is_refused_and_its_neighbour_passes() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        while let Some(head) = conn.head().await {
            if field(&head, "transfer-encoding").is_some() {
                if conn.until(b"0\r\n\r\n").await.is_none() {
                    return;
                }
            } else if let Some(length) = field(&head, "content-length")
                && conn.body(length.parse().unwrap()).await.is_none()
            {
                return;
            }
            conn.write(OK).await;
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    const PLAIN: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost:4100"),
        (":path", "/openai/v1/models"),
    ];
    const UPLOAD: [(&str, &str); 4] = [(":method", "POST"), PLAIN[1], PLAIN[2], (":path", UPLOADS)];
    let with = |base: &[(&'static str, &'static str)], extra: &[(&'static str, &'static str)]| {
        [base, extra].concat()
    };
    let but = |name: &str, value: &'static str| {
        let changed = PLAIN.map(|(n, v)| if n == name { (n, value) } else { (n, v) });
        changed.to_vec()
    };
    let without = |name: &str| {
        PLAIN
            .into_iter()
            .filter(|(n, _)| *n != name)
            .collect::<Vec<_>>()
    };
    #[rustfmt::skip]
    let passes: Vec<Case<'_>> = vec![
        ("plain", PLAIN.to_vec(), None),
        ("te trailers", with(&PLAIN, &[("te", "trailers")]), None),
        ("host agrees", with(&PLAIN, &[("host", "LocalHost:4100")]), None),
        ("host alone", with(&without(":authority"), &[("host", "localhost")]), None),
        ("https scheme", but(":scheme", "https"), None),
        ("length agrees", with(&UPLOAD, &[("content-length", "4")]), Some(b"abcd")),
        ("no length", UPLOAD.to_vec(), Some(b"abcd")),
        ("expects", with(&UPLOAD, &[("content-length", "4"), ("expect", "100-continue")]), Some(b"abcd")),
    ];
    for (what, fields, content) in passes {
        assert_eq!(
            knock(&agent, &fields, content).await,
            Fate::Status(200),
            "{what}"
        );
    }
    let before = upstream.wire.lock().unwrap().len();
    #[rustfmt::skip]
    let refused: Vec<Case<'_>> = vec![
        ("connection", with(&PLAIN, &[("connection", "close")]), None),
        ("transfer-encoding", with(&UPLOAD, &[("transfer-encoding", "chunked")]), Some(b"0\r\n\r\n")),
        ("upgrade", with(&PLAIN, &[("upgrade", "websocket")]), None),
        ("keep-alive", with(&PLAIN, &[("keep-alive", "1")]), None),
        ("proxy-connection", with(&PLAIN, &[("proxy-connection", "close")]), None),
        ("te gzip", with(&PLAIN, &[("te", "gzip")]), None),
        ("host contradicts", with(&PLAIN, &[("host", "localhost:4101")]), None),
        ("two hosts", with(&PLAIN, &[("host", "localhost:4100"), ("host", "localhost:4100")]), None),
        ("no host at all", without(":authority"), None),
        ("no path", without(":path"), None),
        ("no scheme", without(":scheme"), None),
        ("no method", without(":method"), None),
        ("empty path", but(":path", ""), None),
        ("path without a slash", but(":path", "openai/v1/models"), None),
        ("absolute path", but(":path", "http://evil/openai/v1/models"), None),
        ("double slash", but(":path", "//openai/v1/models"), None),
        ("dots", but(":path", "/openai/v1/../models"), None),
        ("encoded slash", but(":path", "/openai%2fv1/models"), None),
        ("blank in the path", but(":path", "/openai/v1/models HTTP/1.1"), None),
        ("line break in the path", but(":path", "/openai/v1/models\r\nx: y"), None),
        ("userinfo", but(":authority", "localhost:x@localhost"), None),
        ("trace", but(":method", "TRACE"), None),
        ("method with a line break", but(":method", "GET\r\nx"), None),
        ("connect", vec![(":method", "CONNECT"), (":authority", "localhost:4100")], None),
        ("websocket", with(&but(":method", "CONNECT"), &[(":protocol", "websocket")]), None),
        ("pseudo twice", with(&PLAIN, &[(":path", "/openai/v1/models")]), None),
        ("pseudo late", with(&[("x", "y")], &PLAIN), None),
        ("unknown pseudo", with(&PLAIN, &[(":key", "x")]), None),
        ("upper case", with(&PLAIN, &[("X-Y", "z")]), None),
        ("line break in a value", with(&PLAIN, &[("x", "y\r\nz: a")]), None),
        ("nul in a value", with(&PLAIN, &[("x", "y\0")]), None),
        ("blank in a name", with(&PLAIN, &[("x ", "y")]), None),
        ("expects something else", with(&UPLOAD, &[("content-length", "4"), ("expect", "200-ok")]), Some(b"abcd")),
        ("length of nothing", with(&PLAIN, &[("content-length", "4")]), None),
        ("two lengths", with(&UPLOAD, &[("content-length", "4"), ("content-length", "4")]), Some(b"abcd")),
        ("signed length", with(&UPLOAD, &[("content-length", "+4")]), Some(b"abcd")),
    ];
    for (what, fields, content) in refused {
        let fate = knock(&agent, &fields, content).await;
        assert!(
            matches!(fate, Fate::Status(400) | Fate::Reset(_) | Fate::GoAway),
            "{what}: {fate:?}"
        );
    }
    let wire = upstream.wire.lock().unwrap().len();
    assert_eq!(wire, before, "nothing of them was sent on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_contradicts_its_length_is_never_completed_upstream() {
    let dir = TempDir::new().unwrap();
    let (seen, mut sights) = tokio::sync::mpsc::channel(8);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let seen = seen.clone();
        async move {
            conn.head().await.unwrap();
            seen.send(None).await.unwrap();
            let body = conn.body(4).await;
            seen.send(Some(body.clone())).await.unwrap();
            if body.is_some() {
                conn.write(OK).await;
            }
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let fields: Fields<'_> = &[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", UPLOADS),
        ("content-length", "4"),
    ];
    for (what, content, good) in [
        ("too short by the end", data(1, b"abc", true), None),
        (
            "too short by a reset",
            [data(1, b"abc", false), reset(1)].concat(),
            None,
        ),
        ("too long", data(1, b"abcde", true), None),
        (
            "as long as it said",
            data(1, b"abcd", true),
            Some(&b"abcd"[..]),
        ),
    ] {
        let mut raw = RawH2::connect(agent.addr).await;
        raw.send(&headers(1, fields, false)).await;
        assert_eq!(
            patient(sights.recv()).await.unwrap(),
            None,
            "{what}: the head"
        );
        raw.send(&content).await;
        let body = patient(sights.recv()).await.unwrap().unwrap();
        assert_eq!(body.as_deref(), good, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_share_a_connection_and_events_arrive_one_by_one() {
    let dir = TempDir::new().unwrap();
    let go = Arc::new(Notify::new());
    let next = Arc::clone(&go);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let next = Arc::clone(&next);
        async move {
            while let Some(head) = conn.head().await {
                if head.starts_with("GET") {
                    conn.write(OK).await;
                    continue;
                }
                conn.write(format!("{STREAM}7\r\ndata: 1\r\n")).await;
                next.notified().await;
                conn.write("7\r\ndata: 2\r\n0\r\n\r\n").await;
            }
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let (mut client, _driver) = client(&agent).await;
    let (response, mut send) = open(&mut client, chat());
    send.send_data("{}".into(), true).unwrap();
    let mut events = patient(response).await.unwrap().into_body();
    until(&mut events, "data: 1").await;
    // Another stream begins and ends while the first one waits.
    let models = Request::get("http://localhost/openai/v1/models")
        .body(())
        .unwrap();
    let (response, _) = client.send_request(models, true).unwrap();
    let mut models = patient(response).await.unwrap().into_body();
    assert_eq!(patient(body(&mut models)).await.unwrap(), b"{}");
    go.notify_one();
    assert_eq!(patient(body(&mut events)).await.unwrap(), b"data: 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_the_app_ends_the_upstream_at_once() {
    let dir = TempDir::new().unwrap();
    let (gone, mut ends) = tokio::sync::mpsc::channel(8);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let gone = gone.clone();
        async move {
            let head = conn.head().await.unwrap();
            if head.contains("upload") {
                conn.write(format!("{STREAM}7\r\ndata: 1\r\n")).await;
            }
            conn.until(b"never").await;
            gone.send(()).await.unwrap();
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let (mut client, driver) = client(&agent).await;
    // While the answer runs, with the request complete and not; before there is an answer; and with the whole connection.
    for complete in [true, false] {
        let (response, mut send) = open(&mut client, post(UPLOADS).body(()).unwrap());
        send.send_data("{}".into(), complete).unwrap();
        let mut events = patient(response).await.unwrap().into_body();
        until(&mut events, "data: 1").await;
        send.send_reset(Reason::CANCEL);
        patient(ends.recv()).await.unwrap();
    }
    let silent = post("/openai/v1/embeddings").body(()).unwrap();
    let (_response, mut send) = open(&mut client, silent);
    send.send_data("{}".into(), true).unwrap();
    patient(async {
        while upstream
            .connections
            .load(std::sync::atomic::Ordering::SeqCst)
            < 3
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    send.send_reset(Reason::CANCEL);
    patient(ends.recv()).await.unwrap();
    let (response, mut send) = open(&mut client, post(UPLOADS).body(()).unwrap());
    send.send_data("{}".into(), true).unwrap();
    let _events = patient(response).await.unwrap().into_body();
    driver.abort();
    patient(ends.recv()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_off_is_a_reset_and_never_a_clean_end() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        let head = conn.head().await.unwrap();
        let begin = if head.contains("chat") {
            format!("{STREAM}7\r\ndata: 1\r\n")
        } else {
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ndata: 1".to_owned()
        };
        conn.write(begin).await;
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let (mut client, _driver) = client(&agent).await;
    for path in ["/openai/v1/chat/completions", "/openai/v1/embeddings"] {
        let (response, mut send) = open(&mut client, post(path).body(()).unwrap());
        send.send_data("{}".into(), true).unwrap();
        // A reset overtakes what waits to be sent.
        let error = match patient(response).await {
            Ok(response) => patient(body(&mut response.into_body())).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.is_reset(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_look_like_those_of_http_1() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let agent = Running::start(&dir, &upstream).await;
    let (mut client, _driver) = client(&agent).await;
    let mut ask = |request: Request<()>| client.send_request(request, true).unwrap().0;
    for (uri, status, code) in [
        (
            "http://localhost/anthropic/v1/organizations",
            403,
            "permission_denied",
        ),
        ("http://localhost/nobody/v1/models", 400, "bad_request"),
        ("http://evil.example/openai/v1/models", 421, "misdirected"),
    ] {
        let response = patient(ask(Request::get(uri).body(()).unwrap()))
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{uri}");
        assert_eq!(response.headers()["x-tacit-error"], code);
        let text = patient(body(&mut response.into_body())).await.unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
    }
    // 32 KiB of head are the limit, whatever HTTP/2 packs them into.
    let large = |bytes: usize| {
        let mut request = Request::get("http://localhost/openai/v1/models");
        for at in 0..bytes / 1024 {
            request = request.header(format!("x-{at}"), "v".repeat(1024));
        }
        request.body(()).unwrap()
    };
    assert_eq!(patient(ask(large(30 * 1024))).await.unwrap().status(), 200);
    let refused = patient(ask(large(33 * 1024))).await.unwrap();
    assert_eq!(refused.status(), 431);
    assert_eq!(refused.headers()["x-tacit-error"], "headers_too_large");
    assert_eq!(
        agent.metric("tacit_agent_rejected_heads_total{code=\"headers_too_large\"}"),
        1
    );
    // Far beyond it the library answers.
    assert_eq!(patient(ask(large(40 * 1024))).await.unwrap().status(), 431);
    let head = Request::head("http://localhost/nobody").body(()).unwrap();
    assert_eq!(patient(ask(head)).await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hundred_and_first_stream_is_refused_and_the_others_go_on() {
    let dir = TempDir::new().unwrap();
    let go = Arc::new(Notify::new());
    let next = Arc::clone(&go);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let next = Arc::clone(&next);
        async move {
            conn.head().await.unwrap();
            next.notified().await;
            conn.write(OK).await;
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let fields: Fields<'_> = &[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/openai/v1/models"),
    ];
    let mut raw = RawH2::connect(agent.addr).await;
    for at in 0..101 {
        raw.send(&headers(2 * at + 1, fields, true)).await;
    }
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(patient(raw.fate(201)).await, Fate::Reset(REFUSED_STREAM));
    patient(async {
        while upstream
            .connections
            .load(std::sync::atomic::Ordering::SeqCst)
            < 100
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // One ends, and there is a place again.
    go.notify_one();
    assert_eq!(patient(raw.next_fate(None)).await, Fate::Status(200));
    raw.send(&headers(203, fields, true)).await;
    go.notify_waiters();
    patient(async {
        while upstream
            .connections
            .load(std::sync::atomic::Ordering::SeqCst)
            < 101
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preface_may_come_in_pieces_and_its_neighbours_are_refused() {
    use tokio::io::AsyncWriteExt as _;
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::answering(dir.path(), OK).await;
    let agent = Running::start(&dir, &upstream).await;
    let mut tcp = TcpStream::connect(agent.addr).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        tcp.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut raw = RawH2 { stream: tcp };
    raw.send(&support::raw_h2::frame(4, 0, 0, &[])).await;
    let fields: Fields<'_> = &[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/openai/v1/models"),
    ];
    raw.send(&headers(1, fields, true)).await;
    assert_eq!(patient(raw.fate(1)).await, Fate::Status(200));
    for neighbour in [
        "PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n",
        "PRI * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n",
        // Not at the beginning of a connection.
        "GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut app = agent.connect().await;
        app.send(neighbour).await;
        let all = String::from_utf8(patient(app.rest()).await).unwrap();
        assert!(all.contains("HTTP/1.1 400"), "{neighbour:?}: {all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_streams_finish_and_ends_the_connection() {
    let dir = TempDir::new().unwrap();
    let go = Arc::new(Notify::new());
    let next = Arc::clone(&go);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let next = Arc::clone(&next);
        async move {
            conn.head().await.unwrap();
            conn.write(format!("{STREAM}5\r\nhello\r\n")).await;
            next.notified().await;
            conn.write("5\r\nworld\r\n0\r\n\r\n").await;
            conn.closed().await;
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let (_idle, idle_driver) = client(&agent).await;
    let (mut busy, driver) = client(&agent).await;
    let (response, mut send) = open(&mut busy, chat());
    send.send_data("{}".into(), true).unwrap();
    let mut events = patient(response).await.unwrap().into_body();
    until(&mut events, "hello").await;
    agent.drain.start(lifecycle::drain::Reason::Terminate);
    patient(idle_driver).await.unwrap();
    assert!(!agent.served.is_finished());
    go.notify_one();
    assert_eq!(patient(body(&mut events)).await.unwrap(), b"world");
    patient(driver).await.unwrap();
    patient(agent.served).await.unwrap();
}
