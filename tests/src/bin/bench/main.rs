//! `make bench`: what the programs cost, each figure beside a raw one of the same run.
//!
//! It measures the built binaries from outside, as they ship, on a SoftHSM of its own, and leaves nothing running. Machines
//! are shared and noisy: all figures are medians of several rounds, raw and measured rounds take turns, and what counts
//! is the ratio. `bench [--json] [SECTION…]`, with sections from: token, start, memory, leases, first, load, proxy, streams, fresh,
//! revoke.

#![forbid(unsafe_code)]

mod events;
mod figure;
mod fresh;
mod leases;
mod load;
mod memory;
mod nginx;
mod proxy;
mod ready;
mod revoke;
mod rig;
mod start;
mod streams;
mod token;
mod upstream;

use std::io::Write as _;
use std::net::TcpStream;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use figure::Figure;
use rig::{Daemon, Rig};

const SECTIONS: [&str; 10] = [
    "token", "start", "memory", "leases", "first", "load", "proxy", "streams", "fresh", "revoke",
];
const USAGE: &str =
    "bench [--json] [token|start|memory|leases|first|load|proxy|streams|fresh|revoke]...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [raw, module, pin_file, scratch, label] = arguments.as_slice()
        && raw == "raw"
    {
        return ended(
            token::raw(module, pin_file, scratch, label).map(|rate| say(&rate.to_string())),
        );
    }
    let json = arguments.iter().any(|argument| argument == "--json");
    let wanted: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| *argument != "--json")
        .collect();
    if let Some(unknown) = wanted.iter().find(|name| !SECTIONS.contains(name)) {
        let _ = writeln!(std::io::stderr(), "bench: no section {unknown}; {USAGE}");
        return ExitCode::from(2);
    }
    let wants = |section: &str| wanted.is_empty() || wanted.contains(&section);
    let before = machine();
    ended(measure(wants).map(|figures| {
        let machine = format!("{before} before, {} after", machine());
        say(&if json {
            figure::as_json(&machine, &figures).to_string()
        } else {
            format!("{machine}\n{}", figure::as_table(&figures))
        });
    }))
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // A reader that went away is no reason to stop half-way and leave processes behind.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What the figures must be read with: cores, and how many tasks of others wanted them.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{cores} cores, Linux {}, load {}",
        release.trim(),
        load.split(' ').next().unwrap_or_default()
    )
}

fn progress(what: &str) {
    let _ = writeln!(std::io::stderr(), "bench: {what} …");
}

fn measure(wants: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    streams::raise_descriptors()?;
    let mut figures = Vec::new();
    if wants("token") {
        progress("token process");
        figures.extend(runtime.block_on(token::measure())?);
    }
    progress("three tokens, hsmd, tacit-agent and a key");
    let rig = Rig::new()?;
    if wants("start") {
        progress("starts of hsmd");
        figures.extend(start::hsmd(&rig)?);
    }
    let mut hsmd = rig.hsmd()?;
    hsmd.ready()?;
    let mut agent = rig.agent(&rig.socket)?;
    agent.ready()?;
    one_request(&agent)?;
    if wants("memory") {
        progress("10 s of rest, then memory");
        std::thread::sleep(memory::REST);
        figures.extend(memory::measure(
            "Memory after 10 s of rest (ready, one request done)",
            hsmd.process.pid(),
            agent.process.pid(),
        )?);
    }
    if wants("first") {
        progress("starts of tacit-agent");
        figures.extend(start::first_request(&rig)?);
    }
    if wants("leases") {
        progress("leases");
        figures.extend(runtime.block_on(leases::measure(&rig))?);
    }
    if wants("load") {
        progress("requests at fixed rates");
        figures.extend(load::measure(&rig, &agent)?);
    }
    if wants("proxy") {
        match proxy::missing() {
            None => {
                progress("the agent beside nginx");
                figures.extend(proxy::measure(&rig, &agent)?);
            }
            Some(program) => progress(&format!("{program} is not installed, so no section proxy")),
        }
    }
    if wants("streams") {
        progress("a thousand streams for a minute");
        figures.extend(runtime.block_on(streams::measure(&rig, &agent))?);
    }
    if wants("fresh") {
        progress("an agent that keeps no lease");
        figures.extend(runtime.block_on(fresh::measure(&rig, &agent))?);
    }
    if wants("revoke") {
        progress("a hundred agents, and revokes");
        figures.extend(runtime.block_on(revoke::measure(&rig))?);
    }
    for daemon in [&mut agent, &mut hsmd] {
        let status = daemon.process.terminate()?;
        if !status.success() {
            bail!(
                "a daemon ended with {status}: {}",
                daemon.process.output().1
            );
        }
    }
    Ok(figures)
}

/// So that the agent has a lease and a connection.
fn one_request(agent: &Daemon) -> anyhow::Result<()> {
    let mut app = TcpStream::connect(agent.address("listen")?)?;
    app.write_all(&load::request("127.0.0.1", "/openai", "sk-placeholder"))?;
    load::answer(&mut app, &mut Vec::new()).context("the first request")?;
    Ok(())
}
