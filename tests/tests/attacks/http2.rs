//! The same attacks in HTTP/2, where framing is sound and everything else is as easy to bend.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request};
use tests::raw::patient;
use tests::raw::scene::Scene;
use tests::raw::script::{Step, json, ok};
use tokio::net::TcpStream;

use crate::requests::{BODY, CHAT, MODELS, OWN};

const NOT_YET: &str = "an app may speak HTTP/2 only to an agent that serves it";

/// One connection, driven stream by stream.
struct Caller<'a> {
    scene: &'a Scene,
    streams: SendRequest<Bytes>,
}

/// What came of a request.
struct Got {
    status: u16,
    code: Option<String>,
    body: String,
}

impl Got {
    /// Refused by the agent; a stream that was reset says as much.
    fn is_refused(&self) -> bool {
        self.status == 0 || (400..500).contains(&self.status) && self.code.is_some()
    }
}

impl<'a> Caller<'a> {
    async fn connect(scene: &'a Scene) -> Self {
        let stream = TcpStream::connect(scene.agent.listen).await.unwrap();
        let (streams, connection) = patient(NOT_YET, h2::client::handshake(stream))
            .await
            .expect(NOT_YET);
        tokio::spawn(async move {
            // However it ends, its streams say what a test wants to know.
            let _ = connection.await;
        });
        Caller { scene, streams }
    }

    /// Sends a request with these fields, a body and trailers, and reads all of the answer.
    async fn ask(
        &self,
        request: http::request::Builder,
        body: Option<&str>,
        trailers: Option<HeaderMap>,
    ) -> Got {
        let got = patient("an answer", self.exchange(request, body, trailers)).await;
        got.unwrap_or(Got {
            status: 0,
            code: None,
            body: String::new(),
        })
    }

    async fn exchange(
        &self,
        request: http::request::Builder,
        body: Option<&str>,
        trailers: Option<HeaderMap>,
    ) -> Result<Got, h2::Error> {
        let mut streams = self.streams.clone().ready().await?;
        let (answer, mut sender) =
            streams.send_request(request.body(()).unwrap(), body.is_none())?;
        if let Some(body) = body {
            sender.send_data(Bytes::copy_from_slice(body.as_bytes()), trailers.is_none())?;
        }
        if let Some(trailers) = trailers {
            sender.send_trailers(trailers)?;
        }
        let answer = answer.await?;
        let head = format!("{:?}", answer.headers());
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let mut stream = answer.into_body();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece?;
            body.extend_from_slice(&piece);
            stream.flow_control().release_capacity(piece.len())?;
        }
        let trailers = format!("{:?}", stream.trailers().await?);
        self.scene
            .hear([head.as_bytes(), &body, trailers.as_bytes()].concat());
        Ok(Got {
            status,
            code: headers
                .get("x-tacit-error")
                .map(|code| String::from_utf8_lossy(code.as_bytes()).into_owned()),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

fn get(path: &str) -> http::request::Builder {
    Request::get(format!("http://localhost{path}"))
}

fn post() -> http::request::Builder {
    Request::post(format!("http://localhost{CHAT}")).header("content-type", "application/json")
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_http2_are_replaced_by_exactly_one() {
    let scene = Scene::start().await;
    let caller = Caller::connect(&scene).await;
    let mut request = get(&format!("{MODELS}?key={OWN}&%6Bey={OWN}&pageSize=3"));
    for name in [
        "authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "proxy-authorization",
        "cookie",
        "x_api_key",
        "http_authorization",
    ] {
        request = request.header(name, OWN).header(name, OWN);
    }
    let got = caller
        .ask(request.header("x-custom", "1"), None, None)
        .await;
    assert_eq!(got.status, 200, "{}", got.body);
    let seen = scene.whole().pop().unwrap();
    assert!(!seen.head.contains(OWN), "{}", seen.head);
    assert_eq!(seen.target(), "/v1/models?pageSize=3");
    assert_eq!(seen.fields("x-custom"), ["1"]);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_not_ours_is_refused_in_http2() {
    let scene = Scene::start().await;
    let caller = Caller::connect(&scene).await;
    for (authority, host) in [
        ("evil.example", None),
        ("localhost.evil.example", None),
        ("localhost", Some("evil.example")),
        ("evil.example", Some("localhost")),
        ("user@localhost", None),
    ] {
        let mut request = Request::get(format!("http://{authority}{MODELS}"));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let got = caller.ask(request, None, None).await;
        assert!(got.is_refused(), "{authority} {host:?}: {}", got.status);
    }
    for request in [
        get(MODELS).header("origin", "https://evil.example"),
        get(MODELS).header("sec-fetch-site", "cross-site"),
    ] {
        assert!(caller.ask(request, None, None).await.is_refused());
    }
    assert!(scene.whole().is_empty());
    assert_eq!(caller.ask(get(MODELS), None, None).await.status, 200);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_methods_are_judged_in_http2_as_in_http1() {
    let scene = Scene::start().await;
    let caller = Caller::connect(&scene).await;
    for path in [
        "//evil/v1/models",
        "/openai//evil/v1/models",
        "/openai/v1/../organization/users",
        "/openai/v1/%2e%2e/organization/users",
        "/openai/v1/organization/users",
        "/openai/v1/%6frganization/users",
        "/openai/v1%2fmodels",
        "/v1/models",
    ] {
        let got = caller.ask(get(path), None, None).await;
        assert!(got.is_refused(), "{path}: {}", got.status);
    }
    for method in [Method::TRACE, Method::OPTIONS, Method::PUT] {
        let got = caller
            .ask(get(MODELS).method(method.clone()), None, None)
            .await;
        assert!(got.is_refused(), "{method}: {}", got.status);
    }
    assert!(scene.whole().is_empty());
    assert_eq!(caller.ask(get(MODELS), None, None).await.status, 200);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_trailers_in_http2_become_one_framed_body() {
    let scene = Scene::start().await;
    let caller = Caller::connect(&scene).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("authorization", OWN.parse().unwrap());
    let got = caller.ask(post(), Some(BODY), Some(trailers)).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let seen = scene.whole().pop().unwrap();
    assert_eq!(seen.body, BODY.as_bytes());
    // A length that the frames do not keep.
    for length in [BODY.len() - 3, BODY.len() + 3] {
        let request = post().header("content-length", length);
        let got = caller.ask(request, Some(BODY), None).await;
        assert!(got.is_refused(), "{length}: {}", got.status);
    }
    assert_eq!(scene.whole().len(), 1);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_cancels_the_upstream_and_no_other() {
    let scene = Scene::start().await;
    scene.upstream.script(|seen| {
        if seen.target().contains("silent") {
            vec![Step::Hang]
        } else {
            ok()
        }
    });
    let caller = Caller::connect(&scene).await;
    let silent = get("/openai/v1/models/silent").body(()).unwrap();
    let mut streams = caller.streams.clone().ready().await.unwrap();
    let (answer, mut sender) = streams.send_request(silent, true).unwrap();
    let asked = |log: &tests::raw::upstream::Log| (!log.requests.is_empty()).then_some(());
    scene.upstream.until("it is asked", asked).await;
    assert_eq!(caller.ask(get(MODELS), None, None).await.status, 200);
    let open = scene.upstream.log().open;
    sender.send_reset(h2::Reason::CANCEL);
    drop(answer);
    let closed = scene
        .upstream
        .until("it is let go", |log| (log.open < open).then_some(()));
    let at_once = tokio::time::timeout(Duration::from_secs(5), closed).await;
    assert!(at_once.is_ok(), "a reset stream holds its upstream");
    assert_eq!(caller.ask(get(MODELS), None, None).await.status, 200);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_and_reset_without_end_hold_nobody_up() {
    let scene = Scene::start().await;
    let caller = Caller::connect(&scene).await;
    assert_eq!(caller.ask(get(MODELS), None, None).await.status, 200);
    let before = scene.agent.resident();
    let flood = Caller::connect(&scene).await;
    let opened = async {
        for _ in 0..5_000 {
            // An agent that has had enough ends the connection: that is an answer too.
            let Ok(mut streams) = flood.streams.clone().ready().await else {
                return;
            };
            let request = post().body(()).unwrap();
            let Ok((_, mut sender)) = streams.send_request(request, false) else {
                return;
            };
            sender.send_reset(h2::Reason::CANCEL);
            tokio::task::yield_now().await;
        }
    };
    patient("the flood", opened).await;
    let grown = scene.agent.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more than before");
    assert_eq!(caller.ask(get(MODELS), None, None).await.status, 200);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_is_masked_in_http2_as_in_http1() {
    let scene = Scene::start().await;
    let caller = Caller::connect(&scene).await;
    let body = format!("{{\"a\":\"{}\"}}", scene.key);
    scene.upstream.answers(json(&body));
    let got = caller.ask(post(), Some(BODY), None).await;
    let stars = "*".repeat(scene.key.len());
    assert_eq!(
        (got.status, got.body),
        (200, body.replace(&scene.key, &stars))
    );
    scene.holds();
}
