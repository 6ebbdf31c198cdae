//! One connection to a token process: a child on its standard input's socket pair, or a service on its own socket.
//!
//! The child gets its end as standard input: that needs no `pre_exec` and no descriptor that another child could inherit,
//! and it ends by itself at EOF when this daemon dies. Its environment is what the configuration names and nothing else.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::config::TokenConfig;
use crate::confinement;
use crate::passing;
use crate::peer;

/// How long a child may take to end by itself after EOF before it is killed.
const GRACE: Duration = Duration::from_millis(500);

/// The connection, and the child behind it if it is ours.
pub(crate) struct Link {
    stream: UnixStream,
    child: Option<Child>,
}

impl Link {
    /// Starts the child, or connects to the service. The error is for the operator.
    pub(crate) async fn open(config: &TokenConfig) -> Result<Link, String> {
        match &config.token_socket {
            Some(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| {
                    format!(
                        "cannot connect to the token socket {}: {error}: is its service running?",
                        path.display()
                    )
                })?;
                let peer = stream.peer_cred().map_err(|error| {
                    format!("cannot ask who serves {}: {error}", path.display())
                })?;
                peer::check(path, peer.uid(), config.token_uid)?;
                Ok(Link {
                    stream,
                    child: None,
                })
            }
            None => Link::spawn(config),
        }
    }

    fn spawn(config: &TokenConfig) -> Result<Link, String> {
        let program = program(config)?;
        let failed = |error: io::Error| {
            format!(
                "cannot start the token process {}: {error}",
                program.display()
            )
        };
        let (ours, theirs) = StdStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut command = Command::new(&program);
        command
            .args(config.arguments())
            .env_clear()
            .envs(&config.env)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .kill_on_drop(true);
        // Its own group: Ctrl-C in the terminal is for the daemon, which drains first and closes the socket last.
        command.process_group(0);
        let child = command.spawn().map_err(failed)?;
        let stream = UnixStream::from_std(ours).map_err(failed)?;
        Ok(Link {
            stream,
            child: Some(child),
        })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    pub(crate) fn try_read(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        into.reserve(4096);
        self.stream.try_read_buf(into)
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    /// Sends bytes with a descriptor.
    pub(crate) fn try_send(&self, bytes: &[u8], descriptor: &OwnedFd) -> io::Result<usize> {
        self.stream.try_io(Interest::WRITABLE, || {
            passing::send(&self.stream, bytes, descriptor.as_fd())
        })
    }

    /// Ends the child in order: EOF, a grace, then SIGKILL.
    pub(crate) async fn close(self) {
        let Link { stream, child } = self;
        drop(stream);
        if let Some(mut child) = child
            && tokio::time::timeout(GRACE, child.wait()).await.is_err()
        {
            let _ = child.kill().await;
        }
    }

    /// SIGKILL and reap; says how the child had ended. A service of its own is left to its own watchdog.
    pub(crate) async fn kill(self) -> Option<String> {
        let mut child = self.child?;
        // It may have ended by itself with a telling code; a moment for that, since EOF comes just before the exit.
        let status = match tokio::time::timeout(Duration::from_millis(20), child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                let _ = child.start_kill();
                child.wait().await.ok()
            }
        };
        status.map(describe)
    }
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(crate::exit::HANG) => "a PKCS#11 call passed its deadline".into(),
        Some(crate::exit::SELF_TEST) => "the token failed its self-test".into(),
        Some(crate::exit::USAGE) => "it refused its arguments; see its message above".into(),
        _ => status.to_string(),
    }
}

/// What a daemon must keep that starts this custodian's token process itself; nothing where that is a service.
///
/// # Errors
/// There is no `tacit-token` to start.
pub fn confinement_of_parent(config: &TokenConfig) -> Result<Option<confine::Plan>, String> {
    match config.token_socket {
        Some(_) => Ok(None),
        None => Ok(Some(confinement::parents_plan(config, &program(config)?))),
    }
}

fn program(config: &TokenConfig) -> Result<PathBuf, String> {
    if let Some(program) = &config.program {
        return Ok(program.clone());
    }
    let own = std::env::current_exe()
        .map_err(|error| format!("cannot find the daemon's own directory: {error}"))?;
    let sibling = own.parent().unwrap_or(Path::new("/")).join("tacit-token");
    if sibling.is_file() {
        Ok(sibling)
    } else {
        Err(format!(
            "{} is missing: install tacit-token beside the daemon",
            sibling.display()
        ))
    }
}
