//! HTTP/2 frames by hand, for what a well-behaved client refuses to send.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    dead_code,
    reason = "test support: each test file uses a part of it"
)]

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A response head; zero: a status that is not in the static table.
    Status(u16),
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// The whole connection was ended.
    GoAway,
}

pub struct RawH2 {
    pub stream: TcpStream,
}

pub type Fields<'a> = &'a [(&'a str, &'a str)];

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Literal fields without indexing and without Huffman coding.
pub fn headers(stream: u32, fields: Fields<'_>, end: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    frame(HEADERS, 4 | u8::from(end), stream, &block)
}

pub fn data(stream: u32, content: &[u8], end: bool) -> Vec<u8> {
    frame(DATA, u8::from(end), stream, content)
}

pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

impl RawH2 {
    /// Connects and says that it knows HTTP/2.
    pub async fn connect(addr: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Self { stream }
    }

    pub async fn send(&mut self, frames: &[u8]) {
        self.stream.write_all(frames).await.unwrap();
    }

    /// What happens to `stream` next, leaving out what happens to others.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        self.next_fate(Some(stream)).await
    }

    /// What happens to `stream`, or to any, next.
    pub async fn next_fate(&mut self, stream: Option<u32>) -> Fate {
        let meant = |about| stream.is_none_or(|stream| stream == about);
        loop {
            let mut head = [0; 9];
            if self.stream.read_exact(&mut head).await.is_err() {
                return Fate::GoAway;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.unwrap();
            let about = u32::from_be_bytes(head[5..9].try_into().unwrap());
            match head[3] {
                HEADERS if meant(about) => {
                    // Indices 8 to 14 of the static table.
                    let known = [200, 204, 206, 304, 400, 404, 500];
                    let index = usize::from(payload[0]).checked_sub(0x88);
                    return Fate::Status(index.and_then(|at| known.get(at).copied()).unwrap_or(0));
                }
                RST_STREAM if meant(about) => {
                    return Fate::Reset(u32::from_be_bytes(payload[..4].try_into().unwrap()));
                }
                GOAWAY => return Fate::GoAway,
                _ => {}
            }
        }
    }
}
