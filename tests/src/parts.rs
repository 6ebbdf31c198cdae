//! Several daemons, each with one custodian of its own, and an agent that gathers shares across them: set up from an empty directory with
//! the commands of `docs/several-daemons.md`, each daemon a process of its own on a SoftHSM token of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::{self, PLACEHOLDER};
use crate::http;
use crate::process::{Process, bin, eventually};
use crate::scene;
use crate::stack;
use crate::upstream::{Provider, Upstream};

/// What hsmd.toml says besides its paths.
const HEAD: &str = "admin_listen = \"127.0.0.1:0\"\npart = true\n";
/// Everybody of this user may use every key for everything.
const DEFAULTS: &str = "[defaults]\nenvironments = [\"development\"]\nteams = [\"*\"]\nmodels = [\"*\"]\nupstreams = [\"*\"]\n";

/// One daemon that drives one custodian.
pub struct Part {
    dir: PathBuf,
    process: Option<Process>,
    starts: usize,
}

impl Part {
    /// The socket for operators.
    fn admin(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    fn workload(&self) -> PathBuf {
        self.dir.join("hsmd.sock")
    }

    fn trust(&self) -> PathBuf {
        self.dir.join("state/custodians.json")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("hsmd.toml")
    }

    /// The running daemon.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().context("the daemon runs")
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.starts += 1;
        let announce = self.dir.join("bound.json");
        let _ = std::fs::remove_file(&announce);
        let mut command = Command::new(bin("hsmd")?);
        command.arg("--config").arg(self.config());
        command.arg("--announce").arg(&announce);
        let name = format!("hsmd-{}", self.starts);
        let process = self
            .process
            .insert(Process::start(&name, command, &self.dir)?);
        eventually("the daemon is ready", || {
            if !matches!(process.try_exit(), Ok(None)) {
                return Some(Err(anyhow::anyhow!("it ended: {}", process.output().1)));
            }
            let bound: Value = serde_json::from_slice(&std::fs::read(&announce).ok()?).ok()?;
            let url = format!("http://{}/ready", bound["admin_listen"].as_str()?);
            (http::get(&url).ok()?.status == 200).then_some(Ok(()))
        })?
    }

    /// Ends it in order.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("the daemon runs")?;
        let status = process.terminate()?;
        ensure!(status.success(), "{status}: {}", process.output().1);
        Ok(())
    }
}

/// Daemons, an agent, and a test provider.
pub struct Parts {
    /// Before the directory, so that they end first.
    agent: Process,
    agent_url: String,
    agent_admin: String,
    /// The daemons.
    pub daemons: Vec<Part>,
    /// The provider.
    pub upstream: Upstream,
    dir: TempDir,
}

impl Parts {
    /// `threshold` of `count` custodians, each behind a daemon of its own; one key, and an agent that keeps leases for `ttl`.
    pub async fn start(threshold: u8, count: usize, ttl: &str) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tacit-parts-").tempdir()?;
        let upstream = Upstream::start(fixture::provider()).await?;
        upstream.write_ca(&dir.path().join("ca.pem"))?;
        let mut daemons = lay_out(dir.path(), threshold, count)?;
        trust_each_other(dir.path(), &daemons)?;
        for daemon in &mut daemons {
            daemon.start()?;
        }
        let agent = agent(dir.path(), &daemons, &upstream.url(), ttl)?;
        let parts = Parts {
            agent: agent.0,
            agent_url: agent.1,
            agent_admin: agent.2,
            daemons,
            upstream,
            dir,
        };
        parts.add()?;
        parts.agent_ready()?;
        Ok(parts)
    }

    /// Seals once, and gives each daemon the same sealed key.
    fn add(&self) -> anyhow::Result<()> {
        let id = Self::id();
        let url = self.upstream.url();
        let seal = [
            "key",
            "seal",
            &id,
            "--provider",
            "openai",
            "--upstream",
            &url,
        ];
        let sealed = stack::run(
            operator(self.dir.path(), None, &seal)?,
            fixture::key(Provider::OpenAi).as_bytes(),
        )?;
        ensure!(
            sealed.status.success(),
            "{}",
            String::from_utf8_lossy(&sealed.stderr)
        );
        std::fs::write(self.sealed_file(), &sealed.stdout)?;
        for at in 0..self.daemons.len() {
            self.add_at(at)?;
        }
        Ok(())
    }

    fn sealed_file(&self) -> PathBuf {
        self.dir.path().join("sealed")
    }

    /// Adds the sealed key at one daemon.
    pub fn add_at(&self, at: usize) -> anyhow::Result<Value> {
        let file = self.sealed_file();
        let file = file.to_str().context("temporary paths are text")?;
        let id = Self::id();
        self.tacit(at, &["key", "add", &id, "--sealed", file, "--no-test"])
    }

    /// The key's id.
    pub fn id() -> String {
        scene::id(Provider::OpenAi)
    }

    /// `tacit ARGUMENTS` at one daemon; it must succeed.
    pub fn tacit(&self, at: usize, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = stack::run(self.command(at, arguments)?, b"")?;
        ensure!(
            output.status.success(),
            "tacit {arguments:?} at {at}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).context("no JSON")
    }

    /// That command, not yet started.
    pub fn command(&self, at: usize, arguments: &[&str]) -> anyhow::Result<Command> {
        let arguments = [arguments, &["--output", "json"]].concat();
        operator(self.dir.path(), Some(&self.daemons[at]), &arguments)
    }

    /// One chat request of an app with a placeholder.
    pub fn chat(&self) -> anyhow::Result<http::Answer> {
        http::post(
            &format!("{}/openai/v1/chat/completions", self.agent_url),
            &format!("authorization: Bearer {PLACEHOLDER}\r\n"),
            &json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "one two"}]}),
        )
    }

    /// A value of the agent's metrics.
    pub fn metric(&self, name: &str) -> Option<i64> {
        let page = http::get(&format!("{}/metrics", self.agent_admin)).ok()?;
        let text = page.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    }

    /// Waits until the agent knows how many custodians may still fail.
    pub fn margin_becomes(&self, margin: i64) -> anyhow::Result<()> {
        eventually(&format!("the margin is {margin}"), || {
            let mut page = self.metric("tacit_agent_quorum_margin{threshold=\"2\"}");
            page.take_if(|now| *now == margin).map(drop)
        })
        .with_context(|| self.agent.output().1)
    }

    fn agent_ready(&self) -> anyhow::Result<()> {
        eventually("the agent is ready", || {
            let answer = http::get(&format!("{}/ready", self.agent_admin)).ok()?;
            (answer.status == 200).then_some(())
        })
        .with_context(|| self.agent.output().1)
    }
}

/// A directory, a token and a configuration for each; `hsmd init` makes the token's keys and a trust file of its own.
fn lay_out(dir: &Path, threshold: u8, count: usize) -> anyhow::Result<Vec<Part>> {
    let uid = nix::unistd::geteuid();
    let mut parts = Vec::new();
    for token in softhsm::up(&dir.join("tokens"), count)? {
        let part = Part {
            dir: dir.join(&token.id),
            process: None,
            starts: 0,
        };
        std::fs::create_dir_all(&part.dir)?;
        let own = part.dir.display();
        let config = format!(
            "state_dir = \"{own}/state\"\nworkload_socket = \"{}\"\nadmin_socket = \"{}\"\nthreshold = {threshold}\n{HEAD}{DEFAULTS}\
             [admin]\nuids = [{uid}]\n[[caller]]\nuid = {uid}\nenvironments = [\"development\"]\nteams = [\"*\"]\n\
             [[custodian]]\nid = \"{}\"\nmodule = \"{}\"\ntoken_label = \"{}\"\npin_file = \"{}\"\nenv = {{ SOFTHSM2_CONF = \"{}\" }}\n",
            part.workload().display(),
            part.admin().display(),
            token.id,
            token.module.display(),
            token.label,
            token.pin_file.display(),
            token.conf.display()
        );
        std::fs::write(part.config(), config)?;
        let mut init = Command::new(bin("hsmd")?);
        init.arg("init").arg("--config").arg(part.config());
        let output = stack::run(init, b"")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        parts.push(part);
    }
    Ok(parts)
}

/// One trust file of all custodians and the sealer, the same everywhere.
fn trust_each_other(dir: &Path, parts: &[Part]) -> anyhow::Result<()> {
    let must = |arguments: &[&str]| {
        let output = stack::run(operator(dir, None, arguments)?, b"")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tacit {arguments:?}: {said}");
        Ok(())
    };
    for part in parts {
        let from = part.trust().display().to_string();
        must(&["trust", "pin", "--from", &from, "--yes"])?;
    }
    must(&["sealer", "new", "--pin", "office"])?;
    for part in parts {
        std::fs::copy(dir.join("custodians.json"), part.trust())?;
    }
    Ok(())
}

fn operator(dir: &Path, part: Option<&Part>, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(bin("tacit")?);
    command
        .args(arguments)
        .env("TACIT_TRUST", dir.join("custodians.json"))
        .env("TACIT_SEALER", dir.join("sealer.key"));
    if let Some(part) = part {
        command.env("TACIT_ADMIN_SOCKET", part.admin());
    }
    Ok(command)
}

/// The agent, with the addresses for apps and for operators.
fn agent(
    dir: &Path,
    daemons: &[Part],
    upstream: &str,
    ttl: &str,
) -> anyhow::Result<(Process, String, String)> {
    let sockets: Vec<PathBuf> = daemons.iter().map(Part::workload).collect();
    let config = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nhsmd = {sockets:?}\ncustodians = {:?}\n[lease]\nttl = {ttl:?}\n\
         [providers.openai]\nsecret_key_ref = {{ store = {:?} }}\nbase_url = {upstream:?}\nca_file = {:?}\n",
        dir.join("custodians.json"),
        Parts::id(),
        dir.join("ca.pem")
    );
    let (file, announce) = (dir.join("agent.toml"), dir.join("agent.json"));
    std::fs::write(&file, config)?;
    let mut command = Command::new(bin("tacit-agent")?);
    command.arg("--config").arg(&file);
    command.arg("--announce").arg(&announce);
    let mut process = Process::start("agent", command, dir)?;
    let said: Value = eventually("the agent announces its addresses", || {
        let said = std::fs::read(&announce).ok();
        match said.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            Some(said) => Some(Ok(said)),
            None if matches!(process.try_exit(), Ok(None)) => None,
            None => Some(Err(anyhow::anyhow!("it ended: {}", process.output().1))),
        }
    })??;
    let at = |name: &str| {
        let address = said[name].as_str().context("an address is text")?;
        Ok::<_, anyhow::Error>(format!("http://{address}"))
    };
    Ok((process, at("listen")?, at("admin_listen")?))
}
