//! Bytes in passing: nothing is collected, nothing broken is made whole, and whoever leaves is let go.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{OK, Running, Upstream, field, patient, status};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn post(extra: &str) -> String {
    // An upload: bodies of other endpoints are read for their model before they are sent.
    format!("POST /openai/v1/files HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_seen_before_the_next_one_is_sent() {
    let dir = TempDir::new().unwrap();
    let seen = Arc::new(Notify::new());
    let next = Arc::clone(&seen);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let next = Arc::clone(&next);
        async move {
            conn.head().await.unwrap();
            conn.write(format!("{STREAM}9\r\ndata: 1\n\n\r\n")).await;
            // Only the app's having seen the first event lets the second out.
            next.notified().await;
            conn.write("9\r\ndata: 2\n\n\r\n0\r\n\r\n").await;
            conn.closed().await;
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    app.send(post("Content-Length: 0\r\n")).await;
    assert!(patient(app.until(b"data: 1\n\n")).await.is_some());
    seen.notify_one();
    assert!(patient(app.until(b"data: 2\n\n")).await.is_some());
    assert!(patient(app.until(b"0\r\n\r\n")).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_may_begin_before_the_request_has_ended() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        conn.head().await.unwrap();
        conn.until(b"ping").await.unwrap();
        conn.write(format!("{STREAM}4\r\npong\r\n")).await;
        conn.until(b"0\r\n\r\n").await.unwrap();
        conn.write("4\r\ndone\r\n0\r\n\r\n").await;
        conn.closed().await;
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    app.send(post("Transfer-Encoding: chunked\r\n") + "4\r\nping\r\n")
        .await;
    assert!(patient(app.until(b"pong")).await.is_some());
    app.send("0\r\n\r\n").await;
    assert!(patient(app.until(b"done")).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_streams_through_bounded_memory() {
    const SIZE: usize = 64 * 1024 * 1024;
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        use tokio::io::AsyncReadExt as _;
        conn.head().await.unwrap();
        // What came with the head is in the recorder; the rest is counted without being kept.
        let mut taken = conn.body(0).await.map_or(0, |b| b.len());
        let mut piece = vec![0; 64 * 1024];
        while taken < SIZE {
            match conn.stream.read(&mut piece).await {
                Ok(n @ 1..) => taken += n,
                _ => return,
            }
            if taken + 64 * 1024 >= SIZE {
                break;
            }
        }
        conn.write(OK).await;
        while let Ok(1..) = conn.stream.read(&mut piece).await {}
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    let before = resident();
    app.send(format!(
        "POST /openai/v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n"
    ))
    .await;
    let piece = vec![b'x'; 1024 * 1024];
    for _ in 0..SIZE / piece.len() {
        app.send(&piece).await;
    }
    let (head, _) = patient(app.response()).await;
    assert_eq!(status(&head), 200);
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 * 1024 * 1024, "grew by {grown} bytes for {SIZE}");
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_leaves_ends_the_upstream_at_once() {
    let dir = TempDir::new().unwrap();
    let (ended, mut end) = mpsc::channel(1);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let ended = ended.clone();
        async move {
            conn.head().await.unwrap();
            conn.write(format!("{STREAM}5\r\nhello\r\n")).await;
            assert!(conn.closed().await);
            ended.send(()).await.unwrap();
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    app.send(post("Content-Length: 0\r\n")).await;
    patient(app.until(b"hello")).await.unwrap();
    drop(app);
    patient(end.recv()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_is_not_completed() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        conn.head().await.unwrap();
        conn.write(format!("{STREAM}5\r\nhello\r\n")).await;
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    app.send(post("Content-Length: 0\r\n")).await;
    let all = patient(app.rest()).await;
    let all = String::from_utf8(all).unwrap();
    assert!(
        all.contains("hello") && !all.ends_with("0\r\n\r\n"),
        "{all}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_breaks_off_is_not_completed() {
    let dir = TempDir::new().unwrap();
    let (ended, mut end) = mpsc::channel(1);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let ended = ended.clone();
        async move {
            conn.head().await.unwrap();
            ended.send(false).await.unwrap();
            let rest = conn.until(b"0\r\n\r\n").await;
            ended.send(rest.is_none()).await.unwrap();
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    app.send(post("Transfer-Encoding: chunked\r\n") + "4\r\nabcd\r\n4\r\nab")
        .await;
    // Gone before it was sent on, it would never be seen there at all.
    assert_eq!(patient(end.recv()).await, Some(false));
    drop(app);
    assert_eq!(patient(end.recv()).await, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_reaches_an_app_that_is_still_sending() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        conn.head().await.unwrap();
        conn.write(
            "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig",
        )
        .await;
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    app.send(post("Content-Length: 1000000\r\n") + "abc").await;
    let (head, body) = patient(app.response()).await;
    assert_eq!((status(&head), body.as_str()), (413, "big"));
    assert_eq!(field(&head, "connection").as_deref(), Some("close"));
}

#[tokio::test(flavor = "multi_thread")]
async fn continue_is_said_once_and_interim_answers_are_dropped() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        let head = conn.head().await.unwrap();
        assert!(field(&head, "expect").is_none());
        conn.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
            .await;
        conn.body(4).await.unwrap();
        conn.write(OK).await;
        conn.closed().await;
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    app.send(post("Content-Length: 4\r\nExpect: 100-continue\r\n"))
        .await;
    let first = String::from_utf8(patient(app.until(b"\r\n\r\n")).await.unwrap()).unwrap();
    assert_eq!(first, "HTTP/1.1 100 Continue\r\n\r\n");
    app.send("abcd").await;
    let (head, _) = patient(app.response()).await;
    assert_eq!(status(&head), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_until_close_is_chunked_for_a_modern_app_and_plain_for_an_old_one() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        use tokio::io::AsyncWriteExt as _;
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\n\r\nhello").await;
        conn.stream.shutdown().await.unwrap();
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    app.send(post("Content-Length: 0\r\nConnection: close\r\n"))
        .await;
    let all = String::from_utf8(patient(app.rest()).await).unwrap();
    assert!(all.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{all}");
    let mut app = agent.connect().await;
    app.send("GET /openai/v1/models HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await;
    let all = String::from_utf8(patient(app.rest()).await).unwrap();
    assert!(
        all.ends_with("\r\n\r\nhello") && !all.contains("chunked"),
        "{all}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_died_costs_no_request() {
    let dir = TempDir::new().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let count = Arc::clone(&count);
        async move {
            // One request per connection, and no word about closing.
            let head = conn.head().await.unwrap();
            conn.body(field(&head, "content-length").map_or(0, |n| n.parse().unwrap()))
                .await
                .unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            conn.write(OK).await;
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let requests = [
        post("Content-Length: 4\r\n") + "abcd",
        "GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
    ];
    for request in requests.iter().cycle().take(20) {
        let (head, _) = agent.ask(request).await;
        assert_eq!(status(&head), 200);
    }
    assert_eq!(
        served.load(Ordering::SeqCst),
        20,
        "no request was carried out twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_may_have_been_carried_out_is_not_sent_again() {
    let dir = TempDir::new().unwrap();
    let bodies = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&bodies);
    let upstream = Upstream::start(dir.path(), &["localhost"], move |mut conn| {
        let count = Arc::clone(&count);
        async move {
            conn.head().await.unwrap();
            conn.body(4).await.unwrap();
            conn.write(OK).await;
            // The second request on this connection is read completely, and then the connection dies.
            if conn.head().await.is_some() && conn.body(4).await.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let request = post("Content-Length: 4\r\n") + "abcd";
    // On one connection: the second request is read after the first has given its upstream connection back.
    let mut app = agent.connect().await;
    app.send(&request).await;
    assert_eq!(status(&patient(app.response()).await.0), 200);
    app.send(&request).await;
    let (head, _) = patient(app.response()).await;
    assert_eq!(
        (status(&head), field(&head, "x-tacit-error").as_deref()),
        (502, Some("upstream_unreachable"))
    );
    assert_eq!(bodies.load(Ordering::SeqCst), 1);
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_streams_finish_and_closes_what_is_idle() {
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
    let mut idle = agent.connect().await;
    let mut app = agent.connect().await;
    app.send(post("Content-Length: 0\r\n")).await;
    patient(app.until(b"hello")).await.unwrap();
    agent.drain.start(lifecycle::drain::Reason::Terminate);
    assert!(patient(idle.rest()).await.is_empty());
    assert!(!agent.served.is_finished());
    go.notify_one();
    assert!(patient(app.until(b"world\r\n0\r\n\r\n")).await.is_some());
    drop(app);
    patient(agent.served).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_request_and_a_small_response_take_one_write_each() {
    let dir = TempDir::new().unwrap();
    let upstream = Upstream::start(dir.path(), &["localhost"], |mut conn| async move {
        while conn.head().await.is_some() {
            let along = conn.came_along().len();
            conn.body(4).await.unwrap();
            conn.write(format!(
                "HTTP/1.1 200 OK\r\nx-along: {along}\r\ncontent-length: 2\r\n\r\nok"
            ))
            .await;
        }
    })
    .await;
    let agent = Running::start(&dir, &upstream).await;
    let mut app = agent.connect().await;
    for _ in 0..2 {
        app.send("POST /openai/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n{  }")
            .await;
        let head = patient(app.until(b"\r\n\r\n")).await.unwrap();
        let head = String::from_utf8(head).unwrap();
        assert_eq!(field(&head, "x-along").as_deref(), Some("4"));
        assert_eq!(app.came_along(), b"ok");
        app.exactly(2).await;
    }
}
