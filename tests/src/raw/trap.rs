//! A place where no byte may ever arrive: a plain TCP listener that keeps whatever does, and never answers.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What an attacker's server got.
pub struct Trap {
    port: u16,
    caught: Arc<Mutex<Vec<u8>>>,
    connections: watch::Receiver<usize>,
}

impl Trap {
    /// Listens on a free port of loopback.
    pub async fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let caught = Arc::new(Mutex::new(Vec::new()));
        let (count, connections) = watch::channel(0);
        let keep = Arc::clone(&caught);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                let keep = Arc::clone(&keep);
                tokio::spawn(async move {
                    let mut piece = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut piece).await {
                        keep.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .extend_from_slice(&piece[..read]);
                    }
                });
            }
        });
        Trap {
            port,
            caught,
            connections,
        }
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections came.
    pub fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// Returns when somebody has connected.
    pub async fn sprung(&self) {
        let mut connections = self.connections.clone();
        let sprung = connections.wait_for(|count| *count > 0);
        super::patient("somebody connects to the trap", sprung)
            .await
            .expect("the listener lives");
    }

    /// Everything that arrived.
    pub fn bytes(&self) -> Vec<u8> {
        self.caught
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
