//! The daemons as a user runs them: `tacit dev` for the whole, `tacit-agent` alone where its own
//! behaviour is the subject. Every stack has its own directory, its own tokens and free ports.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::Post;
use crate::http;
use crate::process::{Process, bin, descendants_running, eventually};
use crate::tap::Tap;

/// One route of an agent under test.
#[derive(Clone, Debug)]
pub struct Route {
    /// Provider, as in the path prefix.
    pub provider: String,
    /// Where its key comes from, as in `secret_key_ref`.
    pub key: KeyRef,
    /// Where it leads; `None` for the stack's one upstream.
    pub upstream: Option<String>,
}

/// `secret_key_ref`.
#[derive(Clone, Debug)]
pub enum KeyRef {
    /// In the daemon's store.
    Store(String),
    /// In a file, for an agent without daemon.
    File(PathBuf),
}

impl Route {
    /// A route to a key in the store.
    pub fn store(provider: &str, id: &str) -> Self {
        Route {
            provider: provider.to_owned(),
            key: KeyRef::Store(id.to_owned()),
            upstream: None,
        }
    }

    /// A route to a key in a file.
    pub fn file(provider: &str, path: impl Into<PathBuf>) -> Self {
        Route {
            provider: provider.to_owned(),
            key: KeyRef::File(path.into()),
            upstream: None,
        }
    }

    /// The same, leading to an upstream of its own.
    #[must_use]
    pub fn to(mut self, upstream: String) -> Self {
        self.upstream = Some(upstream);
        self
    }
}

/// The `[providers.…]` tables that send these routes to a test provider.
fn provider_tables(routes: &[Route], upstream: &str, ca: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for Route {
        provider,
        key,
        upstream: own,
    } in routes
    {
        let upstream = own.as_deref().unwrap_or(upstream);
        let key = match key {
            KeyRef::Store(id) => format!("store = \"{id}\""),
            KeyRef::File(path) => format!("file = \"{}\"", path.display()),
        };
        writeln!(text, "[providers.{provider}]\nsecret_key_ref = {{ {key} }}")?;
        writeln!(
            text,
            "base_url = \"{upstream}\"\nca_file = \"{}\"\n",
            ca.display()
        )?;
    }
    Ok(text)
}

/// An agent without daemon: keys from files.
pub struct LoneAgent {
    /// The process.
    pub process: Process,
    /// `http://127.0.0.1:PORT`, for apps.
    pub url: String,
    /// `http://127.0.0.1:PORT`, for operators.
    pub admin: String,
    /// `https://127.0.0.1:PORT`, for apps that insist, when `[tls]` is configured.
    pub tls: Option<String>,
}

impl LoneAgent {
    /// Starts one in `dir`, with its routes leading to `upstream`.
    pub fn start(dir: &Path, routes: &[Route], upstream: &str, ca: &Path) -> anyhow::Result<Self> {
        Self::start_with(dir, "", routes, upstream, ca)
    }

    /// The same, with `more` tables in its file.
    pub fn start_with(
        dir: &Path,
        more: &str,
        routes: &[Route],
        upstream: &str,
        ca: &Path,
    ) -> anyhow::Result<Self> {
        let head = format!(
            "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nhsmd = [\"{0}/none.sock\"]\ncustodians = \"{0}/none.json\"\n\n",
            dir.display()
        );
        let (config, announce) = (dir.join("agent.toml"), dir.join("agent.json"));
        let tables = provider_tables(routes, upstream, ca)?;
        std::fs::write(&config, head + more + &tables)?;
        let mut command = Command::new(bin("tacit-agent")?);
        command.arg("--config").arg(&config);
        command.arg("--announce").arg(&announce);
        let mut process = Process::start("agent", command, dir)?;
        // The ports are the kernel's choice; the agent says them once all are bound.
        let addresses: Value = eventually("the agent announces its addresses", || {
            let said = std::fs::read(&announce).ok();
            match said.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
                Some(addresses) => Some(Ok(addresses)),
                None => match process.try_exit() {
                    Ok(None) => None,
                    _ => Some(Err(anyhow::anyhow!(
                        "the agent ended: {}",
                        process.output().1
                    ))),
                },
            }
        })??;
        let at = |name: &str| {
            let address = addresses[name].as_str();
            address.with_context(|| format!("no {name} was announced"))
        };
        Ok(LoneAgent {
            url: format!("http://{}", at("listen")?),
            admin: format!("http://{}", at("admin_listen")?),
            tls: at("tls_listen")
                .ok()
                .map(|address| format!("https://{address}")),
            process,
        })
    }
}

/// The whole of it, under `tacit dev`.
pub struct Stack {
    /// Before the directory, so that it is dropped first: daemons that still write would keep it from being removed.
    process: Process,
    dir: TempDir,
    ready: Value,
    taps: Option<Taps>,
}

/// Whether every byte on the daemon's sockets is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// Agent and command speak to the daemon itself.
    Direct,
    /// They speak through taps.
    Tapped,
}

struct Taps {
    workload: Tap,
    admin: Tap,
    admin_path: PathBuf,
}

impl Stack {
    /// Starts everything on fresh tokens, with the agent's routes leading to `upstream`.
    pub fn start(
        routes: &[Route],
        upstream: &str,
        ca: &Path,
        lease_ttl: &str,
        sockets: Sockets,
    ) -> anyhow::Result<Self> {
        Self::start_with("", routes, upstream, ca, lease_ttl, sockets)
    }

    /// The same, with `more` tables in the agent's file.
    pub fn start_with(
        more: &str,
        routes: &[Route],
        upstream: &str,
        ca: &Path,
        lease_ttl: &str,
        sockets: Sockets,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tacit-stack-").tempdir()?;
        let mut stack = Self::run(dir)?;
        // The routes are an operator's edit of the agent's file; a restart reads them, and shows that the
        // directory keeps its state.
        let config = stack.path("agent_config")?;
        let tables = format!("{more}\n[lease]\nttl = \"{lease_ttl}\"\n\n")
            + &provider_tables(routes, upstream, ca)?;
        let mut edited = with_tables(&std::fs::read_to_string(&config)?, &tables);
        let mut taps = None;
        if sockets == Sockets::Tapped {
            let tap = |name: &str| {
                let path = stack.dir.path().join(format!("{name}.tap"));
                Ok::<_, anyhow::Error>((Tap::start(&path, &stack.path(name)?)?, path))
            };
            let (workload, admin) = (tap("hsmd_socket")?, tap("admin_socket")?);
            edited = with_line(&edited, "hsmd", &format!("[\"{}\"]", workload.1.display()));
            taps = Some(Taps {
                workload: workload.0,
                admin: admin.0,
                admin_path: admin.1,
            });
        }
        stack.process.terminate()?;
        std::fs::write(&config, &edited)?;
        let mut stack = Self::run(stack.dir)?;
        ensure!(
            std::fs::read_to_string(&config)? == edited,
            "`tacit dev` has overwritten the operator's agent.toml"
        );
        if let Some(taps) = &taps {
            stack.ready["env"]["TACIT_ADMIN_SOCKET"] = taps.admin_path.display().to_string().into();
        }
        stack.taps = taps;
        Ok(stack)
    }

    /// Everything that went through the daemon's sockets, when they are tapped: workload, then admin.
    pub fn tapped(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        self.taps
            .as_ref()
            .map(|taps| (taps.workload.bytes(), taps.admin.bytes()))
    }

    /// Ends everything in order and starts it again on the same directory.
    pub fn restart(mut self) -> anyhow::Result<Self> {
        let status = self.process.terminate()?;
        ensure!(status.success(), "`tacit dev` ended with {status}");
        Self::run(self.dir)
    }

    /// The same, with an edit of the operator's while nothing runs.
    pub fn restart_edited(
        mut self,
        edit: impl FnOnce(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let status = self.process.terminate()?;
        ensure!(status.success(), "`tacit dev` ended with {status}");
        edit(&self)?;
        Self::run(self.dir)
    }

    /// Ends everything in order and leaves the place to daemons alone.
    pub fn into_post(mut self) -> anyhow::Result<Post> {
        let variables = self.ready["env"]
            .as_object()
            .context("the ready line has no env")?;
        let environment = variables
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
        let (environment, config) = (environment.collect(), self.path("hsmd_config")?);
        let status = self.process.terminate()?;
        ensure!(status.success(), "`tacit dev` ended with {status}");
        Ok(Post::new(self.dir, config, environment))
    }

    /// On fresh tokens, with the agent as `tacit dev` sets it up.
    pub fn plain() -> anyhow::Result<Self> {
        Self::run(tempfile::Builder::new().prefix("tacit-stack-").tempdir()?)
    }

    fn run(dir: TempDir) -> anyhow::Result<Self> {
        let mut command = Command::new(bin("tacit")?);
        command
            .args(["dev", "--listen", "127.0.0.1:0", "--json", "--dir"])
            .arg(dir.path().join("dev"));
        // Everything that may be said is said: the canary reads these logs.
        command.env("TACIT_LOG", "trace");
        let mut process = Process::start("dev", command, dir.path())?;
        let ready = process.json_line()?;
        Ok(Stack {
            dir,
            process,
            ready,
            taps: None,
        })
    }

    /// The stack's directory: state, tokens, configuration, logs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process of `tacit dev`.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A text of the ready line.
    pub fn field(&self, name: &str) -> anyhow::Result<&str> {
        self.ready[name]
            .as_str()
            .with_context(|| format!("the ready line has no {name}: {}", self.ready))
    }

    /// A path of the ready line.
    pub fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.field(name).map(PathBuf::from)
    }

    /// `http://127.0.0.1:PORT`, for apps.
    pub fn agent(&self) -> anyhow::Result<&str> {
        self.field("agent")
    }

    /// Waits until the agent says that it is ready: it has a lease for each of its keys, or could have.
    pub fn agent_ready(&self) -> anyhow::Result<()> {
        let url = format!("{}/ready", self.field("agent_admin")?);
        eventually("the agent is ready", || {
            http::get(&url)
                .ok()
                .filter(|answer| answer.status == 200)
                .map(|_| ())
        })
    }

    /// The process ids of one of our binaries in this stack.
    pub fn pids(&self, binary: &str) -> Vec<u32> {
        descendants_running(self.process.pid(), binary)
    }

    /// The one process of this binary.
    pub fn pid(&self, binary: &str) -> anyhow::Result<u32> {
        let pids = self.pids(binary);
        ensure!(pids.len() == 1, "{} processes of {binary}", pids.len());
        Ok(pids[0])
    }

    /// `tacit ARGUMENTS`, as the operator of this stack, with `input` on standard input.
    pub fn tacit(&self, arguments: &[&str], input: &[u8]) -> anyhow::Result<Output> {
        run(self.command(arguments)?, input)
    }

    /// The same, which must succeed, with its JSON output.
    pub fn tacit_json(&self, arguments: &[&str], input: &[u8]) -> anyhow::Result<Value> {
        let output = self.tacit(&[arguments, &["--output", "json"]].concat(), input)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "tacit {arguments:?}: {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("no JSON: {}", text(&output.stdout)))
    }

    /// A variable that the operator of this stack works with (`TACIT_TRUST` …).
    pub fn environment(&self, name: &str) -> anyhow::Result<&str> {
        self.ready["env"][name]
            .as_str()
            .with_context(|| format!("the ready line's env has no {name}"))
    }

    /// That command, not yet started.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(bin("tacit")?);
        command.args(arguments);
        let variables = self.ready["env"]
            .as_object()
            .context("the ready line has no env")?;
        for (name, value) in variables {
            command.env(name, value.as_str().context("variables are texts")?);
        }
        Ok(command)
    }
}

/// Runs a command to its end with this input.
pub fn run(mut command: Command, input: &[u8]) -> anyhow::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    // A command that refuses its arguments ends without reading: its exit code says so.
    let _ = stdin.write_all(input);
    drop(stdin);
    Ok(child.wait_with_output()?)
}

/// The file with its lease and provider tables replaced.
fn with_tables(config: &str, tables: &str) -> String {
    let mut kept = String::new();
    let mut replaced = false;
    for line in config.lines() {
        if line.trim_start().starts_with('[') {
            let name = line.trim_start().trim_start_matches('[').trim_start();
            replaced = name.starts_with("providers.") || name.starts_with("lease]");
        }
        if !replaced {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept + "\n" + tables
}

/// The file with the value of one top-level field replaced.
fn with_line(config: &str, field: &str, value: &str) -> String {
    let replace = |line: &str| match line.split_once('=') {
        Some((name, _)) if name.trim() == field => format!("{field} = {value}\n"),
        _ => format!("{line}\n"),
    };
    config.lines().map(replace).collect()
}

/// The TCP ports of loopback and wildcard on which a process listens.
pub fn listening_ports(pid: u32) -> Vec<u16> {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let sockets: Vec<String> = descriptors
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            let listening = *state == "0A" && sockets.iter().any(|socket| socket == inode);
            listening.then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_lease_and_provider_tables_and_nothing_else() {
        let config = "listen = \"x\"\n[providers.openai]\nsecret_key_ref = { store = \"a\" }\n\n[lease]\nttl = \"9s\"\n[other]\ny = 1\n[providers.b.c]\nz = 1\n";
        let edited = with_tables(config, "[providers.openai]\nnew = 1\n");
        assert_eq!(
            edited,
            "listen = \"x\"\n[other]\ny = 1\n\n[providers.openai]\nnew = 1\n"
        );
    }
}
