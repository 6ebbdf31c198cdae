#![allow(clippy::unwrap_used)]

use std::future::pending;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::*;
use crate::body::Spool;

type Socket = WebSocketStream<DuplexStream>;

const DENIED: Refusal = Refusal::new(Code::ModelNotAllowed, "not this one");

/// Refuses what says `forbidden`, replaces `alias`, masks `secret`.
#[derive(Default)]
struct Scripted {
    seen: Vec<String>,
}

impl Hooks for Scripted {
    fn app_says(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let text = String::from_utf8_lossy(message).into_owned();
        self.seen.push(text.chars().take(20).collect());
        match text.as_str() {
            text if text.contains("forbidden") => Err(DENIED),
            "alias" => Ok(Some(b"model".to_vec())),
            _ => Ok(None),
        }
    }

    fn upstream_says(&mut self, message: &mut [u8]) -> Result<(), Refusal> {
        self.close_reason(message);
        if message.starts_with(b"poison") {
            return Err(Refusal::new(Code::EchoBlocked, "poison"));
        }
        Ok(())
    }

    fn close_reason(&mut self, reason: &mut [u8]) {
        let found = reason.windows(6).position(|part| part == b"secret");
        if let Some(at) = found {
            reason[at..at + 6].fill(b'*');
        }
    }

    fn event(&self, refusal: &Refusal) -> Option<String> {
        Some(format!("event: {}", refusal.code.name()))
    }
}

struct Stage {
    app: Socket,
    upstream: Socket,
    relayed: JoinHandle<(Closed, Vec<String>)>,
}

/// Room in the pipes between: small, so that back-pressure shows.
const PIPE: usize = 64 * 1024;

async fn client(stream: DuplexStream, role: Role) -> Socket {
    let config = WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None)
        .write_buffer_size(0);
    WebSocketStream::from_raw_socket(stream, role, Some(config)).await
}

async fn stage_with(ends: impl Future<Output = Ending> + Send + 'static) -> Stage {
    let (app, app_side) = duplex(PIPE);
    let (upstream, upstream_side) = duplex(PIPE);
    let side = |stream| Side {
        stream,
        read_ahead: Vec::new(),
        room: Room::new(&Spool::default()),
    };
    let relayed = tokio::spawn(async move {
        let mut hooks = Scripted::default();
        let closed = relay(side(app_side), side(upstream_side), ends, &mut hooks).await;
        (closed, hooks.seen)
    });
    Stage {
        app: client(app, Role::Client).await,
        upstream: client(upstream, Role::Server).await,
        relayed,
    }
}

async fn stage() -> Stage {
    stage_with(pending()).await
}

async fn next(socket: &mut Socket) -> Message {
    socket.next().await.unwrap().unwrap()
}

/// The code and reason of the next message, which closes.
async fn closing(socket: &mut Socket) -> (u16, String) {
    match next(socket).await {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{other:?} and not a close frame with a code"),
    }
}

#[tokio::test(start_paused = true)]
async fn messages_pass_both_ways_and_are_shown_before() {
    let Stage {
        mut app,
        mut upstream,
        relayed,
    } = stage().await;
    for message in [Message::text("hello"), Message::binary(vec![0, 159, 146])] {
        app.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut upstream).await, message);
        upstream.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut app).await, message);
    }
    app.send(Message::text("alias")).await.unwrap();
    assert_eq!(next(&mut upstream).await, Message::text("model"));
    upstream
        .send(Message::text("the secret, a secre"))
        .await
        .unwrap();
    assert_eq!(next(&mut app).await, Message::text("the ******, a secre"));
    upstream
        .send(Message::binary(&b"secret"[..]))
        .await
        .unwrap();
    assert_eq!(next(&mut app).await, Message::binary(&b"******"[..]));
    drop(app);
    let (closed, seen) = relayed.await.unwrap();
    assert_eq!(closed, Closed::AppGone);
    assert_eq!(seen.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_goes_nowhere_and_closes_both_sides() {
    let Stage {
        mut app,
        mut upstream,
        relayed,
    } = stage().await;
    app.send(Message::text("allowed")).await.unwrap();
    app.send(Message::text("forbidden")).await.unwrap();
    app.send(Message::text("allowed too")).await.unwrap();
    assert_eq!(next(&mut upstream).await, Message::text("allowed"));
    assert_eq!(closing(&mut upstream).await, (1001, String::new()));
    assert_eq!(
        next(&mut app).await,
        Message::text("event: model_not_allowed")
    );
    let (code, reason) = closing(&mut app).await;
    assert_eq!(
        (code, reason.as_str()),
        (1008, "model_not_allowed: not this one")
    );
    let (closed, seen) = relayed.await.unwrap();
    assert_eq!(closed, Closed::Refused(DENIED));
    assert_eq!(seen, ["allowed", "forbidden"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_in_pieces_or_in_binary_is_judged_as_a_whole() {
    for kind in [Data::Text, Data::Binary] {
        let stage = stage().await;
        let (mut app, mut upstream) = (stage.app, stage.upstream);
        let piece = |text: &'static str, kind, last| {
            Message::Frame(Frame::message(text, OpCode::Data(kind), last))
        };
        let sends = async {
            app.send(piece("for", kind, false)).await.unwrap();
            app.send(Message::Ping(Bytes::new())).await.unwrap();
            app.send(piece("bid", Data::Continue, false)).await.unwrap();
            app.send(piece("den", Data::Continue, true)).await.unwrap();
        };
        let reads = async {
            assert!(next(&mut upstream).await.is_ping());
            assert_eq!(closing(&mut upstream).await.0, 1001);
        };
        tokio::join!(sends, reads);
        assert_eq!(stage.relayed.await.unwrap().0, Closed::Refused(DENIED));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_app_must_not_get_closes_both_sides() {
    let mut stage = stage().await;
    stage.upstream.send(Message::text("poison")).await.unwrap();
    assert_eq!(
        next(&mut stage.app).await,
        Message::text("event: echo_blocked")
    );
    assert_eq!(closing(&mut stage.app).await.0, 1011);
    assert_eq!(closing(&mut stage.upstream).await.0, 1001);
}

#[tokio::test(start_paused = true)]
async fn close_frames_go_on_with_their_code_and_a_masked_reason() {
    let frame = |code: u16, reason: &'static str| {
        Some(CloseFrame {
            code: code.into(),
            reason: reason.into(),
        })
    };
    for code in [1000, 1008, 3000, 4999] {
        let mut stage = stage().await;
        stage
            .upstream
            .close(frame(code, "bad secret"))
            .await
            .unwrap();
        assert_eq!(
            closing(&mut stage.app).await,
            (code, "bad ******".to_owned())
        );
        assert_eq!(stage.relayed.await.unwrap().0, Closed::Upstream);
    }
    let mut stage = stage().await;
    stage.app.close(frame(4001, "bye")).await.unwrap();
    assert_eq!(closing(&mut stage.upstream).await, (4001, "bye".to_owned()));
    // It hears its own frame again, as the protocol has it.
    assert_eq!(closing(&mut stage.app).await.0, 4001);
    assert_eq!(stage.relayed.await.unwrap().0, Closed::App);
    let mut bare = self::stage().await;
    bare.app.close(None).await.unwrap();
    assert_eq!(next(&mut bare.upstream).await, Message::Close(None));
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_takes_the_other_side_along_and_never_cleanly() {
    let mut stage = stage().await;
    drop(stage.app);
    assert_eq!(closing(&mut stage.upstream).await.0, 1001);
    assert_eq!(stage.relayed.await.unwrap().0, Closed::AppGone);
    let mut stage = self::stage().await;
    drop(stage.upstream);
    let (code, reason) = closing(&mut stage.app).await;
    assert_eq!(
        (code, reason.as_str()),
        (1011, "the provider's connection broke off")
    );
    assert_eq!(stage.relayed.await.unwrap().0, Closed::UpstreamGone);
}

#[tokio::test(start_paused = true)]
async fn last_words_of_a_provider_reach_an_app_that_is_still_sending() {
    let mut stage = stage().await;
    let (mut to_app, mut from_app) = stage.app.split();
    let sending =
        tokio::spawn(
            async move { while to_app.send(Message::text("x".repeat(4096))).await.is_ok() {} },
        );
    stage.upstream.send(Message::text("why")).await.unwrap();
    let frame = CloseFrame {
        code: 4002.into(),
        reason: "over".into(),
    };
    stage
        .upstream
        .send(Message::Close(Some(frame)))
        .await
        .unwrap();
    drop(stage.upstream);
    assert_eq!(
        from_app.next().await.unwrap().unwrap(),
        Message::text("why")
    );
    let last = from_app.next().await.unwrap().unwrap();
    assert!(matches!(last, Message::Close(Some(frame)) if u16::from(frame.code) == 4002));
    assert_eq!(stage.relayed.await.unwrap().0, Closed::Upstream);
    drop(from_app);
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_and_passed_on_without_what_was_in_them() {
    let mut stage = stage().await;
    let ping = Message::Ping(Bytes::from_static(b"secret"));
    stage.upstream.send(ping.clone()).await.unwrap();
    assert_eq!(next(&mut stage.app).await, Message::Ping(Bytes::new()));
    let answer = next(&mut stage.upstream).await;
    assert_eq!(answer, Message::Pong(Bytes::from_static(b"secret")));
    stage.app.send(ping).await.unwrap();
    assert_eq!(next(&mut stage.upstream).await, Message::Ping(Bytes::new()));
}

#[tokio::test(start_paused = true)]
async fn a_silent_socket_is_closed_and_one_ping_keeps_it() {
    let began = Instant::now();
    let mut stage = stage().await;
    tokio::time::sleep(IDLE_TIMEOUT - Duration::from_secs(1)).await;
    stage.app.send(Message::Ping(Bytes::new())).await.unwrap();
    assert_eq!(next(&mut stage.upstream).await, Message::Ping(Bytes::new()));
    assert!(next(&mut stage.app).await.is_pong());
    let (app, upstream) = tokio::join!(closing(&mut stage.app), closing(&mut stage.upstream));
    assert_eq!((app.0, app.1.as_str(), upstream.0), (1001, "idle", 1001));
    assert_eq!(stage.relayed.await.unwrap().0, Closed::Idle);
    assert!(began.elapsed() >= 2 * IDLE_TIMEOUT - Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn sixteen_mebibytes_pass_and_one_byte_more_does_not() {
    let text = |bytes: usize| Message::text("x".repeat(bytes));
    let stage = stage().await;
    let (mut app, mut upstream) = (stage.app, stage.upstream);
    let sent = tokio::spawn(async move {
        app.send(text(MESSAGE_MAX_BYTES)).await.unwrap();
        app
    });
    assert_eq!(next(&mut upstream).await.len(), MESSAGE_MAX_BYTES);
    let (mut to_app, mut from_app) = sent.await.unwrap().split();
    tokio::spawn(async move {
        let _ = to_app.send(text(MESSAGE_MAX_BYTES + 1)).await;
    });
    assert_eq!(closing(&mut upstream).await.0, 1001);
    let event = from_app.next().await.unwrap().unwrap();
    assert_eq!(event, Message::text("event: bad_request"));
    let last = from_app.next().await.unwrap().unwrap();
    assert!(matches!(last, Message::Close(Some(frame)) if frame.code == CloseCode::Size));
    assert_eq!(
        stage.relayed.await.unwrap().0,
        Closed::Refused(APP_TOO_LARGE)
    );
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_does_not_read_stops_the_app_and_loses_nothing() {
    let stage = stage().await;
    let (mut app, mut upstream) = (stage.app, stage.upstream);
    const MESSAGES: usize = 200;
    let sending = tokio::spawn(async move {
        for at in 0..MESSAGES {
            let text = format!("{at:>8192}");
            app.send(Message::text(text)).await.unwrap();
        }
        app
    });
    // Time passes by itself only when nobody can go on: the pipes are full.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!sending.is_finished());
    for at in 0..MESSAGES {
        let message = next(&mut upstream).await;
        assert_eq!(message.to_text().unwrap().trim(), at.to_string());
    }
    drop(sending.await.unwrap());
    assert_eq!(stage.relayed.await.unwrap().0, Closed::AppGone);
}

#[tokio::test(start_paused = true)]
async fn frames_that_break_the_rules_are_refused_and_their_neighbour_passes() {
    // A masked text frame of two bytes; the mask is zero.
    let good = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
    let cases: [(&str, &[u8], Option<u16>); 7] = [
        ("a text", &good, None),
        ("unmasked", &[0x81, 0x02, b'h', b'i'], Some(1002)),
        (
            "a reserved bit, as if compressed",
            &[0xc1, 0x82, 0, 0, 0, 0, b'h', b'i'],
            Some(1002),
        ),
        (
            "an opcode that is none",
            &[0x83, 0x82, 0, 0, 0, 0, b'h', b'i'],
            Some(1002),
        ),
        (
            "a continuation of nothing",
            &[0x80, 0x82, 0, 0, 0, 0, b'h', b'i'],
            Some(1002),
        ),
        ("a ping in pieces", &[0x09, 0x80, 0, 0, 0, 0], Some(1002)),
        (
            "no UTF-8",
            &[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xff],
            Some(1007),
        ),
    ];
    for (what, bytes, code) in cases {
        let Stage {
            app, mut upstream, ..
        } = stage().await;
        let mut raw = app.into_inner();
        raw.write_all(bytes).await.unwrap();
        let Some(code) = code else {
            assert_eq!(next(&mut upstream).await, Message::text("hi"), "{what}");
            continue;
        };
        assert_eq!(closing(&mut upstream).await.0, 1001, "{what}");
        let mut answer = Vec::new();
        raw.read_to_end(&mut answer).await.unwrap();
        // After the event: a close frame, whose length is one byte.
        let event = usize::from(answer[1]) + 2;
        assert_eq!(answer[event], 0x88, "{what}");
        assert_eq!(answer[event + 2..event + 4], code.to_be_bytes(), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ending_from_outside_is_said_to_both_sides() {
    let cases = [
        (Ending::Draining, 1001, Closed::Draining),
        (Ending::Refused(DENIED), 1008, Closed::Refused(DENIED)),
    ];
    for (ending, code, expected) in cases {
        let (now, ends) = tokio::sync::oneshot::channel();
        let mut stage = stage_with(async move { ends.await.unwrap() }).await;
        stage.app.send(Message::text("hello")).await.unwrap();
        assert_eq!(next(&mut stage.upstream).await, Message::text("hello"));
        now.send(ending).unwrap();
        let mut message = next(&mut stage.app).await;
        if message.is_text() {
            message = next(&mut stage.app).await;
        }
        assert!(matches!(message, Message::Close(Some(frame)) if u16::from(frame.code) == code));
        assert_eq!(closing(&mut stage.upstream).await.0, 1001);
        assert_eq!(stage.relayed.await.unwrap().0, expected);
    }
}
