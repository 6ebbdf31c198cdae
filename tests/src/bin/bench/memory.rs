//! What processes hold and use: resident and proportional memory, and CPU time.

use std::time::Duration;

use anyhow::Context as _;
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

/// Microseconds of CPU, user and system, that a process has used.
pub fn cpu_us(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold blanks, so fields count from the last `)`.
    let fields = stat.rsplit_once(')').context("a name in parentheses")?.1;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| -> anyhow::Result<f64> {
        let field = fields.get(at).context("stat has all fields")?;
        Ok(field.parse()?)
    };
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?
        .context("the kernel has a clock tick")?;
    #[expect(clippy::cast_precision_loss, reason = "ticks per second are a hundred")]
    let per_second = per_second as f64;
    Ok((ticks(11)? + ticks(12)?) / per_second * 1e6)
}
