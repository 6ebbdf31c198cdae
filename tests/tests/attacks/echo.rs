//! Bodies that repeat the key: an app sees stars, wherever and however they come.

use std::time::Duration;

use tests::raw::forms::{self, mask};
use tests::raw::scene::Scene;
use tests::raw::script::{Gate, Step, answer, chunk, chunked, json};

use crate::requests::{MODELS, chat, get};

/// What the agent counts.
const HITS: &str = "tacit_agent_echo_hits_total";

/// Where the dressed key stood there are stars, all else is as it was. Padding of base64 says nothing, and may stay.
fn assert_masked(what: &str, got: &[u8], before: &str, dressed: &str, after: &str) {
    let shown = String::from_utf8_lossy(got);
    assert_eq!(
        got.len(),
        before.len() + dressed.len() + after.len(),
        "{what}: {shown}"
    );
    let middle = shown
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after))
        .unwrap_or_else(|| panic!("{what}: something else was changed: {shown}"));
    let stars = middle.trim_end_matches('=');
    assert!(
        stars.len() + 2 >= middle.len() && stars.bytes().all(|byte| byte == b'*'),
        "{what}: {shown}"
    );
}

/// The last letter of a key exchanged: no key at all, in upper case or lower.
fn neighbour(key: &str) -> String {
    let last = if key.ends_with('7') { '8' } else { '7' };
    format!("{}{last}", &key[..key.len() - 1])
}

async fn every_dress_is_masked(scene: &Scene) {
    let (before, after) = ("{\"error\":{\"message\":\"no: ", ".\"}}");
    for (form, dressed) in forms::all(&scene.key) {
        let body = format!("{before}{dressed}{after}");
        let hits = scene.agent.metric(HITS);
        scene.upstream.answers(json(&body));
        let seen = scene.ask(chat("")).await;
        assert!(seen.complete && seen.status == 200, "{form}: {}", seen.head);
        if form == "base64 of the header value" {
            // How much of the scheme's name goes along is the guard's choice.
            assert_eq!(seen.body.len(), body.len(), "{form}");
        } else {
            assert_masked(form, &seen.body, before, &dressed, after);
        }
        assert_eq!(
            forms::hunt(&seen.body, scene.key.as_bytes()),
            None,
            "{form}"
        );
        // Counted when the exchange is over, which is after the app has all of it.
        scene.agent.until(HITS, |now| now > hits).await;
    }
    let hits = scene.agent.metric(HITS);
    for (form, dressed) in forms::all(&neighbour(&scene.key)) {
        let body = format!("{before}{dressed}{after}");
        scene.upstream.answers(json(&body));
        assert_eq!(
            scene.ask(chat("")).await.text(),
            body,
            "{form} of another key"
        );
    }
    assert!(
        (scene.agent.metric(HITS) - hits).abs() < 0.5,
        "another key was counted"
    );
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_repeats_the_key_in_any_dress_arrives_masked() {
    every_dress_is_masked(&Scene::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_letters_that_dresses_escape_is_masked_too() {
    every_dress_is_masked(
        &Scene::start_with_key("tok/en+with=odd\"let\\ters&%41-0123456789abcdef").await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_type_does_not_matter() {
    let scene = Scene::start().await;
    let (before, after) = ("data: ", "\n\n");
    let body = format!("{before}{}{after}", scene.key);
    for kind in [
        "text/event-stream",
        "text/plain; charset=utf-8",
        "application/octet-stream",
        "application/vnd.amazon.eventstream",
        "image/png",
        "multipart/mixed; boundary=x",
    ] {
        let head = format!("content-type: {kind}\r\n");
        scene.upstream.answers(answer("200 OK", &head, &body));
        let seen = scene.ask(get(MODELS, "")).await;
        assert_masked(kind, &seen.body, before, &scene.key, after);
    }
    scene.upstream.answers(answer("200 OK", "", &body));
    let seen = scene.ask(get(MODELS, "")).await;
    assert_masked("no type at all", &seen.body, before, &scene.key, after);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_shows_of_a_key_is_not_shown() {
    let scene = Scene::start().await;
    let tail = &scene.key[scene.key.len() - 4..];
    for status in [
        "400 Bad Request",
        "403 Forbidden",
        "404 Not Found",
        "429 Too Many Requests",
        "500 Internal Server Error",
    ] {
        let body = format!(
            "{{\"error\":{{\"message\":\"quota of {} is used up\",\"code\":\"q\"}}}}",
            mask(&scene.key)
        );
        scene
            .upstream
            .answers(answer(status, "content-type: application/json\r\n", &body));
        let seen = scene.ask(get(MODELS, "")).await;
        assert!(!seen.text().contains(tail), "{status}: {}", seen.text());
        // The mask of another key is blanked alike: what becomes of it must not tell one key from another.
        let other = body.replace(&mask(&scene.key), &mask(&neighbour(&scene.key)));
        let neighbour = neighbour(&scene.key);
        let tail_of_other = &neighbour[neighbour.len() - 4..];
        scene.upstream.answers(answer(
            "404 Not Found",
            "content-type: application/json\r\n",
            &other,
        ));
        let seen = scene.ask(get(MODELS, "")).await;
        assert!(!seen.text().contains(tail_of_other), "{}", seen.text());
        // A text without a mask is left alone.
        let plain = "{\"error\":{\"message\":\"no such model: **gpt-x** ...\",\"code\":\"q\"}}";
        scene.upstream.answers(answer(
            "404 Not Found",
            "content-type: application/json\r\n",
            plain,
        ));
        assert_eq!(scene.ask(get(MODELS, "")).await.text(), plain);
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_cut_at_any_point_between_two_chunks_is_masked() {
    let scene = Scene::start().await;
    let (before, after) = ("data: {\"delta\":\"", "\"}\n\n");
    let key = scene.key.clone();
    for cut in 1..key.len() {
        let (first, second) = key.split_at(cut);
        scene.upstream.answers(chunked(
            "text/event-stream",
            &[
                format!("{before}{first}").as_bytes(),
                format!("{second}{after}").as_bytes(),
            ],
        ));
        let seen = scene.ask(get(MODELS, "")).await;
        assert!(seen.complete);
        assert_masked(&format!("cut at {cut}"), &seen.body, before, &key, after);
    }
    for (form, dressed) in forms::all(&key) {
        let whole = format!("{before}{dressed}{after}");
        let letters: Vec<&[u8]> = whole.as_bytes().chunks(1).collect();
        scene
            .upstream
            .answers(chunked("text/event-stream", &letters));
        let seen = scene.ask(get(MODELS, "")).await;
        assert_eq!(seen.body.len(), whole.len(), "{form}");
        assert_eq!(
            forms::hunt(&seen.body, key.as_bytes()),
            None,
            "{form}, letter by letter"
        );
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_drips_slower_than_anything_is_held_back_does_not_arrive() {
    let scene = Scene::start().await;
    let pause = Step::Pause(Duration::from_millis(60));
    let key = scene.key.clone();
    for pieces in [2, 5, 16] {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut steps = vec![Step::Send(head.into()), Step::Send(chunk(b"data: "))];
        for piece in key.as_bytes().chunks(key.len().div_ceil(pieces)) {
            steps.extend([Step::Send(chunk(piece)), pause.clone()]);
        }
        steps.push(Step::Send([chunk(b"\n\n"), b"0\r\n\r\n".to_vec()].concat()));
        scene.upstream.answers(steps);
        let seen = scene.ask(get(MODELS, "")).await;
        assert_eq!(
            forms::hunt(&seen.body, key.as_bytes()),
            None,
            "in {pieces} pieces: {}",
            seen.text()
        );
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_does_not_stall_a_stream() {
    let scene = Scene::start().await;
    let gate = Gate::default();
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    // The end of the first event could be the beginning of a key.
    let beginning = format!("data: one {}", &scene.key[..3]);
    scene.upstream.answers(vec![
        Step::Send([head.as_bytes(), &chunk(beginning.as_bytes())].concat()),
        Step::Wait(gate.clone()),
        Step::Send([chunk(b" two\n\n"), b"0\r\n\r\n".to_vec()].concat()),
    ]);
    let mut app = scene.open().await;
    app.send(get(MODELS, "")).await;
    // Held back until more comes, it would never be here: the upstream waits for us. It may come in two chunks.
    assert!(app.until(b"data: one").await.is_some());
    assert!(app.until(&scene.key.as_bytes()[..3]).await.is_some());
    gate.open();
    assert!(app.until(b" two\n\n").await.is_some());
    drop(app);
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_across_the_border_of_a_buffer_is_masked() {
    let scene = Scene::start().await;
    let key = scene.key.clone();
    for border in [4096, 8192, 16 * 1024, 32 * 1024, 64 * 1024, 128 * 1024] {
        for status in ["200 OK", "400 Bad Request"] {
            for shift in [1, key.len() / 2, key.len() - 1] {
                let before = "a".repeat(border - shift);
                let after = "b".repeat(1000);
                let head = "content-type: text/plain\r\n";
                scene
                    .upstream
                    .answers(answer(status, head, format!("{before}{key}{after}")));
                let seen = scene.ask(get(MODELS, "")).await;
                assert_eq!(seen.status.to_string(), status[..3]);
                assert_masked(
                    &format!("{border} - {shift}, {status}"),
                    &seen.body,
                    &before,
                    &key,
                    &after,
                );
            }
        }
    }
    scene.holds();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_length_is_masked_and_keys_may_stand_side_by_side() {
    let scene = Scene::start().await;
    let key = scene.key.clone();
    let body = format!("{key}{key} {key}\r\n{}", &key[1..]);
    let stars = "*".repeat(key.len());
    scene.upstream.answers(vec![
        Step::Send(
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n{body}").into_bytes(),
        ),
        Step::Close,
    ]);
    let seen = scene.ask(get(MODELS, "")).await;
    assert_eq!(
        seen.text(),
        format!("{stars}{stars} {stars}\r\n{}", &key[1..])
    );
    scene.holds();
}
