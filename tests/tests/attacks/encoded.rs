//! Compressed answers: what cannot be read is not passed on.

use tests::raw::scene::Scene;
use tests::raw::script::{Step, answer, chunk};
use tests::raw::{forms, gzip};

use crate::requests::{MODELS, chat, get};

const KIND: &str = "content-type: application/json\r\n";

/// An answer in this coding.
fn coded(coding: &str, body: impl AsRef<[u8]>) -> Vec<Step> {
    answer(
        "200 OK",
        &format!("{KIND}content-encoding: {coding}\r\n"),
        body,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_asked_for_readable_answers_whatever_the_app_accepts() {
    let scene = Scene::start().await;
    for lines in [
        "",
        "Accept-Encoding: gzip, deflate, br, zstd\r\n",
        "accept-encoding: br\r\nACCEPT-ENCODING: gzip\r\n",
        "Accept-Encoding: identity;q=0, gzip\r\n",
        "Connection: accept-encoding\r\nAccept-Encoding: gzip\r\n",
        "accept_encoding: gzip\r\nTE: gzip\r\nConnection: TE\r\n",
    ] {
        let seen = scene.passes(lines, get(MODELS, lines)).await;
        assert_eq!(seen.fields("accept-encoding"), ["identity"], "{lines}");
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_relayed_decoded_and_masked() {
    let scene = Scene::start().await;
    let key = scene.key.clone();
    let stars = "*".repeat(key.len());
    for coding in ["gzip", "GZIP", "x-gzip"] {
        for (body, wanted) in [
            (r#"{"a":1}"#.to_owned(), r#"{"a":1}"#.to_owned()),
            (
                format!("{{\"a\":\"{key}\"}}"),
                format!("{{\"a\":\"{stars}\"}}"),
            ),
        ] {
            scene
                .upstream
                .answers(coded(coding, gzip::stored(body.as_bytes())));
            let seen = scene.ask(chat("")).await;
            assert_eq!(
                (seen.status, seen.text()),
                (200, wanted),
                "{coding}: {}",
                seen.head
            );
            assert_eq!(seen.field("content-encoding"), None);
            assert!(seen.complete);
        }
    }
    // In chunks that cut the compressed bytes anywhere.
    let packed = gzip::stored(format!("<{key}>").as_bytes());
    for size in [1, 7, 40] {
        let head = format!(
            "HTTP/1.1 200 OK\r\n{KIND}content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let mut steps = vec![Step::Send(head.into_bytes())];
        steps.extend(packed.chunks(size).map(|piece| Step::Send(chunk(piece))));
        steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
        scene.upstream.answers(steps);
        assert_eq!(
            scene.ask(chat("")).await.text(),
            format!("<{stars}>"),
            "{size}"
        );
    }
    scene.upstream.answers(coded("identity", "{}"));
    assert_eq!(scene.ask(chat("")).await.text(), "{}");
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_is_blocked() {
    let scene = Scene::start().await;
    let key = scene.key.clone();
    let packed = gzip::stored(key.as_bytes());
    let plain = format!("{{\"a\":\"{key}\"}}");
    let twice = gzip::stored(&packed);
    for (what, steps) in [
        ("br", coded("br", &packed)),
        ("zstd", coded("zstd", &packed)),
        ("compress", coded("compress", &packed)),
        ("unknown", coded("x-secret", &packed)),
        ("two codings", coded("gzip, br", &packed)),
        ("two lines", coded("gzip\r\ncontent-encoding: br", &packed)),
        ("identity and more", coded("identity, br", &packed)),
        ("a lie in clear text", coded("gzip", &plain)),
        (
            "broken gzip",
            coded(
                "gzip",
                [&packed[..2], b"\xff\xff\xff\xff", &packed[6..]].concat(),
            ),
        ),
        (
            "broken block",
            coded(
                "gzip",
                [&packed[..10], b"\x07\xff\xff\xff", &packed[14..]].concat(),
            ),
        ),
    ] {
        scene.upstream.answers(steps);
        scene.blocks(what, chat(""), 502, "echo_blocked").await;
    }
    // Twice packed is unpacked twice or refused; once is not enough.
    scene.upstream.answers(coded("gzip, gzip", &twice));
    let seen = scene.ask(chat("")).await;
    assert!(seen.status == 502 || tests::raw::find(&seen.body, key.as_bytes()).is_none());
    assert!(
        seen.status == 502 || seen.body.starts_with(b"*"),
        "{}",
        seen.head
    );
    scene.upstream.answers(coded("gzip", gzip::stored(b"{}")));
    scene.passes("good gzip", chat("")).await;
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_answer_that_breaks_later_is_not_made_to_look_complete() {
    let scene = Scene::start().await;
    let whole = gzip::stored(&vec![b'a'; 200 * 1024]);
    let cut = &whole[..whole.len() - 9];
    let mut wrong = whole.clone();
    let sum = wrong.len() - 6;
    wrong[sum] ^= 1;
    for (what, packed) in [("cut", cut.to_vec()), ("wrong sum", wrong)] {
        scene.upstream.answers(coded("gzip", packed));
        let mut app = scene.open().await;
        app.send(chat("")).await;
        let seen = app.answer("POST").await;
        let refused = seen
            .as_ref()
            .is_none_or(|seen| !seen.complete || seen.code().as_deref() == Some("echo_blocked"));
        assert!(refused, "{what}: {:?}", seen.map(|seen| seen.head));
    }
    scene.upstream.answers(coded("gzip", &whole));
    assert_eq!(scene.ask(chat("")).await.body.len(), 200 * 1024);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_unpacked_within_bounds() {
    let scene = Scene::start().await;
    scene.passes("warm", chat("")).await;
    let before = scene.agent.resident();
    // Half a megabyte that becomes a hundred.
    scene.upstream.answers(coded("gzip", gzip::bomb(400_000)));
    let mut app = scene.open().await;
    app.forgets();
    app.send(chat("")).await;
    let seen = app.answer("POST").await;
    let grown = scene.agent.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more than before");
    if let Some(seen) = seen.filter(|seen| seen.status == 200 && seen.complete) {
        assert_eq!(seen.body.len(), 1 + 258 * 400_000);
        assert_eq!(seen.field("content-encoding"), None);
    }
    scene.upstream.answers(coded("gzip", gzip::bomb(100)));
    let small = scene.ask(chat("")).await;
    assert_eq!((small.status, small.body.len()), (200, 1 + 258 * 100));
    assert_eq!(forms::hunt(&small.body, scene.key.as_bytes()), None);
    scene.holds();
}
