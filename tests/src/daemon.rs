//! `hsmd` alone, on the state that a whole stack has left: to be killed at any moment.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::http;
use crate::process::{Process, bin, descendants_running, eventually};
use crate::stack::{self, listening_ports};

/// A place where a daemon can be started again and again.
pub struct Post {
    dir: TempDir,
    config: PathBuf,
    environment: Vec<(String, String)>,
    starts: usize,
}

/// A running daemon of that place.
pub struct Daemon {
    process: Process,
}

impl Post {
    /// From the parts of an ended stack.
    pub(crate) fn new(dir: TempDir, config: PathBuf, environment: Vec<(String, String)>) -> Self {
        Post {
            dir,
            config,
            environment,
            starts: 0,
        }
    }

    /// The directory with state, tokens and logs.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Starts the daemon and waits until all its custodians can take shares.
    pub fn start(&mut self) -> anyhow::Result<Daemon> {
        self.starts += 1;
        let mut command = Command::new(bin("hsmd")?);
        command.arg("--config").arg(&self.config);
        let mut process =
            Process::start(&format!("hsmd-{}", self.starts), command, self.dir.path())?;
        let pid = process.pid();
        eventually("the daemon is ready", || match process.try_exit() {
            Ok(None) => {
                let port = listening_ports(pid).first().copied()?;
                let ready = http::get(&format!("http://127.0.0.1:{port}/ready")).ok()?;
                (ready.status == 200).then_some(Ok(()))
            }
            _ => Some(Err(anyhow::anyhow!(
                "the daemon ended: {}",
                process.output().1
            ))),
        })??;
        eventually("all custodians are up", || {
            let status = self.tacit_json(&["status"]).ok()?;
            let custodians = status["custodians"].as_array()?;
            custodians
                .iter()
                .all(|custodian| custodian["state"] == "up")
                .then_some(())
        })?;
        Ok(Daemon { process })
    }

    /// `tacit ARGUMENTS` as the operator, not yet started.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(bin("tacit")?);
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Runs it; it must succeed.
    pub fn tacit_json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = stack::run(
            self.command(&[arguments, &["--output", "json"]].concat())?,
            b"",
        )?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "tacit {arguments:?}: {}\n{stderr}",
            output.status
        );
        serde_json::from_slice(&output.stdout).context("no JSON")
    }
}

impl Daemon {
    /// SIGKILL, at once; returns when it and its token processes are gone.
    pub fn kill(mut self) -> anyhow::Result<()> {
        let tokens = descendants_running(self.process.pid(), "tacit-token");
        self.process.signal(Signal::SIGKILL)?;
        self.process.exit()?;
        // They end by themselves when the daemon's end of the socket pair is gone.
        eventually("the token processes end", || {
            tokens
                .iter()
                .all(|pid| !runs(*pid, "tacit-token"))
                .then_some(())
        })
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Whether this process id still runs this binary (and is no zombie: those have no executable).
fn runs(pid: u32, name: &str) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|exe| exe.file_name().is_some_and(|file| file == name))
}
