//! A blocking HTTP/1.1 client for stories: raw bytes out, raw bytes back.
//!
//! It repairs nothing and hides nothing: what a story sends is what it wrote.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, bail};

use crate::process::PATIENCE;

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and header lines, without the blank line.
    pub head: String,
    /// The body, without chunk framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (have, value) = line.split_once(':')?;
            have.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }
}

/// One connection, driven byte by byte.
pub struct Wire {
    stream: TcpStream,
    /// Received and not yet taken.
    pending: Vec<u8>,
}

impl Wire {
    /// Connects to `http://HOST:PORT` (a path behind it is ignored).
    pub fn open(url: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(authority(url)?)
            .with_context(|| format!("cannot connect to {url}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Wire {
            stream,
            pending: Vec::new(),
        })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        Ok(())
    }

    /// Takes everything up to and including `end`.
    pub fn read_until(&mut self, end: &str) -> anyhow::Result<String> {
        loop {
            if let Some(at) = find(&self.pending, end.as_bytes()) {
                let taken: Vec<u8> = self.pending.drain(..at + end.len()).collect();
                return Ok(String::from_utf8_lossy(&taken).into_owned());
            }
            if !self.fill()? {
                bail!(
                    "ended before {end:?}: {}",
                    String::from_utf8_lossy(&self.pending)
                );
            }
        }
    }

    /// Whether the peer closed the connection, with nothing left to read.
    pub fn at_end(&mut self) -> anyhow::Result<bool> {
        Ok(self.pending.is_empty() && !self.fill()?)
    }

    /// Reads one whole answer.
    pub fn answer(&mut self) -> anyhow::Result<Answer> {
        let head = self.read_until("\r\n\r\n")?.trim_end().to_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut answer = Answer {
            status: status.context("no status line")?,
            head,
            body: Vec::new(),
        };
        if answer
            .header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            loop {
                let line = self.read_until("\r\n")?;
                let size =
                    usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)?;
                let mut chunk = self.take(size + 2)?;
                chunk.truncate(size);
                answer.body.extend_from_slice(&chunk);
                if size == 0 {
                    return Ok(answer);
                }
            }
        }
        match answer.header("content-length") {
            Some(length) => answer.body = self.take(length.parse()?)?,
            None => {
                while self.fill()? {}
                answer.body = std::mem::take(&mut self.pending);
            }
        }
        Ok(answer)
    }

    fn take(&mut self, count: usize) -> anyhow::Result<Vec<u8>> {
        while self.pending.len() < count {
            if !self.fill()? {
                bail!("ended inside a body");
            }
        }
        Ok(self.pending.drain(..count).collect())
    }

    fn fill(&mut self) -> anyhow::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer).context("reading an answer")?;
        self.pending.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }
}

/// `GET url`, whole.
pub fn get(url: &str) -> anyhow::Result<Answer> {
    let path = url
        .strip_prefix("http://")
        .and_then(|rest| rest.find('/').map(|at| &rest[at..]))
        .unwrap_or("/");
    let mut wire = Wire::open(url)?;
    wire.send(format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        authority(url)?
    ))?;
    wire.answer()
}

/// `POST url` with a JSON body and these extra header lines (each ending in CRLF).
pub fn post(url: &str, extra: &str, body: &serde_json::Value) -> anyhow::Result<Answer> {
    let mut wire = Wire::open(url)?;
    wire.send(post_bytes(url, extra, body)?)?;
    wire.answer()
}

/// The bytes of that request, for a story that wants to send them itself.
pub fn post_bytes(url: &str, extra: &str, body: &serde_json::Value) -> anyhow::Result<Vec<u8>> {
    let authority = authority(url)?;
    let path = url
        .split_once(authority)
        .map(|(_, path)| path)
        .unwrap_or("/");
    let body = body.to_string();
    let length = body.len();
    Ok(format!(
        "POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n{extra}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes())
}

fn authority(url: &str) -> anyhow::Result<&str> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("{url} is not a plain http URL"))?;
    rest.split('/')
        .next()
        .context("split yields at least one part")
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}
