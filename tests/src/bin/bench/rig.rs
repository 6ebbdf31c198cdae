//! What is measured: one directory with three tokens and a key, and the daemons as they ship, started from it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tests::fixture;
use tests::process::{Process, bin};

use crate::ready::Notices;
use crate::upstream::Fixed;

/// The id of the key.
pub const KEY: &str = "openai-prod";

/// Directory, provider and key.
pub struct Rig {
    dir: TempDir,
    /// The provider.
    pub upstream: Fixed,
    hsmd_config: PathBuf,
    /// The daemon's workload socket.
    pub socket: PathBuf,
    /// The daemon's admin socket.
    pub admin_socket: PathBuf,
    trust: PathBuf,
    variables: Vec<(String, String)>,
}

/// A started daemon.
pub struct Daemon {
    /// The process.
    pub process: Process,
    /// What it says of its readiness.
    pub notices: Notices,
    /// Just before it was started.
    pub started: Instant,
    announcement: PathBuf,
    /// What stood there when it was bound: a later start of the same program replaces the file.
    addresses: Value,
}

impl Rig {
    /// Provisions tokens, initialises the daemon, and puts a key in.
    pub fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tacit-bench-").tempdir()?;
        let upstream = Fixed::start()?;
        std::fs::write(dir.path().join("ca.pem"), upstream.ca_pem())?;
        let mut command = Command::new(bin("tacit")?);
        command
            .args(["dev", "--listen", "127.0.0.1:0", "--json", "--dir"])
            .arg(dir.path().join("dev"));
        let mut process = Process::start("dev", command, dir.path())?;
        let ready = process.json_line()?;
        let variables = ready["env"].as_object().context("the ready line has env")?;
        let variables = variables
            .iter()
            .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect::<Option<Vec<_>>>()
            .context("variables are texts")?;
        put_key("add", &variables, &upstream)?;
        let status = process.terminate()?;
        ensure!(status.success(), "`tacit dev` ended with {status}");
        let path = |value: &Value| {
            let text = value.as_str().context("the ready line has all paths")?;
            Ok::<_, anyhow::Error>(PathBuf::from(text))
        };
        Ok(Rig {
            hsmd_config: path(&ready["hsmd_config"])?,
            socket: path(&ready["hsmd_socket"])?,
            admin_socket: path(&ready["admin_socket"])?,
            variables,
            trust: path(&ready["env"]["TACIT_TRUST"])?,
            dir,
            upstream,
        })
    }

    /// The directory of everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The daemon's state directory.
    pub fn state(&self) -> PathBuf {
        self.dir().join("dev/state")
    }

    /// Starts the daemon.
    pub fn hsmd(&self) -> anyhow::Result<Daemon> {
        Daemon::start("hsmd", "hsmd", &self.hsmd_config, self.dir())
    }

    /// Starts an agent with one route, to the daemon at `socket`.
    pub fn agent(&self, socket: &Path) -> anyhow::Result<Daemon> {
        self.agent_named("tacit-agent", socket, "60s")
    }

    /// Starts another one, with leases of this length.
    pub fn agent_named(&self, name: &str, socket: &Path, ttl: &str) -> anyhow::Result<Daemon> {
        let config = self.dir().join(format!("{name}.toml"));
        let text = format!(
            "name = \"{name}\"\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nhsmd = [\"{}\"]\ncustodians = \"{}\"\n\n\
             [lease]\nttl = \"{ttl}\"\n\n\
             [providers.openai]\nsecret_key_ref = {{ store = \"{KEY}\" }}\nbase_url = \"{}\"\nca_file = \"{}\"\n",
            socket.display(),
            self.trust.display(),
            self.upstream.url(),
            self.dir().join("ca.pem").display(),
        );
        std::fs::write(&config, text)?;
        Daemon::start("tacit-agent", name, &config, self.dir())
    }

    /// Puts a new version of the key in.
    pub fn rotate(&self) -> anyhow::Result<()> {
        put_key("rotate", &self.variables, &self.upstream)
    }
}

/// `tacit key add` or `tacit key rotate`.
fn put_key(verb: &str, variables: &[(String, String)], upstream: &Fixed) -> anyhow::Result<()> {
    let mut command = Command::new(bin("tacit")?);
    command.args(["key", verb, KEY, "--provider", "openai", "--upstream"]);
    command.arg(upstream.url());
    command.arg(match verb {
        "add" => "--no-test",
        // A daemon that was restarted waits for leases of its earlier run.
        _ => "--no-wait",
    });
    for (name, value) in variables {
        command.env(name, value);
    }
    let output = tests::stack::run(
        command,
        fixture::key(::tests::upstream::Provider::OpenAi).as_bytes(),
    )?;
    ensure!(
        output.status.success(),
        "tacit key {verb}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

impl Daemon {
    fn start(binary: &str, name: &str, config: &Path, dir: &Path) -> anyhow::Result<Self> {
        let announcement = dir.join(format!("{name}.json"));
        let notices = Notices::at(&dir.join(format!("{name}.notify")))?;
        let mut command = Command::new(bin(binary)?);
        command
            .arg("--config")
            .arg(config)
            .arg("--announce")
            .arg(&announcement)
            .env("NOTIFY_SOCKET", notices.path());
        let started = Instant::now();
        let process = Process::start(name, command, dir)?;
        Ok(Daemon {
            process,
            notices,
            started,
            announcement,
            addresses: Value::Null,
        })
    }

    /// When all its sockets were bound.
    pub fn bound(&mut self) -> anyhow::Result<Instant> {
        self.said("READY=1")
    }

    /// When `/ready` turned to yes.
    pub fn ready(&mut self) -> anyhow::Result<Instant> {
        self.said("STATUS=ready")
    }

    fn said(&mut self, line: &str) -> anyhow::Result<Instant> {
        let when = self.notices.wait(line);
        let when = when.with_context(|| self.process.output().1)?;
        self.addresses = serde_json::from_slice(&std::fs::read(&self.announcement)?)?;
        Ok(when)
    }

    /// An address that it announced.
    pub fn address(&self, field: &str) -> anyhow::Result<&str> {
        let address = self.addresses[field].as_str();
        address.context("no such address announced")
    }
}
