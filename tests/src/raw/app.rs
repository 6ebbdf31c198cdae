//! The app's end: sends what it is told, reads what comes, and keeps every byte for the hunt.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{fields, find, patient};

/// Everything that apps of one scene have received, one entry for each piece of evidence.
pub type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

/// An answer, as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Heads of 1xx answers before it.
    pub interim: Vec<String>,
    /// The status code.
    pub status: u16,
    /// Status line and fields, with the blank line.
    pub head: String,
    /// The body, without chunk framing.
    pub body: Vec<u8>,
    /// What stood behind the last chunk.
    pub trailers: String,
    /// The body ended as its framing said.
    pub complete: bool,
}

impl Answer {
    /// The values of every field of this name.
    pub fn fields(&self, name: &str) -> Vec<String> {
        fields(&self.head, name)
    }

    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<String> {
        self.fields(name).into_iter().next()
    }

    /// The code of a refusal of the agent's own.
    pub fn code(&self) -> Option<String> {
        self.field("x-tacit-error")
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection to the agent.
pub struct App {
    stream: TcpStream,
    pending: Vec<u8>,
    raw: Vec<u8>,
    heard: Heard,
    keeps: bool,
}

impl App {
    /// Connects to `ADDRESS:PORT`.
    pub async fn open(address: &str, heard: Heard) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(App {
            stream,
            pending: Vec::new(),
            raw: Vec::new(),
            heard,
            keeps: true,
        })
    }

    /// Goes as a killed program with bytes unread does: at once, with a reset.
    pub fn vanishes(self) {
        // Without it the connection would end in order, behind what still waits to be sent.
        let _ = self.stream.set_zero_linger();
    }

    /// Stops keeping what comes: for answers without end.
    pub fn forgets(&mut self) {
        self.keeps = false;
    }

    /// Sends bytes as they are. An agent that has refused may have closed already; its answer says so.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// The same, but reports whether the bytes were taken.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Everything until the agent closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        patient("the agent closes the connection", async {
            while self.more().await {}
        })
        .await;
        std::mem::take(&mut self.pending)
    }

    /// Whether the agent closes without another byte.
    pub async fn closed(&mut self) -> bool {
        self.rest().await.is_empty()
    }

    /// Everything up to and including `mark`, or none when the connection ends before.
    pub async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        patient(
            &format!("the app gets {:?}", String::from_utf8_lossy(mark)),
            async {
                loop {
                    if let Some(at) = find(&self.pending, mark) {
                        return Some(self.pending.drain(..at + mark.len()).collect());
                    }
                    if !self.more().await {
                        return None;
                    }
                }
            },
        )
        .await
    }

    /// What has come and was not taken, so far.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Throws away what has come, and says how much it was.
    pub fn skip(&mut self) -> usize {
        let skipped = self.pending.len();
        self.pending.clear();
        skipped
    }

    /// Reads at most one piece; false at the end.
    pub async fn more(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece).await {
            Ok(read @ 1..) => {
                self.pending.extend_from_slice(&piece[..read]);
                if self.keeps {
                    self.raw.extend_from_slice(&piece[..read]);
                }
                true
            }
            _ => false,
        }
    }

    /// One answer to a request of this method; none when the connection ends before its head does.
    pub async fn answer(&mut self, method: &str) -> Option<Answer> {
        let mut answer = Answer::default();
        loop {
            let head = String::from_utf8_lossy(&self.until(b"\r\n\r\n").await?).into_owned();
            let status = head
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok())
                .unwrap_or(0);
            if (100..200).contains(&status) && status != 101 {
                answer.interim.push(head);
                continue;
            }
            (answer.status, answer.head) = (status, head);
            break;
        }
        let bodiless = method == "HEAD" || matches!(answer.status, 101 | 204 | 304);
        let length = answer.field("content-length");
        if bodiless {
            answer.complete = true;
        } else if answer.field("transfer-encoding").is_some() {
            self.chunks(&mut answer).await;
        } else if let Some(length) = length {
            let length: usize = length.parse().unwrap_or(usize::MAX);
            patient("a body by length", async {
                while self.pending.len() < length && self.more().await {}
            })
            .await;
            let take = length.min(self.pending.len());
            answer.body = self.pending.drain(..take).collect();
            answer.complete = take == length;
        } else {
            answer.body = self.rest().await;
            answer.complete = true;
        }
        self.keep([answer.head.as_bytes(), &answer.body].concat());
        Some(answer)
    }

    async fn chunks(&mut self, answer: &mut Answer) {
        loop {
            let Some(line) = self.until(b"\r\n").await else {
                return;
            };
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let Ok(size) = usize::from_str_radix(&text, 16) else {
                return;
            };
            if size == 0 {
                while let Some(line) = self.until(b"\r\n").await {
                    if line == b"\r\n" {
                        answer.complete = true;
                        return;
                    }
                    answer.trailers += &String::from_utf8_lossy(&line);
                }
                return;
            }
            patient("a chunk", async {
                while self.pending.len() < size + 2 && self.more().await {}
            })
            .await;
            let take = size.min(self.pending.len());
            answer.body.extend(self.pending.drain(..take));
            let frame = 2.min(self.pending.len());
            self.pending.drain(..frame);
            if take < size {
                return;
            }
        }
    }

    fn keep(&self, evidence: Vec<u8>) {
        if self.keeps {
            self.heard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(evidence);
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let raw = std::mem::take(&mut self.raw);
        self.keep(raw);
    }
}
