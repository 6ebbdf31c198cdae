//! A TLS upstream that keeps every byte it gets and answers exactly what a test wrote down.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::{Authority, Certificate};
use super::request::{Parsed, Seen};
use super::script::{self, Script, Step};

/// What happened at an upstream.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Requests in order of their arrival; those that broke off too.
    pub requests: Vec<Seen>,
    /// Every decrypted byte, connection by connection.
    pub wire: Vec<Vec<u8>>,
    /// TCP connections accepted.
    pub accepted: usize,
    /// Server names of the handshakes that ended well.
    pub names: Vec<Option<String>>,
    /// Handshakes that failed.
    pub failed: usize,
    /// Connections that are open now, handshakes done.
    pub open: usize,
    /// Bytes of answers that were taken.
    pub sent: u64,
}

struct Shared {
    log: Mutex<Log>,
    changed: Notify,
    script: Mutex<Script>,
    /// So many handshakes are left hanging.
    stalls: Mutex<usize>,
    /// Nothing more is read of requests whose head has this in it.
    deaf: Mutex<Option<String>>,
}

/// The upstream; it ends with the runtime of the test.
pub struct Upstream {
    port: u16,
    shared: Arc<Shared>,
}

impl Upstream {
    /// Starts one that answers everything with `{"ok":true}`.
    pub async fn start(authority: &Authority, certificate: Certificate) -> Self {
        let acceptor = authority.server(certificate);
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            log: Mutex::default(),
            changed: Notify::new(),
            script: Mutex::new(Arc::new(|_| script::ok())),
            stalls: Mutex::new(0),
            deaf: Mutex::new(None),
        });
        let server = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Decided before anybody hears of it, so that the next handshake is not stalled in this one's place.
                let stalled = {
                    let mut left = lock(&server.stalls);
                    let stalled = *left > 0;
                    *left = left.saturating_sub(1);
                    stalled
                };
                server.note(|log| log.accepted += 1);
                tokio::spawn(Arc::clone(&server).welcome(acceptor.clone(), stream, stalled));
            }
        });
        Upstream { port, shared }
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `https://localhost:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.authority())
    }

    /// `localhost:PORT`, what every Host must say.
    pub fn authority(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// What it answers from now on.
    pub fn script(&self, script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(script);
    }

    /// The same steps for every request.
    pub fn answers(&self, steps: Vec<Step>) {
        self.script(move |_| steps.clone());
    }

    /// Leaves the next handshakes hanging.
    pub fn stall_handshakes(&self, count: usize) {
        *lock(&self.shared.stalls) = count;
    }

    /// Reads nothing more of a request that has this in its head.
    pub fn stop_reading_at(&self, mark: &str) {
        *lock(&self.shared.deaf) = Some(mark.to_owned());
    }

    /// What happened so far.
    pub fn log(&self) -> Log {
        self.look(Log::clone)
    }

    /// What `read` sees in it.
    pub fn look<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&lock(&self.shared.log))
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.look(|log| log.requests.clone())
    }

    /// Returns what `look` sees as soon as it sees something.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&Log) -> Option<T>) -> T {
        super::patient(what, async {
            loop {
                let changed = self.shared.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                if let Some(value) = look(&lock(&self.shared.log)) {
                    return value;
                }
                changed.await;
            }
        })
        .await
    }
}

impl Shared {
    fn note<T>(&self, write: impl FnOnce(&mut Log) -> T) -> T {
        let value = write(&mut lock(&self.log));
        self.changed.notify_waiters();
        value
    }

    async fn welcome(self: Arc<Self>, acceptor: TlsAcceptor, mut tcp: TcpStream, stalled: bool) {
        if stalled {
            let mut piece = [0; 1024];
            while matches!(tcp.read(&mut piece).await, Ok(1..)) {}
            return;
        }
        let Ok(stream) = acceptor.accept(tcp).await else {
            self.note(|log| log.failed += 1);
            return;
        };
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        let connection = self.note(|log| {
            log.names.push(name);
            log.open += 1;
            log.wire.push(Vec::new());
            log.wire.len() - 1
        });
        let mut link = Link {
            stream,
            pending: Vec::new(),
            connection,
            shared: Arc::clone(&self),
        };
        link.serve().await;
        self.note(|log| log.open -= 1);
    }
}

/// One connection.
struct Link {
    stream: TlsStream<TcpStream>,
    pending: Vec<u8>,
    connection: usize,
    shared: Arc<Shared>,
}

impl Link {
    async fn serve(&mut self) {
        while let Some(seen) = self.request().await {
            let script = Arc::clone(&lock(&self.shared.script));
            let steps = script(&seen);
            self.shared.note(|log| log.requests.push(seen));
            for step in steps {
                if !self.play(step).await {
                    return;
                }
            }
        }
    }

    async fn request(&mut self) -> Option<Seen> {
        loop {
            match Seen::read(&self.pending, self.connection) {
                Parsed::Whole(seen, length) => {
                    self.pending.drain(..length);
                    return Some(seen);
                }
                Parsed::Partial(seen) => {
                    let mark = lock(&self.shared.deaf).clone();
                    if mark.is_some_and(|mark| seen.head.contains(&mark)) {
                        // The connection stays as it is until the test's runtime ends.
                        std::future::pending::<()>().await;
                    }
                    if !self.read().await {
                        if !self.pending.is_empty() {
                            self.shared.note(|log| log.requests.push(seen));
                        }
                        return None;
                    }
                }
            }
        }
    }

    async fn play(&mut self, step: Step) -> bool {
        match step {
            Step::Send(bytes) => self.send(&bytes).await,
            Step::Endless(bytes) => {
                while self.send(&bytes).await {}
                false
            }
            Step::Pause(time) => {
                tokio::time::sleep(time).await;
                true
            }
            Step::Wait(gate) => tokio::select! {
                () = gate.passed() => true,
                () = self.closed() => false,
            },
            Step::Hang => {
                self.closed().await;
                false
            }
            Step::Close => {
                // The agent may have closed first.
                let _ = self.stream.shutdown().await;
                false
            }
            Step::Cut => false,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok();
        if sent {
            self.shared.note(|log| log.sent += bytes.len() as u64);
        }
        sent
    }

    /// Returns when the agent has gone; what it says until then is kept.
    async fn closed(&mut self) {
        while self.read().await {}
    }

    async fn read(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        let Ok(read @ 1..) = self.stream.read(&mut piece).await else {
            return false;
        };
        self.pending.extend_from_slice(&piece[..read]);
        self.shared
            .note(|log| log.wire[self.connection].extend_from_slice(&piece[..read]));
        true
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
