//! What the processes of this machine have given up: by the daemon's own word, and by the kernel's, which an attacker who
//! speaks for a process cannot change.

use std::path::Path;

use proto::v1::{AgentStatus, StatusResponse};

use super::report::Report;

/// What the kernel says of a process that anybody may read, `/proc/PID/status` and `/proc/PID/limits`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    name: String,
    no_new_privs: bool,
    filtered: bool,
    /// Permitted, effective, inheritable and ambient, together.
    capabilities: u64,
    /// The limit of core files is 0, soft and hard.
    no_core: bool,
}

/// Binding ports below 1024: what an agent or a daemon keeps that is configured to.
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
/// Giving the workload socket to `workload_group`: what a daemon keeps that runs as root.
const CAP_CHOWN: u64 = 1;

impl Facts {
    pub(super) fn parse(status: &str, limits: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map_or("", str::trim)
        };
        let set = |name| u64::from_str_radix(field(name), 16).unwrap_or(u64::MAX);
        let core = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max core file size"))
            .map(|rest| rest.split_whitespace().take(2).collect::<Vec<_>>());
        Self {
            name: field("Name:").to_owned(),
            no_new_privs: field("NoNewPrivs:") == "1",
            filtered: field("Seccomp:") == "2",
            capabilities: set("CapPrm:") | set("CapEff:") | set("CapInh:") | set("CapAmb:"),
            no_core: core.is_some_and(|both| both == ["0", "0"]),
        }
    }

    /// Of a running process; nothing where it is not on this machine, or hidden.
    fn of(pid: u32) -> Option<Self> {
        let read =
            |name| std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(name));
        Some(Self::parse(&read("status").ok()?, &read("limits").ok()?))
    }

    /// What is missing, in words.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if !self.no_core {
            missing.push("may leave a core file");
        }
        if !self.no_new_privs {
            missing.push("may gain privileges");
        }
        if self.capabilities & !(CAP_NET_BIND_SERVICE | CAP_CHOWN) != 0 {
            missing.push("has capabilities");
        }
        if !self.filtered {
            missing.push("has no system call filter");
        }
        missing
    }
}

/// The daemon's own word.
pub(super) fn check_measures(report: &mut Report, status: &StatusResponse) {
    const NAME: &str = "hardening";
    if status.hardening.is_empty() {
        return report.warn(
            NAME,
            "hsmd does not say what it has given up",
            "upgrade hsmd",
        );
    }
    let lacking: Vec<String> = status
        .hardening
        .iter()
        .filter(|one| !one.holds)
        .map(|one| format!("{} {}", one.measure, one.state))
        .collect();
    match lacking.is_empty() {
        true => {
            let all: Vec<&str> = status
                .hardening
                .iter()
                .map(|one| one.measure.as_str())
                .collect();
            report.ok(NAME, format!("hsmd holds {}", all.join(", ")));
        }
        false => report.warn(
            NAME,
            format!("hsmd: {}", lacking.join("; ")),
            "docs/hardening.md says what each measure needs",
        ),
    }
}

/// The kernel's word on the daemon, its token processes and its agents, as far as they run on this machine.
pub(super) fn check_processes(
    report: &mut Report,
    daemon: Option<u32>,
    status: &StatusResponse,
    agents: &[AgentStatus],
) {
    const NAME: &str = "processes";
    let tokens = status.custodians.iter().map(|one| {
        (
            one.pid,
            "tacit-token",
            format!("the token process of {}", one.id),
        )
    });
    let agents = agents
        .iter()
        .filter(|one| one.connected)
        .map(|one| (one.pid, "tacit-agent", format!("agent {}", one.name)));
    let daemon = daemon.map(|pid| (pid, "hsmd", "hsmd".to_owned()));
    let mut seen = 0;
    for (pid, name, who) in daemon.into_iter().chain(tokens).chain(agents) {
        // Another name: the number is of another machine, or of another container.
        let Some(facts) = Facts::of(pid).filter(|facts| pid > 0 && facts.name == name) else {
            continue;
        };
        seen += 1;
        let missing = facts.missing();
        if !missing.is_empty() {
            report.warn(
                NAME,
                format!("{who} (pid {pid}) {}", missing.join(", ")),
                "its log says why, at its start; docs/hardening.md says what to do",
            );
        }
    }
    if seen > 0 && report.0.iter().all(|check| check.name != NAME) {
        let finding = format!(
            "{seen} of ours run here: no core files, no way to privileges, no capabilities, filtered system calls"
        );
        report.ok(NAME, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    const STATUS: &str = "Name:\ttacit-agent\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
        CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n\
        Seccomp_filters:\t2\n";
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
        Max core file size        0                    0                    bytes\n";

    #[test]
    fn each_thing_that_a_process_kept_is_named_and_a_low_port_is_no_fault() {
        let facts = |status: &str, limits: &str| Facts::parse(status, limits).missing();
        assert!(facts(STATUS, LIMITS).is_empty());
        let eff = "CapEff:\t0000000000000000";
        let low_port = STATUS.replace(eff, "CapEff:\t0000000000000400");
        assert!(facts(&low_port, LIMITS).is_empty());
        let tracer = STATUS.replace(eff, "CapEff:\t0000000000080000");
        assert_eq!(facts(&tracer, LIMITS), ["has capabilities"]);
        let free = STATUS.replace("Seccomp:\t2", "Seccomp:\t0");
        assert_eq!(facts(&free, LIMITS), ["has no system call filter"]);
        let core = LIMITS.replace(" 0                    0 ", " 0            unlimited ");
        assert_eq!(facts(STATUS, &core), ["may leave a core file"]);
        // What cannot be read is not taken for harmless.
        assert_eq!(facts("", "").len(), 4);
    }

    #[test]
    fn a_measure_that_does_not_hold_is_told_with_its_reason() {
        let measure = |holds| proto::v1::HardeningMeasure {
            measure: "landlock".to_owned(),
            holds,
            state: "unsupported by this kernel".to_owned(),
        };
        for (holds, verdict) in [(true, Verdict::Ok), (false, Verdict::Warn)] {
            let mut report = Report::default();
            let status = StatusResponse {
                hardening: vec![measure(holds)],
                ..StatusResponse::default()
            };
            check_measures(&mut report, &status);
            assert_eq!(report.0[0].verdict, verdict);
        }
    }
}
