//! Where the daemons say that they are ready: the socket that systemd would give them.
//!
//! An event on a socket has no polling interval in it, so start-up is measured to the moment.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use tests::process::PATIENCE;

/// The receiving end.
pub struct Notices {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notices {
    /// Listens at `path`, replacing what an earlier one left there.
    pub fn at(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            std::fs::remove_file(path)?;
        }
        let socket = UnixDatagram::bind(path)
            .with_context(|| format!("cannot listen at {}", path.display()))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Notices {
            socket,
            path: path.to_owned(),
        })
    }

    /// What `NOTIFY_SOCKET` must say.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When the daemon has said this line.
    pub fn wait(&self, line: &str) -> anyhow::Result<Instant> {
        let mut buffer = [0; 512];
        loop {
            let count = match self.socket.recv(&mut buffer) {
                Ok(count) => count,
                Err(error) => bail!("no notice {line:?} within {PATIENCE:?}: {error}"),
            };
            let now = Instant::now();
            if buffer[..count]
                .split(|byte| *byte == b'\n')
                .any(|said| said == line.as_bytes())
            {
                return Ok(now);
            }
        }
    }
}
