//! Starting, watching and stopping the daemons of a development stack.
//!
//! Each runs in a process group of its own: Ctrl-C reaches this process alone, which then ends them in order, instead
//! of reaching all at once and, as a second signal, cutting their drain short.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::config::program_directories;
use crate::output::Output;

/// How often a file or a port is looked at that makes no sound when it appears.
const LOOK: Duration = Duration::from_millis(10);

/// How long a daemon may drain: above the agent's own 25 s, so that the kill never cuts off what it would finish.
const DRAIN: Duration = Duration::from_secs(30);

/// Longest answer of a readiness page that is read.
const PAGE_MAX_BYTES: u64 = 16 * 1024;

/// SIGINT, SIGTERM and SIGHUP: each of them ends the stack.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on signals are noticed instead of ending the process.
    pub(super) fn register() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot register for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn first(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// A daemon that was started.
#[derive(Debug)]
pub(super) struct Child {
    name: &'static str,
    process: tokio::process::Child,
    announcement: PathBuf,
}

/// Why the stack ended.
#[derive(Debug)]
pub(super) enum Stopped {
    /// A signal asked for it.
    Asked,
    /// A child ended by itself; says which and how.
    Child(String),
}

/// A sibling of this binary.
pub(crate) fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let path = own.with_file_name(name);
    anyhow::ensure!(
        path.exists(),
        "{name} is not beside tacit ({}); install or build all of Tacit",
        path.display()
    );
    Ok(path)
}

fn command(name: &str) -> anyhow::Result<Command> {
    let program = sibling(name)?;
    // `setpriv --pdeathsig` has the kernel end the daemon should this process die without a chance to (SIGKILL). It
    // stays the same process, so its pid is the daemon's. Without it the daemons outlive such a death.
    let setpriv = program_directories()
        .into_iter()
        .map(|one| one.join("setpriv"))
        .find(|path| path.exists());
    let mut command = match setpriv {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    Ok(command)
}

/// Runs a sibling to its end; its words are shown only when it fails.
pub(super) async fn run_to_end(
    name: &'static str,
    arguments: &[&str],
    config: &Path,
) -> anyhow::Result<()> {
    let output = command(name)?
        .args(arguments)
        .arg(config)
        .stderr(Stdio::piped())
        .output()
        .await
        .with_context(|| format!("cannot start {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::bail!(
        "{name} {} ended with {}:\n{}",
        arguments[0],
        output.status,
        said.trim_end()
    )
}

impl Child {
    /// Starts a daemon; it writes its addresses to `announcement` once it listens.
    pub(super) fn start(
        name: &'static str,
        config: &Path,
        announcement: &Path,
    ) -> anyhow::Result<Self> {
        match std::fs::remove_file(announcement) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot clear {}", announcement.display()));
            }
            _ => {}
        }
        let process = command(name)?
            .arg("--config")
            .arg(config)
            .arg("--announce")
            .arg(announcement)
            .stdout(Stdio::null()) // ours is for the one line
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name,
            process,
            announcement: announcement.to_owned(),
        })
    }

    /// Waits until the daemon says where it listens.
    pub(super) async fn announced(&mut self, deadline: Duration) -> anyhow::Result<Value> {
        let file = self.announcement.clone();
        let appear = async || loop {
            // Renamed into place: it is whole, or not there.
            if let Ok(bytes) = tokio::fs::read(&file).await {
                return serde_json::from_slice(&bytes).context("its announcement is not JSON");
            }
            sleep(LOOK).await;
        };
        self.until(deadline, "listens", appear()).await
    }

    /// Waits until `/ready` of the daemon says yes.
    pub(super) async fn ready(&mut self, admin: &str, deadline: Duration) -> anyhow::Result<()> {
        let last = std::cell::RefCell::new(String::new());
        let answer = async || loop {
            match page(admin, "/ready").await {
                Ok((200, _)) => return Ok(()),
                Ok((_, body)) => *last.borrow_mut() = body,
                Err(error) => *last.borrow_mut() = error.to_string(),
            }
            sleep(LOOK).await;
        };
        let outcome = self.until(deadline, "is ready", answer()).await;
        outcome.with_context(|| last.borrow().trim().to_owned())
    }

    /// Whatever comes first: the event, the daemon's end, or the deadline.
    async fn until<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        event: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let name = self.name;
        tokio::select! {
            outcome = timeout(deadline, event) => outcome
                .map_err(|_| anyhow::anyhow!("waited {} s, but {name} never {what}", deadline.as_secs()))?
                .with_context(|| name.to_owned()),
            status = self.process.wait() => anyhow::bail!(ended(name, status)),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.process.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), signal); // it may have ended a moment ago
        }
    }
}

fn ended(name: &str, status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("{name} ended by itself ({status}); its log is above"),
        Err(error) => format!("cannot wait for {name}: {error}"),
    }
}

/// One GET on an operators' port: status and body.
async fn page(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(PAGE_MAX_BYTES).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    status
        .map(|status| (status, body.to_owned()))
        .ok_or_else(|| std::io::Error::other("no HTTP answer"))
}

/// Waits for a signal or for the end of a child.
pub(super) async fn watch(running: &mut [Child], signals: &mut Signals) -> anyhow::Result<Stopped> {
    let [first, second] = running else {
        anyhow::bail!("two daemons belong to a stack");
    };
    tokio::select! {
        () = signals.first() => Ok(Stopped::Asked),
        status = first.process.wait() => Ok(Stopped::Child(ended(first.name, status))),
        status = second.process.wait() => Ok(Stopped::Child(ended(second.name, status))),
    }
}

/// Ends the children, the last started first: each may drain, unless a second signal comes.
pub(super) async fn stop(mut running: Vec<Child>, signals: &mut Signals, output: &Output) {
    while let Some(mut child) = running.pop() {
        child.signal(Signal::SIGTERM);
        let deadline = Instant::now() + DRAIN;
        tokio::select! {
            _ = child.process.wait() => continue,
            () = tokio::time::sleep_until(deadline) => {
                output.note(&format!("{} did not end within {} s; killed", child.name, DRAIN.as_secs()));
            }
            () = signals.first() => output.note(&format!("{} killed", child.name)),
        }
        if let Err(error) = child.process.kill().await {
            output.note(&format!("cannot end {}: {error}", child.name));
        }
    }
}
