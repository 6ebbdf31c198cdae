//! Our binaries as child processes: found, started, watched, and surely ended.
//!
//! Ending goes by process id, down the tree that we started, and never by name.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a story waits for anything that should happen at once. Generous, because machines that
/// run tests are slow and busy; a story that needs it all has failed anyway.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The directory with the built binaries: `TACIT_BIN_DIR`, or the target directory of this test.
pub fn bin_dir() -> anyhow::Result<PathBuf> {
    #[allow(
        clippy::disallowed_methods,
        reason = "the crate's own configuration is this one variable"
    )]
    if let Some(dir) = std::env::var_os("TACIT_BIN_DIR") {
        return Ok(PathBuf::from(dir));
    }
    let exe = std::env::current_exe().context("where is this test?")?;
    let dir = exe.parent().context("a test has a directory")?;
    let dir = if dir.ends_with("deps") {
        dir.parent().context("deps has a parent")?
    } else {
        dir
    };
    Ok(dir.to_owned())
}

/// The path of one built binary.
pub fn bin(name: &str) -> anyhow::Result<PathBuf> {
    let path = bin_dir()?.join(name);
    if !path.is_file() {
        bail!(
            "{} is not built: run `cargo build --workspace --bins`, or set TACIT_BIN_DIR",
            path.display()
        );
    }
    Ok(path)
}

/// Asks again and again until `check` gives a value; fails with `what` when patience ends.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        if start.elapsed() > PATIENCE {
            bail!("gave up after {PATIENCE:?} waiting until {what}");
        }
        // Between two looks at a condition that has no event to wait on.
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Lines of one stream, as they come; a copy goes to a file for the canary.
#[derive(Default)]
struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    fresh: VecDeque<String>,
    all: String,
    ended: bool,
}

impl Lines {
    fn follow(stream: impl Read + Send + 'static, copy: &Path) -> anyhow::Result<Arc<Self>> {
        let lines = Arc::new(Lines::default());
        let mut copy =
            File::create(copy).with_context(|| format!("cannot create {}", copy.display()))?;
        let to = Arc::clone(&lines);
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(stream.read_until(b'\n', &mut line), Ok(count) if count > 0) {
                // A full disk shows in the story itself; the lines stay readable here.
                let _ = copy.write_all(&line);
                let text = String::from_utf8_lossy(&line).into_owned();
                let mut state = to.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.all.push_str(&text);
                state.fresh.push_back(text.trim_end().to_owned());
                to.changed.notify_all();
                line.clear();
            }
            to.state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .ended = true;
            to.changed.notify_all();
        });
        Ok(lines)
    }

    /// The first line not yet seen that `wanted` takes.
    fn wait(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let end = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(line) = state.fresh.pop_front() {
                if wanted(&line) {
                    return Some(line);
                }
            }
            let left = end.checked_duration_since(Instant::now())?;
            if state.ended {
                return None;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until the stream has ended; not for long, since a grandchild may hold its other end.
    fn drained(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.changed
                .wait_timeout_while(state, Duration::from_secs(1), |state| !state.ended),
        );
    }

    fn all(&self) -> String {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .all
            .clone()
    }
}

/// A child process that does not outlive the value.
pub struct Process {
    name: String,
    child: Child,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; its output goes to `DIR/NAME.stdout` and `DIR/NAME.stderr` as well.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        Ok(Process {
            name: name.to_owned(),
            child,
            stdout: Lines::follow(stdout, &dir.join(format!("{name}.stdout")))?,
            stderr: Lines::follow(stderr, &dir.join(format!("{name}.stderr")))?,
            exited: None,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The standard input, to write to or to close.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The next standard output line that is a JSON object.
    pub fn json_line(&mut self) -> anyhow::Result<serde_json::Value> {
        let line = self
            .stdout
            .wait(|line| line.starts_with('{'))
            .with_context(|| self.report("printed no JSON line"))?;
        serde_json::from_str(&line).with_context(|| format!("{}: not JSON: {line}", self.name))
    }

    /// Waits for a standard output line with this text.
    pub fn stdout_line(&mut self, text: &str) -> anyhow::Result<String> {
        self.stdout
            .wait(|line| line.contains(text))
            .with_context(|| self.report(&format!("never printed {text:?}")))
    }

    /// Waits for a standard error line with this text.
    pub fn stderr_line(&mut self, text: &str) -> anyhow::Result<String> {
        self.stderr
            .wait(|line| line.contains(text))
            .with_context(|| self.report(&format!("never logged {text:?}")))
    }

    /// All that was printed so far: standard output, then standard error.
    pub fn output(&self) -> (String, String) {
        (self.stdout.all(), self.stderr.all())
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        send(self.pid(), signal)
    }

    /// Whether it ended, and how.
    pub fn try_exit(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait()?;
        }
        Ok(self.exited)
    }

    /// Waits until it ends by itself.
    pub fn exit(&mut self) -> anyhow::Result<ExitStatus> {
        let name = self.name.clone();
        let status = eventually(&format!("{name} ends"), || self.try_exit().transpose())
            .with_context(|| self.report("does not end"))?;
        // Its last words may still be on their way through the pipe.
        self.stdout.drained();
        self.stderr.drained();
        status
    }

    /// Asks it to end (SIGTERM) and waits.
    pub fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        if self.try_exit()?.is_none() {
            self.signal(Signal::SIGTERM)?;
        }
        self.exit()
    }

    /// What went wrong, with the end of what the process said.
    fn report(&self, what: &str) -> String {
        let (stdout, stderr) = self.output();
        format!(
            "{} {what}\n--- stdout\n{}\n--- stderr\n{}",
            self.name,
            tail(&stdout),
            tail(&stderr)
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.try_exit(), Ok(Some(_))) {
            return;
        }
        // What it started would be nobody's once it is gone, so the tree is written down first.
        let tree = descendants(self.pid());
        let _ = send(self.pid(), Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(10);
        while matches!(self.try_exit(), Ok(None)) && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        if matches!(self.try_exit(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for (pid, born) in tree {
            if birth(pid) == Some(born) {
                let _ = send(pid, Signal::SIGKILL);
            }
        }
    }
}

/// Sends a signal to one process.
pub fn send(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let raw = i32::try_from(pid).context("a process id fits")?;
    kill(Pid::from_raw(raw), signal).with_context(|| format!("cannot send {signal} to {pid}"))
}

/// The processes below `pid`, each with its time of birth, so that a reused id is not mistaken.
pub fn descendants(pid: u32) -> Vec<(u32, u64)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let all: Vec<(u32, u32, u64)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| stat(pid).map(|(parent, born)| (pid, parent, born)))
        .collect();
    let (mut found, mut next) = (Vec::new(), vec![pid]);
    while let Some(parent) = next.pop() {
        for (child, _, born) in all.iter().filter(|(_, of, _)| *of == parent) {
            found.push((*child, *born));
            next.push(*child);
        }
    }
    found
}

/// The descendants of `pid` that run the binary `name`.
pub fn descendants_running(pid: u32, name: &str) -> Vec<u32> {
    let runs = |pid: u32| {
        std::fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.file_name().is_some_and(|file| file == name))
    };
    descendants(pid)
        .into_iter()
        .map(|(pid, _)| pid)
        .filter(|pid| runs(*pid))
        .collect()
}

fn birth(pid: u32) -> Option<u64> {
    stat(pid).map(|(_, born)| born)
}

/// Parent and start time. The name in parentheses may hold blanks, so fields count from the last `)`.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
