//! Answers without end, and an agent whose memory has one.

use tests::raw::scene::Scene;
use tests::raw::script::{Step, chunk, ok};

use crate::requests::{MODELS, get};

/// What one exchange may cost: buffers, not answers.
const BOUND: usize = 16 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_to_a_slow_reader_waits_for_the_reader() {
    let scene = Scene::start().await;
    scene.passes("warm", get(MODELS, "")).await;
    let before = scene.agent.resident();
    let piece = chunk(&[b'a'; 16 * 1024]);
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    scene.upstream.script(move |seen| {
        if seen.target().contains("endless") {
            vec![Step::Send(head.into()), Step::Endless(piece.clone())]
        } else {
            ok()
        }
    });
    let mut slow = scene.open().await;
    slow.forgets();
    slow.send(get("/openai/v1/models/endless", "")).await;
    assert!(slow.until(b"aaaa").await.is_some());
    // It has come to rest when a round of other requests finds no byte more taken than the round before.
    let mut sent = 0;
    loop {
        for _ in 0..40 {
            assert_eq!(scene.ask(get(MODELS, "")).await.status, 200);
        }
        let now = scene.upstream.log().sent;
        // The answers of the round itself are small.
        if now - sent < 16 * 1024 {
            break;
        }
        assert!(now < 64 << 20, "nobody reads, and {now} bytes were taken");
        sent = now;
    }
    let grown = scene.agent.resident().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes more than before");
    // The reader wakes up: it goes on where it was.
    let mut read = 0;
    while read < 128 << 20 {
        assert!(slow.more().await);
        read += slow.skip();
    }
    let grown = scene.agent.resident().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes more after 128 MiB");
    drop(slow);
    scene
        .upstream
        .until("the upstream is let go", |log| {
            (log.open <= 1).then_some(())
        })
        .await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_head_never_ends_is_refused() {
    let scene = Scene::start().await;
    let start = "HTTP/1.1 200 OK\r\n";
    for (what, first, again) in [
        ("fields", start, "x-a: b\r\n"),
        ("one field", "HTTP/1.1 200 OK\r\nx-a: ", "bbbbbbbb"),
        ("a status line", "HTTP/1.1 200 ", "OK "),
        ("no line at all", "", "aaaaaaaa"),
        ("interim answers", "", "HTTP/1.1 102 Processing\r\n\r\n"),
        ("empty lines", "", "\r\n"),
    ] {
        let again = again.repeat(512).into_bytes();
        scene
            .upstream
            .answers(vec![Step::Send(first.into()), Step::Endless(again)]);
        scene
            .blocks(what, get(MODELS, ""), 502, "upstream_unreachable")
            .await;
    }
    scene.upstream.answers(ok());
    scene.passes("a head with an end", get(MODELS, "")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_and_trailers_without_end_cost_nothing() {
    let scene = Scene::start().await;
    scene.passes("warm", get(MODELS, "")).await;
    let before = scene.agent.resident();
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n";
    for (what, first, again) in [
        ("extension", "2;a=", "b"),
        ("size", "", "0"),
        ("trailers", "0\r\n", "x: y\r\n"),
        ("trailer", "0\r\nx: ", "y"),
    ] {
        let steps = vec![
            Step::Send(format!("{head}{first}").into_bytes()),
            Step::Endless(again.repeat(1024).into_bytes()),
        ];
        scene.upstream.answers(steps);
        let mut app = scene.open().await;
        app.send(get(MODELS, "")).await;
        let seen = app.answer("GET").await;
        assert!(
            seen.is_none_or(|seen| !seen.complete || seen.status == 502),
            "{what} looks complete"
        );
    }
    let grown = scene.agent.resident().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes more than before");
    scene.upstream.answers(ok());
    scene.passes("a body with an end", get(MODELS, "")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_refusal_of_the_key_is_cut() {
    let scene = Scene::start().await;
    let before = scene.agent.resident();
    let head = "HTTP/1.1 401 Unauthorized\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
    let again = chunk(scene.key.repeat(64).as_bytes());
    scene
        .upstream
        .answers(vec![Step::Send(head.into()), Step::Endless(again)]);
    scene
        .blocks("401", get(MODELS, ""), 502, "upstream_credentials_rejected")
        .await;
    let grown = scene.agent.resident().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes more than before");
    scene.holds();
}
