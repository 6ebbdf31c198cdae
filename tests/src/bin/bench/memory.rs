//! What processes hold and use: resident and proportional memory, and CPU time.

use std::time::Duration;

use anyhow::Context as _;
use nix::time::ClockId;
use nix::unistd::Pid;
use tests::process::descendants_running;

use crate::figure::{Figure, Goal};

/// How long the daemons rest before they are looked at.
pub const REST: Duration = Duration::from_secs(10);

const MIB: f64 = 1024.0;
const LIMIT: Goal = Goal::AtMost(12.0);

/// The memory of both daemons and of the token processes.
pub fn measure(section: &'static str, hsmd: u32, agent: u32) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    figures.extend(of(section, "hsmd", hsmd, Some(LIMIT))?);
    figures.extend(of(section, "tacit-agent", agent, Some(LIMIT))?);
    let mut tokens = descendants_running(hsmd, "tacit-token");
    tokens.sort_unstable();
    for (number, pid) in (1..).zip(tokens) {
        figures.extend(of(section, &format!("tacit-token {number}"), pid, None)?);
    }
    Ok(figures)
}

fn of(
    section: &'static str,
    name: &str,
    pid: u32,
    goal: Option<Goal>,
) -> anyhow::Result<Vec<Figure>> {
    // Of a process that forbids dumps only root may read the rollup; what everybody may read has no PSS.
    let (text, has_pss) = match std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        Ok(text) => (text, true),
        Err(_) => (
            std::fs::read_to_string(format!("/proc/{pid}/status"))?,
            false,
        ),
    };
    let mib = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.map(|kib| kib / MIB)
            .with_context(|| format!("{name}: the kernel names no {field}"))
    };
    let rss = mib(if has_pss { "Rss:" } else { "VmRSS:" })?;
    let mut figure = Figure::new(section, format!("{name}, RSS"), rss, "MiB");
    if let Some(goal) = goal {
        figure = figure.goal(goal);
    }
    let mut figures = vec![figure];
    if has_pss {
        let (pss, own) = (mib("Pss:")?, mib("Pss_Anon:")?);
        figures.push(Figure::new(section, format!("{name}, PSS"), pss, "MiB"));
        figures.push(Figure::new(
            section,
            format!("{name}, own pages (anonymous)"),
            own,
            "MiB",
        ));
    }
    Ok(figures)
}

/// Resident memory of a process in KiB, cheap enough to ask every second.
pub fn rss_kib(pid: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .context("the kernel names no VmRSS")
}

/// Microseconds of CPU, user and system, that a process has used in all its threads.
pub fn cpu_us(pid: u32) -> anyhow::Result<f64> {
    // The scheduler's own account in nanoseconds; `/proc/PID/stat` counts in hundredths of a second.
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(i32::try_from(pid)?))?;
    Ok(Duration::from(clock.now()?).as_secs_f64() * 1e6)
}
