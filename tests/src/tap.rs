//! A tap on a Unix socket: stands before the daemon's and keeps every byte of both directions.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;

/// What passed through a tapped socket.
pub struct Tap {
    passed: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Listens on `path` and passes everything on to the socket at `target`, until the process ends.
    pub fn start(path: &Path, target: &Path) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let passed = Arc::new(Mutex::new(Vec::new()));
        let (keep, target) = (Arc::clone(&passed), target.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // No daemon: the client sees a closed connection, as it would without the tap.
                let Ok(daemon) = UnixStream::connect(&target) else {
                    continue;
                };
                let (Ok(from_client), Ok(from_daemon)) = (client.try_clone(), daemon.try_clone())
                else {
                    continue;
                };
                copy(from_client, daemon, Arc::clone(&keep));
                copy(from_daemon, client, Arc::clone(&keep));
            }
        });
        Ok(Tap { passed })
    }

    /// Everything so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.passed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream, keep: Arc<Mutex<Vec<u8>>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            keep.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(&buffer[..count]);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // The other direction ends when its peer sees this end.
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}
