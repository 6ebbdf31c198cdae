//! Heads and trailers that repeat the key, and fields that would move an app elsewhere or make it keep something.

use tests::raw::forms;
use tests::raw::scene::Scene;
use tests::raw::script::{Step, answer};

use crate::requests::{MODELS, chat, get};

/// What the agent counts.
const HITS: &str = "tacit_agent_echo_hits_total";

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_repeats_the_key_in_any_dress_arrives_masked() {
    let scene = Scene::start().await;
    for (form, dressed) in forms::all(&scene.key) {
        let hits = scene.agent.metric(HITS);
        let lines = format!(
            "x-debug: a {dressed} z\r\nx-request-id: {dressed}\r\netag: \"{dressed}\"\r\nretry-after: {dressed}\r\nserver: {dressed}\r\ncontent-type: text/plain; k={dressed}\r\n"
        );
        scene.upstream.answers(answer("200 OK", &lines, "{}"));
        let seen = scene.ask(chat("")).await;
        assert_eq!((seen.status, seen.text().as_str()), (200, "{}"), "{form}");
        assert_eq!(
            forms::hunt(seen.head.as_bytes(), scene.key.as_bytes()),
            None,
            "{form}: {}",
            seen.head
        );
        let debug = seen.field("x-debug").unwrap();
        assert_eq!(debug.len(), dressed.len() + 4, "{form}: {debug}");
        assert!(
            debug.starts_with("a ") && debug.ends_with(" z"),
            "{form}: {debug}"
        );
        scene.agent.until(HITS, |now| now > hits).await;
    }
    scene
        .upstream
        .answers(answer("200 OK", "x-debug: plain\r\n", "{}"));
    assert_eq!(
        scene.ask(chat("")).await.field("x-debug").as_deref(),
        Some("plain")
    );
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_that_carries_the_key_arrives_without_it() {
    let scene = Scene::start().await;
    for (form, dressed) in forms::all(&scene.key)
        .into_iter()
        .filter(|(_, dressed)| !dressed.contains('"'))
    {
        let lines = format!("location: https://evil.example/?k={dressed}\r\n");
        scene.upstream.answers(answer("302 Found", &lines, ""));
        let seen = scene.ask(get(MODELS, "")).await;
        assert_eq!(seen.status, 302, "{form}");
        assert_eq!(
            forms::hunt(seen.head.as_bytes(), scene.key.as_bytes()),
            None,
            "{form}: {}",
            seen.head
        );
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_whose_name_is_the_key_does_not_arrive() {
    let scene = Scene::start().await;
    let key = scene.key.clone();
    for name in [key.clone(), format!("x-{key}"), hex::encode(&key)] {
        scene
            .upstream
            .answers(answer("200 OK", &format!("{name}: 1\r\n"), "{}"));
        let seen = scene.ask(get(MODELS, "")).await;
        assert_eq!(
            forms::hunt(seen.head.as_bytes(), key.as_bytes()),
            None,
            "{name}: {}",
            seen.head
        );
        assert!(matches!(seen.status, 200 | 502), "{}", seen.head);
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_phrase_that_repeats_the_key_does_not_arrive() {
    let scene = Scene::start().await;
    for (form, dressed) in forms::all(&scene.key) {
        for status in [200, 429, 500, 299] {
            scene
                .upstream
                .answers(answer(&format!("{status} {dressed}"), "", "{}"));
            let seen = scene.ask(get(MODELS, "")).await;
            assert_eq!(seen.status, status, "{form}");
            assert_eq!(
                forms::hunt(seen.head.as_bytes(), scene.key.as_bytes()),
                None,
                "{form}: {}",
                seen.head
            );
        }
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_answer_do_not_arrive() {
    let scene = Scene::start().await;
    for trailer in [
        format!("x-key: {}", scene.key),
        format!("{}: 1", scene.key),
        "x-plain: 1".to_owned(),
    ] {
        let text = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntrailer: x-key, x-plain\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n{trailer}\r\n\r\n"
        );
        scene.upstream.answers(vec![Step::Send(text.into_bytes())]);
        let seen = scene.ask(get(MODELS, "")).await;
        assert_eq!((seen.text().as_str(), seen.trailers.as_str()), ("{}", ""));
        assert!(seen.complete && seen.field("trailer").is_none());
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_make_an_app_keep_something_or_go_elsewhere_do_not_arrive() {
    let scene = Scene::start().await;
    let dropped = [
        "Set-Cookie: session=1; Domain=localhost",
        "set-cookie: other=2",
        "WWW-Authenticate: Bearer realm=\"x\"",
        "Alt-Svc: h3=\":443\"; ma=86400",
        "Strict-Transport-Security: max-age=31536000; includeSubDomains",
        "Keep-Alive: timeout=5",
        "Proxy-Authenticate: Basic",
        "X-Tacit-Error: forged",
        "X-Tacit-Request-Id: forged",
    ];
    let kept = [
        "cache-control: no-store",
        "x-request-id: req_1",
        "retry-after: 1",
        "x-ratelimit-remaining-requests: 3",
    ];
    let lines: String = dropped
        .iter()
        .chain(&kept)
        .map(|line| format!("{line}\r\n"))
        .collect();
    for status in ["200 OK", "429 Too Many Requests"] {
        scene.upstream.answers(answer(status, &lines, "{}"));
        let seen = scene.ask(get(MODELS, "")).await;
        for line in dropped {
            let (name, value) = line.split_once(": ").unwrap();
            assert!(
                !seen.fields(name).iter().any(|have| have == value),
                "{line}: {}",
                seen.head
            );
        }
        for line in kept {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(seen.fields(name), [value], "{line}: {}", seen.head);
        }
        assert_eq!(seen.fields("x-tacit-request-id").len(), 1);
    }
    scene.holds();
}
