//! What comes before, instead of and behind an answer.

use tests::raw::scene::Scene;
use tests::raw::script::{Step, ok};

use crate::requests::{BODY, MODELS, chat, get, length, post};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

fn says(text: impl Into<String>) -> Vec<Step> {
    vec![Step::Send(text.into().into_bytes())]
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_do_not_arrive() {
    let scene = Scene::start().await;
    let key = scene.key.clone();
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
        format!("HTTP/1.1 100 {key}\r\n\r\n"),
        "HTTP/1.1 102 Processing\r\n\r\n".to_owned(),
        format!("HTTP/1.1 103 Early Hints\r\nlink: <https://evil/{key}>; rel=preload\r\n\r\n"),
        format!("HTTP/1.1 199 x\r\nx: {key}\r\n\r\nHTTP/1.1 103 y\r\nx: {key}\r\n\r\n"),
    ] {
        scene.upstream.answers(says(format!("{interim}{OK}")));
        let seen = scene.ask(chat("")).await;
        assert_eq!((seen.status, seen.text().as_str()), (200, "{}"));
        assert!(seen.interim.is_empty(), "{:?}", seen.interim);
    }
    // The one that an app asked for is the agent's own.
    scene.upstream.answers(says(OK));
    let mut app = scene.open().await;
    app.send(post(&format!("Expect: 100-continue\r\n{}", length()), ""))
        .await;
    assert!(app.until(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_some());
    app.send(BODY).await;
    assert_eq!(app.answer("POST").await.unwrap().status, 200);
    drop(app);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_protocols_that_nobody_asked_for_is_refused() {
    let scene = Scene::start().await;
    let key = scene.key.clone();
    for protocol in ["websocket", "h2c", "x"] {
        scene.upstream.answers(says(format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: {protocol}\r\nconnection: upgrade\r\nx: {key}\r\n\r\n{key}"
        )));
        scene
            .blocks(protocol, get(MODELS, ""), 502, "upstream_unreachable")
            .await;
    }
    scene.upstream.answers(says(OK));
    scene.passes("an answer", get(MODELS, "")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_two_parsers_read_differently_is_refused() {
    let scene = Scene::start().await;
    let key = scene.key.clone();
    let chunks = "2\r\n{}\r\n0\r\n\r\n";
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "HTTP/1.1 200 OK\ncontent-length: 2\r\n",
        "HTTP/1.1 200 OK\r\nx : a\r\n",
        "HTTP/1.1 20 OK\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/2 200 OK\r\n",
        "ICY 200 OK\r\n",
    ] {
        scene.upstream.answers(says(format!("{head}\r\n{chunks}")));
        scene
            .blocks(head, get(MODELS, ""), 502, "upstream_unreachable")
            .await;
    }
    // A fold would hide the key from whoever looks at lines, and show it to whoever joins them.
    let (first, second) = key.split_at(20);
    scene.upstream.answers(says(format!(
        "HTTP/1.1 200 OK\r\nx: {first}\r\n {second}\r\ncontent-length: 2\r\n\r\n{{}}"
    )));
    scene
        .blocks("a fold", get(MODELS, ""), 502, "upstream_unreachable")
        .await;
    scene.upstream.answers(says(OK));
    scene.passes("one reading", get(MODELS, "")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_behind_an_answer_is_nobodys_answer() {
    let scene = Scene::start().await;
    let stray = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray";
    scene.upstream.answers(says(format!("{OK}{stray}")));
    let mut app = scene.open().await;
    for _ in 0..4 {
        app.send(get(MODELS, "")).await;
        assert_eq!(app.answer("GET").await.unwrap().text(), "{}");
    }
    drop(app);
    // And what comes on a kept connection while nobody asks.
    scene.upstream.answers(vec![
        Step::Send(OK.into()),
        Step::Pause(std::time::Duration::from_millis(50)),
        Step::Send(stray.into()),
    ]);
    for _ in 0..4 {
        let sent = scene.upstream.log().sent;
        assert_eq!(scene.ask(get(MODELS, "")).await.text(), "{}");
        let both = sent + (OK.len() + stray.len()) as u64;
        scene
            .upstream
            .until("the stray answer is out", |log| {
                (log.sent >= both).then_some(())
            })
            .await;
    }
    // And what comes as the body of an answer that has none.
    for (method, status) in [
        ("HEAD", "200 OK"),
        ("GET", "204 No Content"),
        ("GET", "304 Not Modified"),
    ] {
        let bodiless = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{stray}",
            stray.len()
        );
        scene.upstream.answers(says(bodiless));
        let mut app = scene.open().await;
        for _ in 0..3 {
            app.send(get(MODELS, "").replacen("GET", method, 1)).await;
            let seen = app.answer(method).await.unwrap();
            assert_eq!(seen.status.to_string(), status[..3]);
            assert!(app.pending().is_empty(), "{method} {status}");
        }
    }
    scene.upstream.answers(ok());
    scene.passes("a clean one", get(MODELS, "")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_not_made_to_look_complete() {
    let scene = Scene::start().await;
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n",
    ] {
        let mut steps = says(text);
        steps.push(Step::Close);
        scene.upstream.answers(steps);
        let mut app = scene.open().await;
        app.send(get(MODELS, "")).await;
        let cut = app
            .answer("GET")
            .await
            .is_none_or(|seen| !seen.complete || seen.status >= 500);
        assert!(cut, "{text:?} looks complete");
    }
    scene.upstream.answers(ok());
    scene.passes("a whole one", get(MODELS, "")).await;
    scene.holds();
}
