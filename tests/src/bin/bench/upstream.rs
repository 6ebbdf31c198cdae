//! A provider that does as little as possible: TLS, one fixed answer or numbered events, a thread per connection.
//!
//! The recording one of the stories would be the slowest part of what is measured here. This one still looks for the
//! real key in each head: a request that came bare is answered 401, and the measurement fails.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ::tests::fixture;
use ::tests::upstream::Authority;
use anyhow::Context as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::events;

/// Of the whole answer, head and body.
pub const ANSWER_BYTES: usize = 330;

/// When the first request after [`Fixed::watch`] came.
#[derive(Clone, Copy, Debug, Default)]
pub struct First {
    /// Its connection was accepted.
    pub accepted: Option<Instant>,
    /// Its head was read.
    pub seen: Option<Instant>,
}

/// The running provider; it ends with the process.
pub struct Fixed {
    address: SocketAddr,
    authority: Authority,
    first: Arc<Mutex<First>>,
}

impl Fixed {
    /// Starts it on a free port of loopback.
    pub fn start() -> anyhow::Result<Self> {
        let authority = Authority::new()?;
        let config = Arc::clone(authority.server()?.config());
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
        let address = listener.local_addr()?;
        let first = Arc::new(Mutex::new(First::default()));
        let watched = Arc::clone(&first);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let accepted = Instant::now();
                let (config, first) = (Arc::clone(&config), Arc::clone(&watched));
                // A client that goes away in the middle of a handshake or a request ends its thread, as it should.
                std::thread::spawn(move || serve(stream, config, accepted, &first));
            }
        });
        Ok(Fixed {
            address,
            authority,
            first,
        })
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients must trust.
    pub fn ca_pem(&self) -> &str {
        self.authority.ca_pem()
    }

    /// Forgets the first request: the next one is it.
    pub fn watch(&self) {
        *lock(&self.first) = First::default();
    }

    /// The first request since then.
    pub fn first(&self) -> First {
        *lock(&self.first)
    }
}

fn lock(first: &Mutex<First>) -> std::sync::MutexGuard<'_, First> {
    first.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    accepted: Instant,
    first: &Mutex<First>,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let (good, bare) = (answer(), refusal());
    let mut buffer = Vec::with_capacity(4096);
    let mut piece = [0; 4096];
    loop {
        while let Some(request) = whole(&buffer) {
            let mut seen = lock(first);
            if seen.seen.is_none() {
                *seen = First {
                    accepted: Some(accepted),
                    seen: Some(Instant::now()),
                };
            }
            drop(seen);
            let has_key = find(
                &buffer[..request],
                fixture::key(::tests::upstream::Provider::OpenAi).as_bytes(),
            )
            .is_some();
            match events::asked(&buffer[..request]) {
                Some(count) if has_key => events::send(&mut stream, count)?,
                _ => {
                    stream.write_all(if has_key { &good } else { &bare })?;
                    stream.flush()?;
                }
            }
            buffer.drain(..request);
        }
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&piece[..count]);
    }
}

/// The length of the first message in the buffer, once it is there whole.
pub fn whole(buffer: &[u8]) -> Option<usize> {
    const LENGTH: &[u8] = b"content-length: ";
    let head = find(buffer, b"\r\n\r\n")? + 4;
    // nginx writes it with capitals.
    let mut windows = buffer[..head].windows(LENGTH.len());
    let at = windows.position(|window| window.eq_ignore_ascii_case(LENGTH))? + LENGTH.len();
    let digits = buffer[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let body = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    (buffer.len() >= head + body).then_some(head + body)
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

fn answer() -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_0123456789\r\ncontent-length: ";
    // The length has three digits.
    let body = ANSWER_BYTES - head.len() - 3 - 4;
    // As a provider writes it: what reads answers in passing is quicker or slower with other bytes.
    let (start, end) = (
        r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":["#,
        r#"0.0137]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
    );
    let numbers = "-0.0093,0.0171,".chars().cycle();
    let numbers: String = numbers.take(body - start.len() - end.len()).collect();
    format!("{head}{body}\r\n\r\n{start}{numbers}{end}").into_bytes()
}

fn refusal() -> Vec<u8> {
    b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}".to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_promised_length() {
        assert_eq!(answer().len(), ANSWER_BYTES);
        assert_eq!(whole(&answer()), Some(ANSWER_BYTES));
        assert_eq!(whole(&answer()[..ANSWER_BYTES - 1]), None);
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
