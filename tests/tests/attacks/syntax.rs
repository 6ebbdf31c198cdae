//! Bytes that parsers forgive in different ways, heads that are too large, and what follows an error on the same connection.

use tests::raw::scene::Scene;

use crate::requests::{CHUNKED, MODELS, chat, get, post};

#[tokio::test(flavor = "multi_thread")]
async fn bare_line_feeds_are_refused_whether_all_or_one() {
    let scene = Scene::start().await;
    for request in [
        get(MODELS, "").replace("\r\n", "\n"),
        format!("GET {MODELS} HTTP/1.1\nHost: localhost\r\n\r\n"),
        format!("GET {MODELS} HTTP/1.1\r\nHost: localhost\n\r\n"),
        format!("GET {MODELS} HTTP/1.1\r\nHost: localhost\r\nx: a\nx-api-key: b\r\n\r\n"),
        format!("GET {MODELS} HTTP/1.1\r\nHost: localhost\r\n\n"),
    ] {
        scene
            .refuses(&request.clone(), request, 400, "bad_request")
            .await;
    }
    scene.passes("CR LF", get(MODELS, "x: a\r\n")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_folds_and_odd_names_are_refused() {
    let scene = Scene::start().await;
    for lines in [
        "x: a\rb\r\n",
        "x: a\r\r\n",
        "x: a\0b\r\n",
        "x\0: a\r\n",
        "x: a\u{7f}\r\n",
        "x: \u{1b}[2J\r\n",
        // A folded line: some join it, some drop it, some read a field.
        "x: a\r\n b\r\n",
        "x: a\r\n\tx-api-key: b\r\n",
        "x: a\r\n \r\n",
        // Blanks around the name: `x-api-key ` is `x-api-key` to some.
        "x-api-key : a\r\n",
        "x-api-key\t: a\r\n",
        ": a\r\n",
        "no colon\r\n",
        "x(y): a\r\n",
        "x/y: a\r\n",
        "n\u{e4}me: a\r\n",
    ] {
        scene
            .refuses(lines, get(MODELS, lines), 400, "bad_request")
            .await;
    }
    for line in [
        format!("GET  {MODELS} HTTP/1.1"),
        format!("GET {MODELS}  HTTP/1.1"),
        format!(" GET {MODELS} HTTP/1.1"),
        format!("GET\t{MODELS}\tHTTP/1.1"),
        format!("GET {MODELS} HTTP/1.1 "),
        format!("GET {MODELS} extra HTTP/1.1"),
        format!("GET {MODELS}"),
        format!("GET {MODELS} HTTP/9.9"),
        format!("GET {MODELS} http/1.1"),
    ] {
        let request = format!("{line}\r\nHost: localhost\r\n\r\n");
        scene.refuses(&line, request, 400, "bad_request").await;
    }
    let first = format!("GET {MODELS} HTTP/1.1\r\n Host: evil\r\nHost: localhost\r\n\r\n");
    scene
        .refuses("blank before the first field", first, 400, "bad_request")
        .await;
    let seen = scene
        .passes("a tab and blanks in a value", get(MODELS, "x:  a\tb \r\n"))
        .await;
    assert_eq!(seen.fields("x"), ["a\tb"]);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_or_too_long_headers_are_refused() {
    let scene = Scene::start().await;
    let many = |count: usize| -> String { (0..count).map(|n| format!("x-{n}: a\r\n")).collect() };
    let long = |kilobytes: usize| format!("x-long: {}\r\n", "a".repeat(kilobytes * 1024));
    for (what, lines) in [
        ("101 headers with Host", many(100)),
        ("5000 headers", many(5000)),
        ("33 KiB", long(33)),
        ("500 KiB", long(500)),
    ] {
        scene
            .refuses(what, get(MODELS, &lines), 431, "headers_too_large")
            .await;
    }
    let query = format!("{MODELS}?a={}", "b".repeat(40 * 1024));
    scene
        .refuses("a long target", get(&query, ""), 431, "headers_too_large")
        .await;
    for (what, lines) in [("91 headers", many(90)), ("30 KiB", long(30))] {
        scene.passes(what, get(MODELS, &lines)).await;
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_behind_a_refused_request_is_read() {
    let scene = Scene::start().await;
    let behind = chat("");
    for (what, first) in [
        ("two hosts", get(MODELS, "Host: localhost\r\n")),
        (
            "two lengths",
            post("Content-Length: 0\r\nContent-Length: 44\r\n", ""),
        ),
        ("a bad chunk", post(CHUNKED, "zz\r\n")),
        ("a bare line feed", get(MODELS, "x: a\n")),
        ("an absolute target", get("http://evil/", "")),
    ] {
        let request = format!("{first}{behind}");
        scene.refuses(what, request, 400, "bad_request").await;
    }
    let mut app = scene.open().await;
    app.send(format!("{}{behind}{}", get(MODELS, ""), get(MODELS, "")))
        .await;
    for method in ["GET", "POST", "GET"] {
        assert_eq!(app.answer(method).await.unwrap().status, 200, "{method}");
    }
    assert_eq!(
        scene.upstream.requests().len(),
        3,
        "good ones are served in order"
    );
    scene.holds();
}
