//! Slow peers on either side, each beside many quick ones: nobody waits for them, and they are not waited for long.

use std::time::{Duration, Instant};

use tests::raw::agent::Surroundings;
use tests::raw::patient;
use tests::raw::scene::Scene;
use tests::raw::script::{Step, ok};

use crate::requests::{BODY, CHUNKED, MODELS, chat, get, length, post};

/// Many quick requests, at once and one after the other.
async fn many_quick(scene: &Scene) {
    let quick = (0..8).map(|_| async {
        let mut app = scene.open().await;
        for _ in 0..8 {
            app.send(chat("")).await;
            assert_eq!(app.answer("POST").await.unwrap().status, 200);
        }
    });
    patient("64 quick requests", futures_util::future::join_all(quick)).await;
}

/// Sends a letter every now and then until the agent has had enough; what it says then.
async fn drip(scene: &Scene, first: String) -> (Option<u16>, Duration) {
    let began = Instant::now();
    let mut app = scene.open().await;
    app.send(first).await;
    let mut clock = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            more = app.more() => if !more || !app.pending().is_empty() { break },
            _ = clock.tick() => app.send("a").await,
        }
    }
    let status = app.answer("GET").await.map(|seen| seen.status);
    (status, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_drips_is_ended_and_holds_nobody_up() {
    let scene = Scene::start().await;
    let first = format!("GET {MODELS} HTTP/1.1\r\nHost: localhost\r\nx-slow: ");
    let dripping = futures_util::future::join_all((0..16).map(|_| drip(&scene, first.clone())));
    let (ends, ()) = patient("a dripping head is ended", async {
        tokio::join!(dripping, many_quick(&scene))
    })
    .await;
    for (status, time) in ends {
        assert!(matches!(status, None | Some(400 | 408)), "{status:?}");
        assert!(
            time < Duration::from_secs(30),
            "a letter now and then kept it open for {time:?}"
        );
    }
    many_quick(&scene).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_holds_nobody_up() {
    let scene = Scene::start().await;
    let mut stopped = Vec::new();
    for request in [
        post(&length(), &BODY[..5]),
        post(CHUNKED, "5\r\nab"),
        post(CHUNKED, ""),
    ] {
        for _ in 0..12 {
            let mut app = scene.open().await;
            app.send(&request).await;
            stopped.push(app);
        }
    }
    many_quick(&scene).await;
    let mut late = stopped.swap_remove(0);
    late.send(&BODY[5..]).await;
    assert_eq!(
        late.answer("POST").await.unwrap().status,
        200,
        "slow is not wrong"
    );
    drop((late, stopped));
    scene
        .upstream
        .until("those that stopped are let go", |log| {
            (log.open <= 9).then_some(())
        })
        .await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits for more than a minute of real time: the longest that a body may stand still"]
async fn a_body_that_stops_is_ended() {
    let scene = Scene::start().await;
    let mut app = scene.open().await;
    app.send(post(&length(), &BODY[..5])).await;
    let seen = tokio::time::timeout(Duration::from_secs(120), app.answer("POST")).await;
    let seen = seen.expect("it is ended").unwrap();
    assert!(matches!(seen.status, 400 | 408), "{}", seen.head);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_holds_nobody_up() {
    let scene = Scene::start().await;
    let piece = vec![b'a'; 64 * 1024];
    scene.upstream.script(move |seen| {
        if seen.target().contains("endless") {
            vec![
                Step::Send(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
                Step::Endless(piece.clone()),
            ]
        } else {
            ok()
        }
    });
    let mut stopped = Vec::new();
    for _ in 0..8 {
        let mut app = scene.open().await;
        app.forgets();
        app.send(get("/openai/v1/models/endless", "")).await;
        assert!(app.until(b"aaaa").await.is_some());
        stopped.push(app);
    }
    many_quick(&scene).await;
    drop(stopped);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_stops_reading_holds_nobody_up() {
    const UPLOAD: usize = 256 << 20;
    let scene = Scene::start().await;
    scene.passes("warm", chat("")).await;
    let before = scene.agent.resident();
    let path = "/openai/v1/files";
    scene.upstream.stop_reading_at("/v1/files");
    let mut upload = scene.open().await;
    let head = "Content-Type: multipart/form-data; boundary=x\r\n";
    let part = "--x\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nuser_data\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    upload.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {UPLOAD}\r\n\r\n{part}")).await;
    let piece = vec![b'a'; 64 * 1024];
    let pushing = async {
        let mut sent = 0;
        while sent < UPLOAD && upload.try_send(&piece).await {
            sent += piece.len();
        }
        sent
    };
    // The upload goes on until the quick ones are through, or is taken to its end, or refused.
    tokio::select! {
        biased;
        () = async { for _ in 0..3 { many_quick(&scene).await } } => {}
        _ = async { pushing.await; std::future::pending::<()>().await } => {}
    }
    let grown = scene.agent.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes of an upload are kept");
    drop(upload);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stalls_holds_nobody_up_and_is_ended() {
    let scene = Scene::start().await;
    scene.upstream.stall_handshakes(4);
    let stalled = futures_util::future::join_all((0..4).map(|_| scene.ask(chat(""))));
    let quick = async {
        scene
            .upstream
            .until("four are stalled", |log| (log.accepted >= 4).then_some(()))
            .await;
        many_quick(&scene).await;
    };
    let (answers, ()) = patient("a stalled handshake is ended", async {
        tokio::join!(stalled, quick)
    })
    .await;
    for answer in answers {
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (504, Some("upstream_timeout"))
        );
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_upstream_holds_nobody_up() {
    let scene = Scene::start().await;
    scene.upstream.script(|seen| {
        if seen.target().contains("silent") {
            vec![Step::Hang]
        } else {
            ok()
        }
    });
    let mut silent = Vec::new();
    for _ in 0..16 {
        let mut app = scene.open().await;
        app.send(get("/openai/v1/models/silent", "")).await;
        silent.push(app);
    }
    scene
        .upstream
        .until("all are asked", |log| {
            (log.requests.len() >= 16).then_some(())
        })
        .await;
    many_quick(&scene).await;
    drop(silent);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_out_of_descriptors_serves_again_when_it_has_some() {
    let surroundings = Surroundings {
        descriptors: Some(96),
        ..Surroundings::default()
    };
    let scene = Scene::start_with(str::to_owned, surroundings).await;
    let mut idle = Vec::new();
    for _ in 0..150 {
        idle.push(scene.open().await);
    }
    // One of those that were let in first still gets its answer, or a refusal for want of a connection upstream.
    idle[0].send(chat("")).await;
    let seen = idle[0].answer("POST").await.unwrap();
    assert!(seen.status == 200 || seen.code().is_some(), "{}", seen.head);
    drop(idle);
    many_quick(&scene).await;
    scene.holds();
}
