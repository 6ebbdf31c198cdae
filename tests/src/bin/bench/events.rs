//! Numbered server-sent events: what the provider of `streams` sends, and how its client reads them.
//!
//! Each event says its number and when it left, so that a client in the same process knows of each whether it came in its order, and how
//! long it took.

use std::io::Write;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// Between two events of a stream: about what a model says.
pub const PERIOD: Duration = Duration::from_millis(333);

/// What times in events count from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now_us() -> u128 {
    EPOCH.elapsed().as_micros()
}

/// A request for this many events.
pub fn request(host: &str, prefix: &str, key: &str, events: usize) -> String {
    let body = format!(
        r#"{{"model":"gpt-bench","stream":true,"stream_options":{{"include_usage":true}},"max_completion_tokens":{events},"messages":[{{"role":"user","content":"count"}}]}}"#
    );
    format!(
        "POST {prefix}/v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// How many events a request asks for; none: it is another request.
pub fn asked(request: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(request).ok()?;
    let (_, rest) = text.split_once("\"max_completion_tokens\":")?;
    rest.split([',', '}']).next()?.parse().ok()
}

/// Answers with this many events, one in each period. The first goes with the head.
pub fn send(to: &mut impl Write, events: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut out = String::from(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    for (number, periods) in (0..events).zip(0..) {
        std::thread::sleep((start + PERIOD * periods).saturating_duration_since(Instant::now()));
        push_chunk(&mut out, &event(number));
        to.write_all(out.as_bytes())?;
        to.flush()?;
        out.clear();
    }
    push_chunk(&mut out, USAGE);
    push_chunk(&mut out, DONE);
    out.push_str("0\r\n\r\n");
    to.write_all(out.as_bytes())?;
    Ok(to.flush()?)
}

const USAGE: &str = "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-bench\",\"choices\":[],\
    \"usage\":{\"prompt_tokens\":1,\"completion_tokens\":180,\"total_tokens\":181}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn event(number: usize) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-bench\",\
         \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{number} {} \"}},\"finish_reason\":null}}]}}\n\n",
        now_us()
    )
}

fn push_chunk(out: &mut String, content: &str) {
    out.push_str(&format!("{:x}\r\n{content}\r\n", content.len()));
}

/// Reads a whole answer in pieces, and is strict about it.
#[derive(Default)]
pub struct Reader {
    raw: Vec<u8>,
    content: Vec<u8>,
    in_body: bool,
    /// How long each event was under way, in microseconds.
    pub took_us: Vec<f32>,
    is_done: bool,
}

impl Reader {
    /// Takes what came; true when the answer is complete.
    pub fn take(&mut self, piece: &[u8]) -> anyhow::Result<bool> {
        self.raw.extend_from_slice(piece);
        if !self.in_body {
            let Some(end) = find(&self.raw, b"\r\n\r\n") else {
                return Ok(false);
            };
            let head = String::from_utf8_lossy(&self.raw[..end]).to_ascii_lowercase();
            ensure!(
                head.starts_with("http/1.1 200 ") && head.contains("transfer-encoding: chunked"),
                "a stream was not begun: {head}"
            );
            self.raw.drain(..end + 4);
            self.in_body = true;
        }
        let is_complete = self.chunks()?;
        while let Some(end) = find(&self.content, b"\n\n") {
            let event: Vec<u8> = self.content.drain(..end + 2).collect();
            self.event(&event)?;
        }
        ensure!(
            !is_complete || self.is_done,
            "a stream ended before its last event"
        );
        Ok(is_complete)
    }

    /// Moves the content of complete chunks; true after the last one.
    fn chunks(&mut self) -> anyhow::Result<bool> {
        loop {
            let Some(line) = find(&self.raw, b"\r\n") else {
                return Ok(false);
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.raw[..line])?, 16)?;
            let (start, end) = (line + 2, line + 2 + size);
            if self.raw.len() < end + 2 {
                return Ok(false);
            }
            self.content.extend_from_slice(&self.raw[start..end]);
            self.raw.drain(..end + 2);
            if size == 0 {
                return Ok(true);
            }
        }
    }

    fn event(&mut self, event: &[u8]) -> anyhow::Result<()> {
        let text = std::str::from_utf8(event)?;
        if text == DONE {
            self.is_done = true;
            return Ok(());
        }
        let Some((_, rest)) = text.split_once("\"content\":\"") else {
            return Ok(());
        };
        let mut words = rest.split(' ');
        let mut next = || -> anyhow::Result<u128> { Ok(words.next().context("a word")?.parse()?) };
        let (number, sent) = (next()?, next()?);
        if number != self.took_us.len() as u128 || self.is_done {
            bail!("event {number} came in the place of {}", self.took_us.len());
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a latency; seven digits are enough"
        )]
        self.took_us.push(now_us().saturating_sub(sent) as f32);
        Ok(())
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answer(events: usize) -> Vec<u8> {
        let mut out = Vec::new();
        send(&mut out, events).unwrap();
        out
    }

    #[test]
    fn a_reader_takes_whole_answers_however_cut_and_none_that_lacks_an_event() {
        let answer = answer(2);
        for step in [1, 7, answer.len()] {
            let mut reader = Reader::default();
            let ends: Vec<bool> = answer
                .chunks(step)
                .map(|piece| reader.take(piece).unwrap())
                .collect();
            assert_eq!(ends.iter().filter(|end| **end).count(), 1);
            assert_eq!((ends.last(), reader.took_us.len()), (Some(&true), 2));
        }
        let text = String::from_utf8(answer).unwrap();
        let second = text.find("\"content\":\"1 ").unwrap();
        let swapped = format!("{}2{}", &text[..second + 11], &text[second + 12..]);
        assert!(Reader::default().take(swapped.as_bytes()).is_err());
        let without = text.replace(&format!("{:x}\r\n{DONE}\r\n", DONE.len()), "");
        assert!(Reader::default().take(without.as_bytes()).is_err());
    }

    #[test]
    fn a_request_says_how_many_events_it_wants() {
        assert_eq!(asked(request("h", "/openai", "k", 17).as_bytes()), Some(17));
        assert_eq!(asked(b"POST /v1/embeddings HTTP/1.1\r\n\r\n{}"), None);
    }
}
