//! How a socket ends: what each side is told when the other one has closed, gone, or been refused.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::{Closed, From, Hooks, To, editable};
use crate::respond::Refusal;

/// What the reason of a close frame may have (RFC 6455, section 5.5: 125 bytes with the code).
const REASON_MAX_BYTES: usize = 123;

/// Why the two directions stopped.
pub(super) enum Stop {
    AppClosed(Option<CloseFrame>),
    UpstreamClosed(Option<CloseFrame>),
    AppGone,
    UpstreamGone,
    Refused(Refusal, CloseCode),
    Idle,
    Draining,
}

/// What each side is told at the end.
pub(super) struct Farewell {
    pub(super) closed: Closed,
    pub(super) app: Words,
    pub(super) upstream: Words,
}

/// Last words to one side. A side that has closed, or is gone, gets no more than its answer.
#[derive(Default)]
pub(super) struct Words {
    event: Option<String>,
    close: Option<Option<CloseFrame>>,
}

impl Words {
    fn close(code: CloseCode, reason: &str) -> Self {
        Self::pass(Some(frame(code, reason)))
    }

    fn pass(frame: Option<CloseFrame>) -> Self {
        Self {
            event: None,
            close: Some(frame),
        }
    }
}

impl Farewell {
    pub(super) fn after(stop: Stop, hooks: &mut impl Hooks) -> Self {
        let away = || Words::close(CloseCode::Away, "");
        let (closed, app, upstream) = match stop {
            Stop::AppClosed(frame) => (Closed::App, Words::default(), Words::pass(frame)),
            Stop::UpstreamClosed(frame) => {
                let frame = frame.map(|frame| masked(frame, hooks));
                (Closed::Upstream, Words::pass(frame), Words::default())
            }
            Stop::AppGone => (Closed::AppGone, Words::default(), away()),
            Stop::UpstreamGone => {
                let words = Words::close(CloseCode::Error, "the provider's connection broke off");
                (Closed::UpstreamGone, words, Words::default())
            }
            Stop::Refused(refusal, code) => {
                let words = Words {
                    event: hooks.event(&refusal),
                    ..Words::close(code, &refusal.to_string())
                };
                (Closed::Refused(refusal), words, away())
            }
            Stop::Idle => (Closed::Idle, Words::close(CloseCode::Away, "idle"), away()),
            Stop::Draining => {
                let words = Words::close(CloseCode::Away, "the agent is ending");
                (Closed::Draining, words, away())
            }
        };
        Self {
            closed,
            app,
            upstream,
        }
    }
}

fn masked(frame: CloseFrame, hooks: &mut impl Hooks) -> CloseFrame {
    let mut reason = editable(frame.reason.into());
    hooks.close_reason(&mut reason);
    CloseFrame {
        code: frame.code,
        reason: Utf8Bytes::try_from(reason.freeze()).unwrap_or_default(),
    }
}

fn frame(code: CloseCode, reason: &str) -> CloseFrame {
    let mut end = reason.len().min(REASON_MAX_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    CloseFrame {
        code,
        reason: Utf8Bytes::from(&reason[..end]),
    }
}

/// Says the last words, and waits for the answer: closing before the other end has read them could take them back.
pub(super) async fn part<S: AsyncRead + AsyncWrite + Unpin>(
    to: &mut To<S>,
    from: &mut From<S>,
    words: Words,
) {
    // Whatever fails here, the connection is closed next.
    if let Some(event) = words.event {
        let _ = to.feed(Message::text(event)).await;
    }
    let Some(frame) = words.close else {
        let _ = to.flush().await;
        return;
    };
    if to.send(Message::Close(frame)).await.is_ok() {
        while let Some(Ok(_)) = from.next().await {}
    }
}
