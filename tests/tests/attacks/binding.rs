//! Names that lead astray, and what happens after a failure: the key is not tried elsewhere, and not twice.

use tests::fixture;
use tests::raw::agent::{self, Agent, Route, Surroundings, may_have_own_hosts};
use tests::raw::app::{App, Heard};
use tests::raw::authority::{Authority, Certificate};
use tests::raw::count;
use tests::raw::scene::Scene;
use tests::raw::script::{Step, answer, ok};
use tests::raw::upstream::Upstream;
use tests::upstream::Provider;

use crate::requests::{BODY, CHUNKED, MODELS, chat, chunk, get, post};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_resolves_to_this_machine_is_not_dialled() {
    if !may_have_own_hosts() {
        return eprintln_skip("this machine gives no process a mount namespace of its own");
    }
    for address in [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "::ffff:127.0.0.1",
        "::1",
    ] {
        let surroundings = Surroundings {
            hosts: Some(format!("127.0.0.1 localhost\n{address} rebound.example\n")),
            ..Surroundings::default()
        };
        let scene = Scene::start_with(
            |url| url.replace("localhost", "rebound.example"),
            surroundings,
        )
        .await;
        let refused = scene.ask(get(MODELS, "")).await;
        assert!(
            matches!(
                (refused.status, refused.code().as_deref()),
                (502, Some("upstream_unreachable")) | (403, Some("upstream_not_allowed"))
            ),
            "{address}: {} {}",
            refused.head,
            refused.text()
        );
        assert_eq!(scene.upstream.log().accepted, 0, "{address} was dialled");
        scene.holds();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_is_dialled_when_the_configuration_names_it() {
    for name in ["localhost", "127.0.0.1"] {
        let scene = Scene::start_with(
            |url| url.replace("localhost", name),
            Surroundings::default(),
        )
        .await;
        assert_eq!(scene.ask(get(MODELS, "")).await.status, 200, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_reaches_its_own_upstream_alone() {
    let authority = Authority::default();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let providers = [Provider::OpenAi, Provider::Anthropic, Provider::Gemini];
    let mut ends = Vec::new();
    for provider in providers {
        let upstream = Upstream::start(&authority, Certificate::Good).await;
        let key = fixture::key_file(dir.path(), provider).unwrap();
        ends.push((provider, upstream.url(), upstream, key));
    }
    let routes: Vec<Route<'_>> = ends
        .iter()
        .map(|(provider, url, _, key)| Route {
            provider: provider.name(),
            base_url: url,
            ca: &ca,
            key,
        })
        .collect();
    let agent = Agent::start(dir.path(), &agent::config(&routes));
    for path in [
        "/openai/v1/models",
        "/anthropic/v1/models",
        "/gemini/v1beta/models",
        "/openai/v1/messages",
        "/anthropic/v1/chat/completions",
        "/gemini/v1/models",
        "/openai/anthropic/v1/models",
    ] {
        for (_, _, upstream, _) in &ends {
            let lines = format!(
                "X-Forwarded-Host: {0}\r\nX-Provider: anthropic\r\n",
                upstream.authority()
            );
            let host = format!("127.0.0.1:{}", upstream.port());
            let mut app = App::open(&agent.listen.to_string(), Heard::default())
                .await
                .unwrap();
            app.send(get(path, &lines).replacen("localhost", &host, 1))
                .await;
            let seen = app.answer("GET").await.unwrap();
            assert!(matches!(seen.status, 200 | 403), "{path}: {}", seen.head);
        }
    }
    for (provider, _, upstream, _) in &ends {
        let wire = upstream.log().wire.concat();
        for other in providers {
            let times = count(&wire, fixture::key(other).as_bytes());
            let requests = upstream.requests().len();
            let wanted = if other == *provider { requests } else { 0 };
            assert_eq!(times, wanted, "{other:?} at {provider:?}");
        }
        assert!(!upstream.requests().is_empty(), "{provider:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_a_body_is_never_sent_twice() {
    let scene = Scene::start().await;
    // An upstream that takes the call and goes away may have carried it out, and billed it.
    for (what, last) in [("closed", Step::Close), ("cut", Step::Cut)] {
        for reused in [false, true] {
            for request in [
                chat(""),
                post(CHUNKED, &format!("{}0\r\n\r\n", chunk(BODY))),
            ] {
                if reused {
                    scene.upstream.answers(ok());
                    scene.passes("the first on its connection", chat("")).await;
                }
                scene.upstream.answers(vec![last.clone()]);
                let before = scene.upstream.requests().len();
                let refused = scene.ask(request).await;
                assert_eq!(
                    (refused.status, refused.code().as_deref()),
                    (502, Some("upstream_unreachable")),
                    "{what}"
                );
                let sent = scene.upstream.requests().len() - before;
                assert_eq!(sent, 1, "{what}, on a reused connection: {reused}");
            }
        }
    }
    scene.upstream.answers(ok());
    scene.passes("the next call", chat("")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_key_is_tried_once_and_its_answer_is_not_shown() {
    let scene = Scene::start().await;
    let tail = scene.key[scene.key.len() - 4..].to_owned();
    for (status, body) in [
        (
            "401 Unauthorized",
            format!(
                "{{\"error\":{{\"message\":\"Incorrect API key provided: {}\",\"code\":\"invalid_api_key\"}}}}",
                tests::raw::forms::mask(&scene.key)
            ),
        ),
        (
            "401 Unauthorized",
            format!("<html>your key {} is bad</html>", scene.key),
        ),
        ("401 Unauthorized", String::new()),
    ] {
        let headers = format!(
            "content-type: application/json\r\nwww-authenticate: Bearer realm=\"{tail}\"\r\nlocation: https://evil/\r\n"
        );
        scene.upstream.answers(answer(status, &headers, &body));
        let before = scene.upstream.requests().len();
        let refused = scene.ask(chat("")).await;
        assert_eq!(
            (refused.status, refused.code().as_deref()),
            (502, Some("upstream_credentials_rejected"))
        );
        assert_eq!(refused.field("x-should-retry").as_deref(), Some("false"));
        assert!(!refused.text().contains(&tail) && !refused.head.contains(&tail));
        assert_eq!(scene.upstream.requests().len(), before + 1, "tried once");
    }
    // Errors that are not about the key are the app's to see.
    let limited = "{\"error\":{\"message\":\"slow down\",\"code\":\"rate_limit_exceeded\"}}";
    scene.upstream.answers(answer(
        "404 Not Found",
        "content-type: application/json\r\n",
        limited,
    ));
    let seen = scene.ask(chat("")).await;
    assert_eq!((seen.status, seen.text().as_str()), (404, limited));
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_repeat_nothing_from_either_side() {
    const MARK: &str = "mark-from-the-wire";
    let scene = Scene::start().await;
    let port = scene.upstream.port().to_string();
    let answers = [
        vec![Step::Close],
        vec![Step::Send(format!("HTTP/1.1 {MARK}\r\n\r\n").into_bytes())],
        vec![Step::Send(format!("{MARK}\r\n\r\n").into_bytes())],
        answer("401 Unauthorized", "", MARK),
    ];
    for steps in answers {
        scene.upstream.answers(steps);
        let refused = scene.ask(chat("")).await;
        assert!(
            refused.code().is_some() && refused.status >= 500,
            "{}",
            refused.head
        );
        let all = refused.head.clone() + &refused.text();
        for secret in [MARK, &port, "localhost", "ca.pem", "https://", "/tmp"] {
            assert!(!all.contains(secret), "{secret}: {all}");
        }
        let id = refused.field("x-tacit-request-id").unwrap();
        assert!(!id.is_empty());
    }
    for request in [
        get(&format!("/openai/v1/{MARK}"), ""),
        get(&format!("/{MARK}/v1/models"), ""),
        get(MODELS, &format!("Host: {MARK}\r\n")),
        get(MODELS, &format!("{MARK}\r\n")),
        format!("{MARK} {MODELS} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ] {
        let refused = scene.ask(request).await;
        assert!(refused.code().is_some());
        assert!(!(refused.head.clone() + &refused.text()).contains(MARK));
    }
    scene.holds();
}

/// Says why a test proved nothing here.
#[allow(clippy::print_stderr, reason = "a test that is skipped must say so")]
fn eprintln_skip(why: &str) {
    eprintln!("skipped: {why}");
}
