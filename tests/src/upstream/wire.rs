//! HTTP/1.1 on the provider's side, written by hand so that each request's raw bytes are at hand.
//!
//! Strict on purpose: what a careful origin server refuses (two lengths, a length beside chunks, bare
//! line feeds) is refused here, so an agent that forwards such a thing is found out.

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::record::Tape;

/// Largest head and body that a story needs; anything larger is a bug in the story.
const HEAD_MAX: usize = 64 * 1024;
const BODY_MAX: usize = 64 * 1024 * 1024;

/// One request, whole.
pub(super) struct Request {
    pub method: String,
    /// Path without the query.
    pub path: String,
    pub query: Option<String>,
    /// Names in lower case, in order of arrival, repeats kept.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Every byte from the request line to the end of the body, framing included.
    pub raw: Vec<u8>,
    pub close: bool,
}

impl Request {
    /// The first header of this name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(have, _)| have == name)
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Names and values of the query, as they stand there.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.query.as_deref().unwrap_or_default();
        query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The first query parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters()
            .find_map(|(have, value)| (have == name).then_some(value))
    }

    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A connection whose received bytes all go to the tape.
pub(super) struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
    tape: Tape,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(stream: S, tape: Tape) -> Self {
        Connection {
            stream,
            buffer: Vec::new(),
            tape,
        }
    }

    /// The next request, or `None` when the peer is done.
    pub async fn request(&mut self) -> anyhow::Result<Option<Request>> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(
                self.buffer.len() <= HEAD_MAX,
                "head larger than {HEAD_MAX} bytes"
            );
            if !self.fill().await? {
                ensure!(self.buffer.is_empty(), "connection ended inside a head");
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let mut request = parse(head)?;
        if request
            .header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
        {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        match length(&request)? {
            Length::Of(length) => request.body = self.take(length).await?,
            Length::Chunked => self.chunks(&mut request).await?,
        }
        if let Length::Of(_) = length(&request)? {
            request.raw.extend_from_slice(&request.body);
        }
        Ok(Some(request))
    }

    /// Sends bytes at once.
    pub async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Returns when the peer has left; what it still says is kept on the tape.
    pub async fn gone(&mut self) {
        while let Ok(true) = self.fill().await {}
    }

    /// The stream, what was received and not yet taken, and the tape.
    pub fn into_parts(self) -> (S, Vec<u8>, Tape) {
        (self.stream, self.buffer, self.tape)
    }

    /// Ends the TLS session in order.
    pub async fn close(&mut self) {
        // The peer may be gone already; then there is nobody to tell.
        let _ = self.stream.shutdown().await;
    }

    async fn fill(&mut self) -> anyhow::Result<bool> {
        let start = self.buffer.len();
        let count = self.stream.read_buf(&mut self.buffer).await?;
        self.tape.add(&self.buffer[start..]);
        Ok(count > 0)
    }

    async fn take(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        ensure!(length <= BODY_MAX, "body larger than {BODY_MAX} bytes");
        while self.buffer.len() < length {
            ensure!(self.fill().await?, "connection ended inside a body");
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn line(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                return Ok(self.buffer.drain(..end + 2).collect());
            }
            ensure!(self.buffer.len() <= HEAD_MAX, "chunk line too long");
            ensure!(self.fill().await?, "connection ended inside a chunk");
        }
    }

    async fn chunks(&mut self, request: &mut Request) -> anyhow::Result<()> {
        loop {
            let line = self.line().await?;
            request.raw.extend_from_slice(&line);
            let size =
                std::str::from_utf8(line.trim_ascii_end()).context("chunk size is no text")?;
            let size = size.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16)
                .with_context(|| format!("bad chunk size {size:?}"))?;
            if size == 0 {
                break;
            }
            ensure!(
                request.body.len() + size <= BODY_MAX,
                "body larger than {BODY_MAX} bytes"
            );
            let chunk = self.take(size + 2).await?;
            ensure!(chunk.ends_with(b"\r\n"), "chunk without its line end");
            request.raw.extend_from_slice(&chunk);
            request.body.extend_from_slice(&chunk[..size]);
        }
        loop {
            let line = self.line().await?;
            request.raw.extend_from_slice(&line);
            if line == b"\r\n" {
                return Ok(());
            }
        }
    }
}

enum Length {
    Of(usize),
    Chunked,
}

fn length(request: &Request) -> anyhow::Result<Length> {
    let values = |name: &str| -> Vec<&[u8]> {
        request
            .headers
            .iter()
            .filter(|(have, _)| have == name)
            .map(|(_, value)| value.as_slice())
            .collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(Length::Of(0)),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Length::Chunked),
        ([length], []) if length.iter().all(u8::is_ascii_digit) => Ok(Length::Of(
            std::str::from_utf8(length)?
                .parse()
                .context("content-length")?,
        )),
        _ => bail!("ambiguous framing: {lengths:?} {codings:?}"),
    }
}

fn parse(raw: Vec<u8>) -> anyhow::Result<Request> {
    let text_lines = raw.split(|byte| *byte == b'\n');
    ensure!(
        text_lines
            .clone()
            .all(|line| line.is_empty() || line.ends_with(b"\r")),
        "bare line feed in the head"
    );
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut headers);
    ensure!(head.parse(&raw)?.is_complete(), "head is not complete");
    let target = head.path.context("no target")?;
    ensure!(
        target.starts_with('/'),
        "target is not in origin form: {target:?}"
    );
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target.to_owned(), None),
    };
    let method = head.method.context("no method")?.to_owned();
    let old = head.version == Some(0);
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec()))
        .collect();
    let hosts = headers.iter().filter(|(name, _)| name == "host").count();
    ensure!(hosts == 1, "{hosts} Host headers");
    let mut request = Request {
        method,
        path,
        query,
        headers,
        body: Vec::new(),
        raw,
        close: old,
    };
    request.close |= request
        .header("connection")
        .is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(request)
}

/// Where `needle` begins in `bytes`.
pub(super) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}
