//! Lengths: a request that two parsers end at different bytes is two requests to one of them.

use tests::raw::scene::Scene;

use crate::requests::{BODY, CHUNKED, chat, chunk, in_chunks, length, post};

const LAST: &str = "0\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunks_is_refused() {
    let scene = Scene::start().await;
    let body = in_chunks(chunk) + LAST;
    for lines in [
        format!("{}{CHUNKED}", length()),
        format!("{CHUNKED}{}", length()),
        format!("Content-Length: 0\r\n{CHUNKED}"),
        format!("{CHUNKED}content-length: {}\r\n", body.len()),
    ] {
        scene
            .refuses(&lines, post(&lines, &body), 400, "bad_request")
            .await;
    }
    for (lines, body) in [(CHUNKED.to_owned(), body.as_str()), (length(), BODY)] {
        let seen = scene.passes(&lines, post(&lines, body)).await;
        assert_eq!(seen.body, BODY.as_bytes());
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_is_not_one_plain_number_is_refused() {
    let scene = Scene::start().await;
    let n = BODY.len();
    for lines in [
        format!("Content-Length: {n}\r\nContent-Length: {}\r\n", n + 1),
        format!("Content-Length: {n}, {n}\r\n"),
        format!("Content-Length: {n},\r\n"),
        format!("Content-Length: +{n}\r\n"),
        format!("Content-Length: -{n}\r\n"),
        format!("Content-Length: 0x{n:x}\r\n"),
        format!("Content-Length: {n}.0\r\n"),
        format!("Content-Length: {n} {n}\r\n"),
        format!("Content-Length: {n}a\r\n"),
        "Content-Length: \r\n".to_owned(),
        "Content-Length: 99999999999999999999999999\r\n".to_owned(),
        "Content-Length: \u{661}\r\n".to_owned(),
    ] {
        scene
            .refuses(&lines, post(&lines, BODY), 400, "bad_request")
            .await;
    }
    let seen = scene.passes("the number alone", chat("")).await;
    assert_eq!(seen.body, BODY.as_bytes());
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_equal_lengths_are_refused_or_become_one() {
    let scene = Scene::start().await;
    let request = post(&format!("{0}{0}", length()), BODY);
    let answer = scene.ask(request).await;
    match answer.status {
        400 => assert_eq!(answer.code().as_deref(), Some("bad_request")),
        200 => {
            let seen = scene.upstream.requests().pop().unwrap();
            assert_eq!(seen.fields("content-length"), [BODY.len().to_string()]);
            assert_eq!(seen.body, BODY.as_bytes());
        }
        other => panic!("neither refused nor passed: {other}"),
    }
    scene.passes("one length", chat("")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coding_that_only_looks_like_chunked_is_refused() {
    let scene = Scene::start().await;
    let body = in_chunks(chunk) + LAST;
    for coding in [
        "chunked, identity",
        "identity, chunked",
        "identity",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "\"chunked\"",
        ", chunked",
        "chunked,",
        "chunked\u{b}",
        "ch\u{fc}nked",
        "",
    ] {
        let lines = format!("Transfer-Encoding: {coding}\r\n");
        scene
            .refuses(&lines, post(&lines, &body), 400, "bad_request")
            .await;
    }
    let old = post(CHUNKED, &body).replacen("HTTP/1.1", "HTTP/1.0", 1);
    scene
        .refuses("chunks in HTTP/1.0", old, 400, "bad_request")
        .await;
    scene
        .passes("any case", post("TRANSFER-ENCODING: cHuNkEd\r\n", &body))
        .await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_coding_is_refused_on_one_line_or_two() {
    let scene = Scene::start().await;
    let body = in_chunks(chunk) + LAST;
    for lines in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n",
    ] {
        scene
            .refuses(lines, post(lines, &body), 400, "bad_request")
            .await;
    }
    scene.passes("exactly chunked", post(CHUNKED, &body)).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_chunk_never_becomes_a_complete_request() {
    let scene = Scene::start().await;
    let n = BODY.len();
    let bad = [
        (
            "line feed in an extension",
            format!("{n:x};a\nb\r\n{BODY}\r\n{LAST}"),
        ),
        (
            "bare line feed after the size",
            format!("{n:x}\n{BODY}\r\n{LAST}"),
        ),
        (
            "huge size",
            format!("ffffffffffffffffff\r\n{BODY}\r\n{LAST}"),
        ),
        (
            "size that wraps",
            format!("1{:016x}\r\n{BODY}\r\n{LAST}", n),
        ),
        ("negative size", format!("-1\r\n{BODY}\r\n{LAST}")),
        ("signed size", format!("+{n:x}\r\n{BODY}\r\n{LAST}")),
        ("size with 0x", format!("0x{n:x}\r\n{BODY}\r\n{LAST}")),
        (
            "blank before the size",
            format!(" {n:x}\r\n{BODY}\r\n{LAST}"),
        ),
        ("no size", format!("\r\n{BODY}\r\n{LAST}")),
        (
            "chunk longer than its size",
            format!("{:x}\r\n{BODY}\r\n{LAST}", n - 1),
        ),
        (
            "bare CR in a trailer",
            format!("{}0\r\nx: a\rb\r\n\r\n", chunk(BODY)),
        ),
        (
            "endless extension",
            format!("{n:x};{}\r\n{BODY}\r\n{LAST}", "a".repeat(64 * 1024)),
        ),
    ];
    for (what, body) in bad {
        scene
            .refuses(what, post(CHUNKED, &body), 400, "bad_request")
            .await;
    }
    for (what, body) in [
        ("an extension", format!("{n:x};a=b\r\n{BODY}\r\n{LAST}")),
        ("leading zeros", format!("000{n:x}\r\n{BODY}\r\n{LAST}")),
        ("upper case", format!("{n:X}\r\n{BODY}\r\n{LAST}")),
    ] {
        let seen = scene.passes(what, post(CHUNKED, &body)).await;
        assert_eq!(seen.body, BODY.as_bytes(), "{what}");
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_never_becomes_a_complete_request() {
    let scene = Scene::start().await;
    for (what, request) in [
        ("inside a length", post(&length(), &BODY[..9])),
        (
            "inside a chunk",
            post(CHUNKED, &format!("{:x}\r\n{}", BODY.len(), &BODY[..9])),
        ),
        ("before the last chunk", post(CHUNKED, &chunk(BODY))),
        (
            "inside the last chunk",
            post(CHUNKED, &(chunk(BODY) + "0\r\n")),
        ),
    ] {
        scene.leaves_after(request).await;
        assert!(scene.whole().is_empty(), "{what}");
    }
    let seen = scene.passes("whole", chat("")).await;
    assert_eq!(seen.body, BODY.as_bytes());
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_never_arrive() {
    let scene = Scene::start().await;
    let body = in_chunks(chunk);
    for trailers in [
        "authorization: Bearer sk-own\r\n",
        "x-api-key: sk-own\r\nhost: evil\r\n",
        "content-length: 9\r\ntransfer-encoding: identity\r\n",
        "x-harmless: 1\r\n",
    ] {
        for announced in ["", "Trailer: authorization, x-api-key\r\n"] {
            let request = post(
                &format!("{CHUNKED}{announced}"),
                &format!("{body}0\r\n{trailers}\r\n"),
            );
            let seen = scene.passes(trailers, request).await;
            assert_eq!(
                (seen.body.as_slice(), seen.trailers.as_str()),
                (BODY.as_bytes(), "")
            );
        }
    }
    scene
        .passes("none", post(CHUNKED, &format!("{body}{LAST}")))
        .await;
    scene.holds();
}
