//! Host and the headers that speak for it: nothing that an app writes says where a key goes, or makes a web page an app.

use tests::raw::authority::Certificate;
use tests::raw::scene::Scene;
use tests::raw::upstream::Upstream;

use crate::requests::{MODELS, get};

/// A list request with these lines in place of its Host.
fn with_host(lines: &str) -> String {
    format!("GET {MODELS} HTTP/1.1\r\n{lines}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_are_refused_even_when_they_agree() {
    let scene = Scene::start().await;
    for lines in [
        "Host: localhost\r\nHost: evil\r\n",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nx: y\r\nhOST: localhost\r\n",
        "Host: localhost, evil\r\n",
        "Host: localhost evil\r\n",
    ] {
        scene
            .refuses(lines, with_host(lines), 400, "bad_request")
            .await;
    }
    scene
        .passes("one host", with_host("Host: localhost\r\n"))
        .await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_empty_host_is_refused() {
    let scene = Scene::start().await;
    for lines in ["", "Host:\r\n", "Host: \t \r\n", "X-Host: localhost\r\n"] {
        scene
            .refuses(lines, with_host(lines), 400, "bad_request")
            .await;
    }
    scene
        .passes("a host", with_host("host:localhost\r\n"))
        .await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_userinfo_or_a_path_is_refused() {
    let scene = Scene::start().await;
    for host in [
        "api.openai.com:x@evil",
        "localhost@evil",
        "evil@localhost",
        "localhost/evil",
        "localhost?evil",
        "localhost#evil",
        "localhost:99999",
        "localhost:+80",
        "localhost:",
        "localhost:80:80",
        "[::1",
        "[::1]evil",
        "local\u{fc}host",
    ] {
        scene
            .refuses(
                host,
                with_host(&format!("Host: {host}\r\n")),
                400,
                "bad_request",
            )
            .await;
    }
    for host in ["localhost:4100", "127.0.0.1", "[::1]:4100"] {
        scene
            .passes(host, with_host(&format!("Host: {host}\r\n")))
            .await;
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_rebound_to_the_listener_is_misdirected() {
    let scene = Scene::start().await;
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "api.openai.com",
    ] {
        scene
            .refuses(
                host,
                with_host(&format!("Host: {host}\r\n")),
                421,
                "misdirected",
            )
            .await;
    }
    scene
        .passes("our own name", with_host("Host: LOCALHOST:1\r\n"))
        .await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_is_refused_and_a_programs_fetch_is_not() {
    let scene = Scene::start().await;
    for lines in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost\r\n",
        // A page's request without Origin: `<img src>`, a navigation, a `no-cors` fetch.
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n",
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: navigate\r\n",
    ] {
        scene
            .refuses(lines, get(MODELS, lines), 403, "permission_denied")
            .await;
    }
    // Node's own fetch says this much, and comes from no page.
    scene
        .passes("fetch of Node", get(MODELS, "Sec-Fetch-Mode: cors\r\n"))
        .await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_a_head_moves_the_key_to_another_server() {
    let scene = Scene::start().await;
    // The best that an attacker can hope for: a server with a certificate that the agent trusts, under the very same name.
    let attacker = Upstream::start(&scene.authority, Certificate::Good).await;
    let there = attacker.authority();
    for (lines, host) in [
        (String::new(), there.clone()),
        (String::new(), format!("127.0.0.1:{}", attacker.port())),
        (
            format!("X-Forwarded-Host: {there}\r\n"),
            "localhost".to_owned(),
        ),
        (
            format!("Forwarded: host={there};proto=https\r\n"),
            "localhost".to_owned(),
        ),
        (
            format!("X-Host: {there}\r\nX-Forwarded-Server: {there}\r\n"),
            "localhost".to_owned(),
        ),
        (
            format!("X-Original-URL: https://{there}/\r\nX-Rewrite-URL: https://{there}/\r\n"),
            "localhost".to_owned(),
        ),
        (
            format!("Proxy: http://{there}\r\nProxy-Connection: keep-alive\r\n"),
            "localhost".to_owned(),
        ),
        (
            format!("Alt-Used: {there}\r\nReferer: https://{there}/\r\n"),
            "localhost".to_owned(),
        ),
    ] {
        let request = with_host(&format!("Host: {host}\r\n{lines}"));
        let seen = scene.passes(&lines, request).await;
        assert_eq!(seen.fields("host"), [scene.upstream.authority()]);
    }
    assert_eq!(attacker.log().accepted, 0);
    let names = scene.upstream.log().names;
    assert!(
        names
            .iter()
            .all(|name| name.as_deref() == Some("localhost")),
        "the server name is the pinned one: {names:?}"
    );
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_rename_method_or_path_do_not_arrive() {
    let scene = Scene::start().await;
    let lines = "X-HTTP-Method-Override: DELETE\r\nX-Original-URL: /v1/organization/x\r\nX-Rewrite-URL: /v1/organization/x\r\nX-Custom: kept\r\n";
    let seen = scene.passes(lines, get(MODELS, lines)).await;
    assert!(
        !seen.head.contains("DELETE") && !seen.head.contains("organization"),
        "{}",
        seen.head
    );
    assert_eq!(seen.fields("x-custom"), ["kept"]);
    scene.holds();
}
