//! Request targets: whoever can write one that two parsers read differently chooses where the key goes.

use tests::raw::scene::Scene;
use tests::raw::trap::Trap;

use crate::requests::{MODELS, get};

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_that_disagrees_with_host_is_refused() {
    let scene = Scene::start().await;
    let trap = Trap::set().await;
    let own = scene.agent.listen;
    for authority in [
        format!("127.0.0.1:{}", trap.port()),
        "evil".to_owned(),
        // Even our own address: on a base-URL listener there is no second place for an authority.
        own.to_string(),
        scene.upstream.authority(),
    ] {
        for scheme in ["http", "HTTP", "https", "ftp"] {
            let target = format!("{scheme}://{authority}{MODELS}");
            let request = get(&target, "");
            scene.refuses(&target, request, 400, "bad_request").await;
        }
    }
    let seen = scene.passes("origin form", get(MODELS, "")).await;
    assert_eq!(seen.target(), "/v1/models");
    assert_eq!(trap.connections(), 0);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn userinfo_in_a_target_is_refused() {
    let scene = Scene::start().await;
    for target in [
        "http://api.openai.com:x@evil/openai/v1/models",
        "api.openai.com:x@evil/openai/v1/models",
        "localhost@evil/openai/v1/models",
    ] {
        scene
            .refuses(target, get(target, ""), 400, "bad_request")
            .await;
    }
    scene.passes("a path alone", get(MODELS, "")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_could_be_joined_into_another_authority_is_refused() {
    let scene = Scene::start().await;
    let trap = Trap::set().await;
    let port = trap.port();
    for target in [
        format!("//127.0.0.1:{port}/v1/models"),
        format!("///127.0.0.1:{port}/v1/models"),
        format!("/openai//127.0.0.1:{port}/v1/models"),
        format!("/\\127.0.0.1:{port}/v1/models"),
        format!("/openai/\\127.0.0.1:{port}/v1/models"),
        format!("\\\\127.0.0.1:{port}/v1/models"),
        format!("@127.0.0.1:{port}/v1/models"),
        format!(":{port}/v1/models"),
        "openai/v1/models".to_owned(),
        "*".to_owned(),
        "/openai/v1/models#@evil".to_owned(),
        "/openai/v1/models?a=b#@evil".to_owned(),
    ] {
        scene
            .refuses(&target, get(&target, ""), 400, "bad_request")
            .await;
    }
    // Behind the prefix an `@` is a character of a path, and of no path that the API has.
    let target = format!("/openai@127.0.0.1:{port}/v1/models");
    scene
        .refuses(&target, get(&target, ""), 400, "bad_request")
        .await;
    let target = format!("/openai/@127.0.0.1:{port}/v1/models");
    scene
        .refuses(&target, get(&target, ""), 403, "permission_denied")
        .await;
    scene.passes("the same without it", get(MODELS, "")).await;
    assert_eq!(trap.connections(), 0);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_matched_and_sent_as_the_same_bytes() {
    let scene = Scene::start().await;
    for target in [
        "/openai/v1/../admin",
        "/openai/v1/models/../../v1/organization/x",
        "/openai/../openai/v1/models",
        "/openai/v1/./models",
        "/openai/v1/models/..",
        "/openai/v1/%2e%2e/organization/x",
        "/openai/v1/%2E%2e/organization/x",
        "/openai/v1/.%2e/organization/x",
        "/openai/v1/models%2f..%2forganization",
        "/openai/v1%2Forganization%2Fx",
        "/openai/v1%5corganization",
        "/openai/v1/%252e%252e/organization",
        "/openai/v1/..;/organization/x",
        "/openai/v1/..%3b/organization/x",
        "/openai/v1/models%00",
        "/openai/v1/models%0d%0ax-evil:%201",
        "/openai/v1/models%",
        "/openai/v1/models%4",
        "/openai/v1/models%zz",
        "/openai/v1/mod\u{e9}ls",
    ] {
        scene
            .refuses(target, get(target, ""), 400, "bad_request")
            .await;
    }
    for (target, wanted) in [
        ("/openai/v1/models", "/v1/models"),
        ("/openai/v1/%6Dodels", "/v1/models"),
        (
            "/openai/v1/models/gpt-4.1..mini",
            "/v1/models/gpt-4.1..mini",
        ),
        ("/openai/v1/models/ft%3agpt", "/v1/models/ft%3Agpt"),
    ] {
        let seen = scene.passes(target, get(target, "")).await;
        assert_eq!(seen.target(), wanted, "{target}");
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_chooses_the_upstream_or_echoes_the_request_is_refused() {
    let scene = Scene::start().await;
    let trap = Trap::set().await;
    let there = format!("127.0.0.1:{}", trap.port());
    // CONNECT chooses where bytes go; TRACE would have the upstream send our key back; the others belong to no API.
    for request in [
        format!("CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n\r\n"),
        format!("CONNECT {there} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("TRACE {MODELS} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("OPTIONS {MODELS} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("PROPFIND {MODELS} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("get {MODELS} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("G\u{c9}T {MODELS} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ] {
        scene
            .refuses(&request.clone(), request, 400, "bad_request")
            .await;
    }
    scene.passes("GET", get(MODELS, "")).await;
    assert_eq!(trap.connections(), 0);
    scene.holds();
}
