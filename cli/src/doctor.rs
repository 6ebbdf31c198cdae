//! `tacit doctor`: one check after another, each with what to do about it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use custody::Trust;
use nix::sys::resource::{Resource, getrlimit};
use proto::v1::{AgentStatus, ListAgentsRequest, StatusResponse};
use providers::Plausibility;
use serde_json::json;

use crate::Answer;
use crate::client::{self, Daemon, unary};
use crate::config::{Paths, credential_variable};
use crate::output::{Output, clean, now};
use crate::sealer;
use crate::trust::{self, Compared};

/// What an agent's arena needs at the least; below it the kernel's lock fails and the agent would not start.
const MEMLOCK_MIN_BYTES: u64 = 64 * 1024;

/// A daemon that claims to have started this much after now has another clock.
const CLOCK_SLACK_SECONDS: i64 = 5;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the report.
#[derive(Debug)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    finding: String,
    next: Option<String>,
}

#[derive(Debug, Default)]
struct Report(Vec<Check>);

impl Report {
    fn ok(&mut self, name: &'static str, finding: impl Into<String>) {
        self.add(name, Verdict::Ok, finding.into(), None);
    }

    fn warn(&mut self, name: &'static str, finding: impl Into<String>, next: impl Into<String>) {
        self.add(name, Verdict::Warn, finding.into(), Some(next.into()));
    }

    fn fail(&mut self, name: &'static str, finding: impl Into<String>, next: impl Into<String>) {
        self.add(name, Verdict::Fail, finding.into(), Some(next.into()));
    }

    fn add(&mut self, name: &'static str, verdict: Verdict, finding: String, next: Option<String>) {
        self.0.push(Check {
            name,
            verdict,
            finding,
            next,
        });
    }
}

/// `tacit doctor`: exit code 1 when a check failed; warnings alone are no failure.
pub(crate) async fn run(paths: &Paths, output: &Output) -> Answer {
    let mut report = Report::default();
    check_socket(&mut report, &paths.socket);
    let daemon = check_daemon(&mut report, &paths.socket).await;
    let trust = check_trust(&mut report, &paths.trust);
    if let (Some(trust), Some((_, status))) = (&trust, &daemon) {
        check_presented(&mut report, trust, status);
    }
    check_sealer(&mut report, paths, trust.as_ref());
    if let Some((mut daemon, status)) = daemon {
        check_custodians(&mut report, &status);
        check_clock(&mut report, &status, now());
        match unary(daemon.admin.list_agents(ListAgentsRequest {})).await {
            Ok(response) => check_agents(&mut report, &response.agents, &status.version),
            Err(error) => report.fail("agents", error.to_string(), "tacit agent list"),
        }
        for note in &status.notes {
            report.warn("daemon", note.clone(), "tacit status");
        }
    }
    check_memlock(&mut report);
    check_variables(&mut report);
    Ok(tell(&report, output))
}

fn tell(report: &Report, output: &Output) -> bool {
    let mut text = String::new();
    for check in &report.0 {
        let word = check.verdict.word();
        text += &format!("{word:4}  {}: {}\n", check.name, clean(&check.finding));
        if let Some(next) = &check.next {
            text += &format!("      next: {next}\n");
        }
    }
    let failed = report
        .0
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .count();
    let warned = report
        .0
        .iter()
        .filter(|check| check.verdict == Verdict::Warn)
        .count();
    text += &format!(
        "{} checks, {warned} warnings, {failed} failures",
        report.0.len()
    );
    let checks: Vec<_> = report
        .0
        .iter()
        .map(|check| {
            json!({
                "check": check.name, "verdict": check.verdict.word(), "finding": check.finding,
                "next": check.next,
            })
        })
        .collect();
    output.result(
        &text,
        &json!({"checks": checks, "warnings": warned, "failures": failed}),
    );
    failed == 0
}

fn check_socket(report: &mut Report, path: &Path) {
    const NAME: &str = "admin socket";
    let Ok(metadata) = fs::metadata(path) else {
        let next = "start hsmd, or name the socket with --socket or TACIT_ADMIN_SOCKET";
        return report.fail(
            NAME,
            format!("there is nothing at {}", path.display()),
            next,
        );
    };
    if !metadata.file_type().is_socket() {
        let next = "name the socket with --socket or TACIT_ADMIN_SOCKET";
        return report.fail(NAME, format!("{} is not a socket", path.display()), next);
    }
    let mode = metadata.mode() & 0o777;
    let directory = path.parent().unwrap_or(Path::new("/"));
    // Whoever may write the directory may put a socket of his own in its place; a sticky one (/tmp) guards the name
    // only while it is taken.
    let open_directory = fs::metadata(directory).is_ok_and(|found| found.mode() & 0o022 != 0);
    if mode & 0o007 != 0 {
        let finding = format!(
            "{} has mode {mode:03o}: every user may connect",
            path.display()
        );
        report.fail(
            NAME,
            finding,
            "restart hsmd, which sets the mode; if it stays, mind the directory's mode",
        );
    } else if open_directory {
        let finding = format!(
            "others may write {}, and replace the socket",
            directory.display()
        );
        report.warn(NAME, finding, format!("chmod go-w {}", directory.display()));
    } else {
        report.ok(NAME, format!("{} has mode {mode:03o}", path.display()));
    }
}

async fn check_daemon(report: &mut Report, path: &Path) -> Option<(Daemon, StatusResponse)> {
    const NAME: &str = "daemon";
    let mut daemon = match client::connect(path).await {
        Ok(daemon) => daemon,
        Err(error) => {
            report.fail(NAME, error.to_string(), error.next_step());
            return None;
        }
    };
    match daemon.status().await {
        Ok(status) => {
            let finding = format!("hsmd {} answers as uid {}", status.version, daemon.uid);
            if status.ready {
                report.ok(NAME, format!("{finding} and is ready"));
            } else {
                report.fail(
                    NAME,
                    format!("{finding} and is not ready"),
                    "see the checks below and its log",
                );
            }
            Some((daemon, status))
        }
        Err(refusal) => {
            let next = refusal
                .next_step()
                .unwrap_or("see its log: journalctl -u hsmd");
            report.fail(NAME, refusal.to_string(), next);
            None
        }
    }
}

fn check_trust(report: &mut Report, path: &Path) -> Option<Trust> {
    const NAME: &str = "trust file";
    match trust::load(path) {
        Ok(trust) => {
            let (t, n, sealers) = (trust.threshold, trust.custodians.len(), trust.sealers.len());
            report.ok(
                NAME,
                format!(
                    "{}: any {t} of {n} custodians, {sealers} sealers",
                    path.display()
                ),
            );
            Some(trust)
        }
        Err(error) => {
            let finding = format!("{:#}", anyhow::Error::new(error));
            report.fail(
                NAME,
                finding,
                "compare fingerprints over a second channel, then: tacit trust pin",
            );
            None
        }
    }
}

fn check_presented(report: &mut Report, trust: &Trust, status: &StatusResponse) {
    const NAME: &str = "descriptors";
    let presented = match trust::presented(status) {
        Ok(presented) => presented,
        Err(error) => return report.fail(NAME, format!("{error:#}"), "tacit trust show"),
    };
    let odd: Vec<_> = presented
        .iter()
        .filter(|one| trust::compare(trust, &one.descriptor) != Compared::Same)
        .map(|one| one.descriptor.id.to_string())
        .collect();
    if odd.is_empty() {
        report.ok(
            NAME,
            format!("all {} presented are as pinned", presented.len()),
        );
    } else {
        let finding = format!("not as pinned: {}", odd.join(", "));
        report.fail(
            NAME,
            finding,
            "tacit trust show; seal nothing until it is explained",
        );
    }
}

fn check_sealer(report: &mut Report, paths: &Paths, trust: Option<&Trust>) {
    const NAME: &str = "sealer";
    match sealer::load(&paths.sealer, trust) {
        Ok(sealer) => {
            let public = sealer.public();
            match trust.and_then(|trust| trust.sealer_name(&public)) {
                Some(name) => report.ok(NAME, format!("{public}, pinned as {name}")),
                None => report.warn(
                    NAME,
                    format!("{public} is not pinned: keys that it seals are refused"),
                    format!("tacit trust pin --sealer NAME={public}"),
                ),
            }
        }
        Err(error) => report.warn(
            NAME,
            error.to_string(),
            "needed only where keys are sealed: tacit sealer new",
        ),
    }
}

fn check_custodians(report: &mut Report, status: &StatusResponse) {
    for one in status.custodians.iter().filter(|one| one.state != "up") {
        let finding = format!("{} is {}: {}", one.id, one.state, one.detail);
        report.warn(
            "custodian",
            finding,
            format!("tacit custodian show {}", one.id),
        );
    }
    const NAME: &str = "margin";
    let (t, n) = (status.threshold, status.custodians.len());
    match status.margin {
        ..0 => report.fail(
            NAME,
            format!("fewer than {t} of {n} custodians are up"),
            "tacit custodian list",
        ),
        0 if n > usize::try_from(t).unwrap_or(usize::MAX) => report.warn(
            NAME,
            format!("exactly {t} of {n} custodians are up: the next failure stops all leases"),
            "tacit custodian list",
        ),
        0 => report.warn(
            NAME,
            format!("{t} of {n} shares are needed: no custodian may ever fail"),
            "add a custodian when you can",
        ),
        margin => report.ok(NAME, format!("{margin} custodians may fail")),
    }
}

fn check_clock(report: &mut Report, status: &StatusResponse, now: i64) {
    const NAME: &str = "clock";
    if now < 1_735_689_600 {
        return report.fail(
            NAME,
            "this machine's clock is before 2025",
            "set it: timedatectl",
        );
    }
    if status.started_at > now + CLOCK_SLACK_SECONDS {
        let finding = "the daemon started in the future: the clock went back since";
        return report.warn(NAME, finding, "check time synchronisation: timedatectl");
    }
    report.ok(NAME, "agrees with the daemon's start");
}

fn check_agents(report: &mut Report, agents: &[AgentStatus], daemon_version: &str) {
    const NAME: &str = "agents";
    let connected: Vec<_> = agents.iter().filter(|one| one.connected).collect();
    let other = connected.iter().filter(|one| one.version != daemon_version);
    let other: Vec<_> = other
        .map(|one| format!("{} {}", one.name, one.version))
        .collect();
    if connected.is_empty() {
        report.warn(
            NAME,
            "none is connected",
            "start one: tacit-agent --config FILE",
        );
    } else if other.is_empty() {
        report.ok(
            NAME,
            format!("{} connected, of version {daemon_version}", connected.len()),
        );
    } else {
        let finding = format!(
            "of another version than hsmd {daemon_version}: {}",
            other.join(", ")
        );
        report.warn(
            NAME,
            finding,
            "neighbouring versions work together; finish the upgrade",
        );
    }
}

fn check_memlock(report: &mut Report) {
    const NAME: &str = "memory locks";
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if soft >= MEMLOCK_MIN_BYTES => {
            let limit = if soft == nix::libc::RLIM_INFINITY {
                "unlimited".to_owned()
            } else {
                format!("{} KiB", soft / 1024)
            };
            report.ok(NAME, format!("RLIMIT_MEMLOCK here is {limit}"));
        }
        Ok((soft, _)) => report.warn(
            NAME,
            format!(
                "RLIMIT_MEMLOCK here is {} KiB: an agent started here cannot lock its keys",
                soft / 1024
            ),
            "ulimit -l unlimited, or LimitMEMLOCK= in its unit",
        ),
        Err(error) => report.warn(
            NAME,
            format!("cannot read RLIMIT_MEMLOCK: {error}"),
            "ulimit -l",
        ),
    }
}

/// A real key in an application's environment is what Tacit exists to remove. Names the variable, never the value.
fn check_variables(report: &mut Report) {
    const NAME: &str = "environment";
    const VARIABLES: [(&str, &str); 4] = [
        ("OPENAI_API_KEY", "openai"),
        ("ANTHROPIC_API_KEY", "anthropic"),
        ("GEMINI_API_KEY", "gemini"),
        ("GOOGLE_API_KEY", "gemini"),
    ];
    let real = |variable: &str, provider: &str| {
        let value = credential_variable(variable)?;
        let provider = providers::find(provider)?;
        (provider.check_key(&value) == Plausibility::Plausible).then_some(())
    };
    let mut found = false;
    for (variable, provider) in VARIABLES {
        if real(variable, provider).is_some() {
            found = true;
            report.warn(
                NAME,
                format!("{variable} looks like a real key of {provider}"),
                format!("add it (tacit key add ID --provider {provider}), unset {variable}, and rotate it: it was \
                         readable by every process of this user"),
            );
        }
    }
    if !found {
        report.ok(NAME, "no variable here looks like a real provider key");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(report: &Report) -> Vec<(&'static str, Verdict)> {
        report
            .0
            .iter()
            .map(|check| (check.name, check.verdict))
            .collect()
    }

    #[test]
    fn the_margin_is_judged_by_what_may_still_fail() {
        for (margin, custodians, verdict) in [
            (1, 3, Verdict::Ok),
            (0, 3, Verdict::Warn),
            (0, 2, Verdict::Warn),
            (-1, 3, Verdict::Fail),
        ] {
            let mut report = Report::default();
            let up = proto::v1::CustodianStatus {
                state: "up".to_owned(),
                ..Default::default()
            };
            let status = StatusResponse {
                threshold: 2,
                margin,
                custodians: vec![up; custodians],
                ..StatusResponse::default()
            };
            check_custodians(&mut report, &status);
            assert_eq!(
                verdicts(&report),
                [("margin", verdict)],
                "{margin} of {custodians}"
            );
        }
    }

    #[test]
    fn a_socket_for_everybody_fails_and_its_neighbour_passes() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        for (mode, verdict) in [(0o660, Verdict::Ok), (0o666, Verdict::Fail)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            let mut report = Report::default();
            check_socket(&mut report, &path);
            assert_eq!(verdicts(&report), [("admin socket", verdict)]);
        }
    }

    #[test]
    fn a_clock_that_went_back_is_noticed() {
        let now = 1_800_000_000;
        for (started_at, verdict) in [(now, Verdict::Ok), (now + 60, Verdict::Warn)] {
            let mut report = Report::default();
            let status = StatusResponse {
                started_at,
                ..StatusResponse::default()
            };
            check_clock(&mut report, &status, now);
            assert_eq!(verdicts(&report), [("clock", verdict)]);
        }
    }

    #[test]
    fn agents_of_another_version_are_named() {
        let agent = |version: &str| AgentStatus {
            name: "px".to_owned(),
            version: version.to_owned(),
            connected: true,
            ..AgentStatus::default()
        };
        let mut report = Report::default();
        check_agents(&mut report, &[agent("0.1.0"), agent("0.0.9")], "0.1.0");
        assert_eq!(report.0[0].verdict, Verdict::Warn);
        assert!(report.0[0].finding.contains("px 0.0.9"));
    }
}
