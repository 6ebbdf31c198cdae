//! The built `tacit-agent`, with a configuration of the test's own.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::http;
use crate::process::{Process, bin, eventually};

/// One route of a configuration.
pub struct Route<'a> {
    /// Provider, as in the path prefix.
    pub provider: &'a str,
    /// `base_url`.
    pub base_url: &'a str,
    /// `ca_file`.
    pub ca: &'a Path,
    /// The file with its key.
    pub key: &'a Path,
}

/// The text of a configuration with these routes.
pub fn config(routes: &[Route<'_>]) -> String {
    let mut text = "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nhsmd = [\"/nonexistent/none.sock\"]\ncustodians = \"/nonexistent/none.json\"\n".to_owned();
    for route in routes {
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "[providers.{}]\nbase_url = \"{}\"\nca_file = {:?}\nsecret_key_ref = {{ file = {:?} }}\n",
            route.provider, route.base_url, route.ca, route.key
        );
    }
    text
}

/// How the process is started.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Names that resolve differently for this agent: its own `/etc/hosts`.
    pub hosts: Option<String>,
    /// Descriptors that it may have open at once.
    pub descriptors: Option<u32>,
}

/// A running agent.
pub struct Agent {
    process: Process,
    /// Where apps connect.
    pub listen: SocketAddr,
    admin: SocketAddr,
}

impl Agent {
    /// Starts one whose files are in `dir`.
    pub fn start(dir: &Path, config: &str) -> Self {
        Self::start_in(dir, config, &Surroundings::default())
    }

    /// The same, in other surroundings.
    pub fn start_in(dir: &Path, config: &str, surroundings: &Surroundings) -> Self {
        let announcement = dir.join("announce.json");
        let mut command = command(dir, config, surroundings);
        command.arg("--announce").arg(&announcement);
        let mut process = Process::start("agent", command, dir).expect("the agent can be started");
        let text = eventually("the agent says where it listens", || {
            match process.try_exit() {
                Ok(None) => std::fs::read_to_string(&announcement).ok().map(Ok),
                _ => Some(Err(process.output().1)),
            }
        })
        .expect("an agent announces itself or ends")
        .unwrap_or_else(|log| panic!("the agent ended: {log}"));
        let addresses: serde_json::Value =
            serde_json::from_str(&text).expect("an announcement is JSON");
        let address = |name: &str| {
            addresses[name]
                .as_str()
                .and_then(|text| text.parse().ok())
                .unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        Agent {
            listen: address("listen"),
            admin: address("admin_listen"),
            process,
        }
    }

    /// `tacit-agent --check` over this configuration: its status and what it printed.
    pub fn check(dir: &Path, config: &str) -> Output {
        command(dir, config, &Surroundings::default())
            .arg("--check")
            .output()
            .expect("the agent can be started")
    }

    /// The sum of all series of one metric.
    pub fn metric(&self, name: &str) -> f64 {
        let text = http::get(&format!("http://{}/metrics", self.admin))
            .expect("metrics are served")
            .text();
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Returns when a metric is as it should be.
    pub async fn until(&self, name: &str, right: impl Fn(f64) -> bool) {
        super::patient(name, async {
            while !right(self.metric(name)) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()))
            .expect("the agent runs");
        let kilobytes: usize = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
            .expect("a process has resident memory");
        kilobytes * 1024
    }

    /// Asks it to end, as an orchestrator does.
    pub fn drain(&self) {
        self.process
            .signal(Signal::SIGTERM)
            .expect("the agent runs");
    }

    /// Waits for its end; whether it called that a success.
    pub fn ended_well(&mut self) -> bool {
        self.process.exit().expect("the agent ends").success()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let (stdout, stderr) = self.process.output();
        stdout + &stderr
    }
}

fn command(dir: &Path, config: &str, surroundings: &Surroundings) -> Command {
    let file: PathBuf = dir.join("agent.toml");
    std::fs::write(&file, config).expect("the test's directory can be written");
    let agent = bin("tacit-agent").expect("the agent is built");
    let mut command = match surroundings {
        Surroundings {
            hosts: None,
            descriptors: None,
        } => Command::new(agent),
        Surroundings {
            hosts: Some(hosts), ..
        } => {
            let table = dir.join("hosts");
            std::fs::write(&table, hosts).expect("the test's directory can be written");
            let mut command = Command::new("unshare");
            let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
            command.args(["--map-root-user", "--mount", "sh", "-c", script]);
            command.arg(table).arg(agent);
            command
        }
        Surroundings {
            hosts: None,
            descriptors: Some(limit),
        } => {
            let mut command = Command::new("sh");
            command.args(["-c", "ulimit -n \"$0\" && exec \"$@\""]);
            command.arg(limit.to_string()).arg(agent);
            command
        }
    };
    // All that may be said is said: the hunt reads the log too.
    command.env("TACIT_LOG", "trace");
    command.arg("--config").arg(&file);
    command
}

/// Whether this machine lets us give a process its own `/etc/hosts`.
pub fn may_have_own_hosts() -> bool {
    Command::new("unshare")
        .args(["--map-root-user", "--mount", "true"])
        .output()
        .is_ok_and(|output| output.status.success())
}
