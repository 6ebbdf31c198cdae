//! Ends: apps that go away, upstreams that are not there, and the end of the agent itself.

use std::time::Duration;

use tests::raw::agent::{self, Agent, Route};
use tests::raw::app::{App, Heard};
use tests::raw::patient;
use tests::raw::scene::{Scene, secret_file};
use tests::raw::script::{Gate, Step, chunk};
use tokio::net::TcpListener;

use crate::requests::{self, BODY, CHUNKED, MODELS, OWN, chat, get, post};

/// What "at once" may take on a busy machine: far less than any timeout of the agent's.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Bytes that are not taken for this long are not taken: every buffer between here and the upstream is full.
const STUCK: Duration = Duration::from_millis(500);

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

async fn let_go(scene: &Scene, what: &str) {
    let closed = scene
        .upstream
        .until(what, |log| (log.open == 0).then_some(()));
    assert!(
        tokio::time::timeout(AT_ONCE, closed).await.is_ok(),
        "not at once: {what}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_leaves_before_the_first_byte_cancels_the_upstream() {
    let scene = Scene::start().await;
    scene.upstream.answers(vec![Step::Hang]);
    for request in [get(MODELS, ""), chat("")] {
        let before = scene.upstream.requests().len();
        let mut app = scene.open().await;
        app.send(request).await;
        scene
            .upstream
            .until("it is asked", |log| {
                (log.requests.len() > before).then_some(())
            })
            .await;
        assert_eq!(scene.upstream.log().open, 1);
        drop(app);
        let_go(&scene, "before the first byte").await;
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_leaves_in_the_middle_of_a_stream_cancels_the_upstream() {
    let scene = Scene::start().await;
    let event = [STREAM.as_bytes(), &chunk(b"data: 1\n\n")].concat();
    scene.upstream.answers(vec![Step::Send(event), Step::Hang]);
    let mut app = scene.open().await;
    app.send(chat("")).await;
    assert!(app.until(b"data: 1\n\n").await.is_some());
    drop(app);
    let_go(&scene, "in an idle stream").await;

    let piece = chunk(&[b'a'; 4096]);
    scene
        .upstream
        .answers(vec![Step::Send(STREAM.into()), Step::Endless(piece)]);
    let mut app = scene.open().await;
    app.forgets();
    app.send(chat("")).await;
    assert!(app.until(b"aaaa").await.is_some());
    drop(app);
    let_go(&scene, "in a busy stream").await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_leaves_within_its_body_cancels_the_upstream() {
    let scene = Scene::start().await;
    let begun = post(CHUNKED, &requests::chunk(BODY));
    let left = scene.leaves_after(begun);
    assert!(
        tokio::time::timeout(AT_ONCE, left).await.is_ok(),
        "not at once"
    );
    assert!(scene.whole().is_empty());
    scene.passes("one that stays", chat("")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_leaves_while_its_upload_is_stuck_cancels_the_upstream() {
    let scene = Scene::start().await;
    scene.upstream.stop_reading_at("/v1/files");
    let mut app = scene.open().await;
    // An app that ends in order leaves its last bytes, and its farewell behind them, with its own kernel, which waits for room that nobody
    // makes: no one can see that. One that is killed with bytes unread is seen at once.
    let lines = "Content-Type: application/octet-stream\r\nContent-Length: 1000000000\r\n";
    app.send(get("/openai/v1/files", lines).replacen("GET", "POST", 1))
        .await;
    // Until nobody takes any more: the upstream does not read, and the agent keeps nothing.
    let piece = vec![b'a'; 64 * 1024];
    while let Ok(true) = tokio::time::timeout(STUCK, app.try_send(&piece)).await {}
    app.vanishes();
    let gone = scene
        .agent
        .until("tacit_agent_connections", |open| open < 0.5);
    assert!(
        tokio::time::timeout(AT_ONCE, gone).await.is_ok(),
        "the agent still holds on to an upload that nobody waits for"
    );
    scene.passes("the next one", get(MODELS, "")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_there_is_said_at_once_and_holds_nobody_up() {
    let scene = Scene::start().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let key = scene.dir().join("dead.key");
    secret_file(&key, OWN);
    let (dead, live, ca) = (
        format!("https://localhost:{port}"),
        scene.upstream.url(),
        scene.dir().join("ca.pem"),
    );
    let routes = [
        Route {
            provider: "openai",
            base_url: &live,
            ca: &ca,
            key: &key,
        },
        Route {
            provider: "anthropic",
            base_url: &dead,
            ca: &ca,
            key: &key,
        },
    ];
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &agent::config(&routes));
    let address = agent.listen.to_string();
    let ask = async |request: String| {
        let mut app = App::open(&address, Heard::default()).await.unwrap();
        app.send(request).await;
        app.answer("GET").await.unwrap()
    };
    let all = async {
        for _ in 0..10 {
            let (dead, live) =
                tokio::join!(ask(get("/anthropic/v1/models", "")), ask(get(MODELS, "")));
            assert_eq!(
                (dead.status, dead.code().as_deref()),
                (502, Some("upstream_unreachable"))
            );
            assert_eq!(live.status, 200);
        }
    };
    patient("ten of each", all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_streams_and_takes_nothing_new() {
    let mut scene = Scene::start().await;
    let gate = Gate::default();
    let held = gate.clone();
    scene.upstream.script(move |seen| {
        if seen.target().contains("stream") {
            let first = [STREAM.as_bytes(), &chunk(b"data: 1\n\n")].concat();
            let last = [chunk(b"data: 2\n\n"), b"0\r\n\r\n".to_vec()].concat();
            vec![
                Step::Send(first),
                Step::Wait(held.clone()),
                Step::Send(last),
            ]
        } else {
            tests::raw::script::ok()
        }
    });
    let mut idle = scene.open().await;
    idle.send(get(MODELS, "")).await;
    assert_eq!(idle.answer("GET").await.unwrap().status, 200);
    let mut stream = scene.open().await;
    stream.send(get("/openai/v1/models/stream", "")).await;
    assert!(stream.until(b"data: 1\n\n").await.is_some());

    scene.agent.drain();
    assert!(
        idle.closed().await,
        "an idle connection has nothing to finish"
    );
    let refused = async {
        // What was in the kernel's queue may still be taken, and gets no answer.
        while let Ok(mut app) = scene.try_open().await {
            app.send(get(MODELS, "")).await;
            assert!(app.rest().await.is_empty(), "a new connection was served");
        }
    };
    patient("new connections are refused", refused).await;
    gate.open();
    assert!(
        stream.until(b"data: 2\n\n").await.is_some(),
        "the stream finishes"
    );
    assert!(
        stream.until(b"0\r\n\r\n").await.is_some(),
        "and it is whole"
    );
    assert!(stream.closed().await);
    drop((idle, stream));
    assert!(scene.agent.ended_well());
    scene.holds();
}
