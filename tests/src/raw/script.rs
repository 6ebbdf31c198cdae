//! What an upstream does once a request has come: a list of steps, so that every answer, well formed or not, stands whole in its test.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::request::Seen;

/// One thing that an upstream does.
#[derive(Clone)]
pub enum Step {
    /// Sends these bytes, in a record of their own.
    Send(Vec<u8>),
    /// Sends these bytes again and again until the agent takes no more.
    Endless(Vec<u8>),
    /// Lets time pass: part of attacks on whoever holds bytes back.
    Pause(Duration),
    /// Does nothing until the test opens the gate.
    Wait(Gate),
    /// Does nothing for ever.
    Hang,
    /// Ends the connection properly.
    Close,
    /// Ends the connection without a word.
    Cut,
}

/// From a request to the steps that answer it.
pub type Script = Arc<dyn Fn(&Seen) -> Vec<Step> + Send + Sync>;

/// Closed until the test opens it.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Gate(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// Lets everybody pass, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns when it is open.
    pub async fn passed(&self) {
        let mut changes = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = changes.wait_for(|open| *open).await;
    }
}

/// A whole answer with these extra head lines (each ends in CR LF).
pub fn answer(status: &str, extra: &str, body: impl AsRef<[u8]>) -> Vec<Step> {
    let body = body.as_ref();
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\n{extra}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    vec![Step::Send(bytes)]
}

/// What an API answers when nothing is wrong: JSON that reports no usage.
pub fn ok() -> Vec<Step> {
    json("{\"ok\":true}")
}

/// `200` with this JSON.
pub fn json(body: impl AsRef<[u8]>) -> Vec<Step> {
    answer("200 OK", "content-type: application/json\r\n", body)
}

/// A chunked answer, one chunk and one record for each piece.
pub fn chunked(content_type: &str, pieces: &[&[u8]]) -> Vec<Step> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let mut steps = vec![Step::Send(head.into_bytes())];
    steps.extend(pieces.iter().map(|piece| Step::Send(chunk(piece))));
    steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
    steps
}

/// One chunk.
pub fn chunk(piece: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", piece.len()).into_bytes();
    bytes.extend_from_slice(piece);
    bytes.extend_from_slice(b"\r\n");
    bytes
}
