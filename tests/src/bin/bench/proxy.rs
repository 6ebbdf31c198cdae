//! The agent beside nginx, which does the least that a proxy with a key could do: same requests, same provider, rounds in turn.
//!
//! Closed loop: `wrk` keeps 32 connections busy, so that the proxy has as much to do as it can take. Open loop: a fixed rate, as in `load`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use tests::fixture;

use crate::figure::{Figure, Goal, median};
use crate::load::{self, CONNECTIONS, Target};
use crate::memory;
use crate::nginx::{self, Nginx};
use crate::rig::{Daemon, Rig};

const CLOSED: &str = "Beside nginx: closed loop, 32 connections (wrk)";
const OPEN: &str = "Beside nginx: open loop, 32 connections, 3000 requests/s";
const ROUNDS: usize = 5;
const RATE: u32 = 3000;
/// No more than nginx.
const GOAL: Goal = Goal::ShareAtMost(1.0);

/// What is missing for this section.
pub fn missing() -> Option<&'static str> {
    match (nginx::installed(), wrk()) {
        (None, _) => Some("nginx"),
        (_, None) => Some("wrk"),
        (Some(_), Some(_)) => None,
    }
}

fn wrk() -> Option<PathBuf> {
    ["/usr/bin/wrk", "/usr/local/bin/wrk"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())
}

/// One of the two.
struct Proxy {
    address: SocketAddr,
    pid: u32,
    rounds: Vec<Round>,
}

struct Round {
    cpu_us: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Measures an agent that is up and has a lease.
pub fn measure(rig: &Rig, agent: &Daemon) -> anyhow::Result<Vec<Figure>> {
    let mut nginx = Nginx::start(rig)?;
    let mut ours = Proxy {
        address: agent.address("listen")?.parse()?,
        pid: agent.process.pid(),
        rounds: Vec::new(),
    };
    let mut theirs = Proxy {
        address: nginx.address,
        pid: nginx.worker,
        rounds: Vec::new(),
    };
    let script = rig.dir().join("post.lua");
    let mut figures = Vec::new();
    for (section, run) in [
        (CLOSED, Proxy::closed as fn(&Proxy, &PathBuf) -> _),
        (OPEN, |proxy, _| proxy.open()),
    ] {
        for _ in 0..ROUNDS {
            for proxy in [&mut theirs, &mut ours] {
                let round = run(proxy, &script)?;
                proxy.rounds.push(round);
            }
        }
        figures.extend(compared(section, &ours, &theirs));
        ours.rounds.clear();
        theirs.rounds.clear();
    }
    nginx.process.terminate()?;
    Ok(figures)
}

fn compared(section: &'static str, ours: &Proxy, theirs: &Proxy) -> Vec<Figure> {
    let figure = |name: &str, unit, what: fn(&Round) -> f64| {
        let of = |proxy: &Proxy| median(proxy.rounds.iter().map(what).collect());
        Figure::new(section, name, of(ours), unit).beside("nginx", of(theirs))
    };
    vec![
        figure("CPU per request", "µs", |round| round.cpu_us).goal(GOAL),
        match section {
            CLOSED => figure("requests/s", "/s", |round| round.per_second),
            _ => figure("p50", "µs", |round| round.p50_us),
        },
        match section {
            CLOSED => figure("p99", "µs", |round| round.p99_us),
            _ => figure("p99", "µs", |round| round.p99_us).goal(GOAL),
        },
    ]
}

impl Proxy {
    fn open(&self) -> anyhow::Result<Round> {
        let before = memory::cpu_us(self.pid)?;
        let (measured, requests) = load::counted(RATE, &Target::Proxy(self.address))?;
        Ok(Round {
            cpu_us: (memory::cpu_us(self.pid)? - before) / requests,
            per_second: f64::from(RATE),
            p50_us: measured.p50,
            p99_us: measured.p99,
        })
    }

    fn closed(&self, script: &PathBuf) -> anyhow::Result<Round> {
        std::fs::write(script, self.script())?;
        let before = memory::cpu_us(self.pid)?;
        let output = Command::new(wrk().context("wrk is not installed")?)
            .args(["-t1", "-d4s", "--latency", "-c"])
            .arg(CONNECTIONS.to_string())
            .arg("-s")
            .arg(script)
            .arg(format!("http://{}/openai/v1/embeddings", self.address))
            .output()?;
        let used = memory::cpu_us(self.pid)? - before;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && !said.contains("Non-2xx") && !said.contains("Socket errors"),
            "wrk: {said}"
        );
        let report =
            |what| report(&said, what).with_context(|| format!("wrk says no {what}: {said}"));
        let requests = report("answers")?;
        ensure!(requests > 0.0, "nothing was answered");
        Ok(Round {
            cpu_us: used / requests,
            per_second: report("per_second")?,
            p50_us: report("p50_us")?,
            p99_us: report("p99_us")?,
        })
    }

    /// The request of the open loop, for `wrk`, which adds Host and Content-Length itself. Constant, so that no script runs per request.
    fn script(&self) -> String {
        let request = load::request(&self.address.to_string(), "/openai", fixture::PLACEHOLDER);
        let request = String::from_utf8_lossy(&request);
        let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        format!(
            "wrk.method = \"POST\"\nwrk.body = '{body}'\nwrk.headers[\"authorization\"] = \"Bearer {}\"\n\
             done = function(summary, latency)\n\
             io.write(string.format(\"answers=%d\\nper_second=%f\\np50_us=%f\\np99_us=%f\\n\", summary.requests, \
             summary.requests / summary.duration * 1e6, latency:percentile(50), latency:percentile(99)))\nend\n",
            fixture::PLACEHOLDER
        )
    }
}

fn report(said: &str, what: &str) -> Option<f64> {
    said.lines()
        .find_map(|line| line.strip_prefix(what)?.strip_prefix('=')?.parse().ok())
}
