//! `tacit doctor`: one check after another, each with what to do about it.

mod hardening;
mod machine;
mod report;

use std::path::Path;

use custody::Trust;
use proto::v1::{AgentStatus, ListAgentsRequest, StatusResponse};

use crate::Answer;
use crate::client::{self, Daemon, unary};
use crate::config::Paths;
use crate::output::{Output, now};
use crate::sealer;
use crate::trust::{self, Compared};

use machine::{check_memlock, check_socket, check_variables};
use report::{Report, tell};

/// A daemon that claims to have started this much after now has another clock.
const CLOCK_SLACK_SECONDS: i64 = 5;

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
        check_users(&mut report, &status);
        check_clock(&mut report, &status, now());
        let agents = match unary(daemon.admin.list_agents(ListAgentsRequest {})).await {
            Ok(response) => {
                check_agents(&mut report, &response.agents, &status.version);
                response.agents
            }
            Err(error) => {
                report.fail("agents", error.to_string(), "tacit agent list");
                Vec::new()
            }
        };
        hardening::check_measures(&mut report, &status);
        hardening::check_processes(&mut report, daemon.pid, &status, &agents);
        for note in &status.notes {
            report.warn("daemon", note.clone(), "tacit status");
        }
    }
    check_memlock(&mut report);
    check_variables(&mut report);
    Ok(tell(&report, output))
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
    if status.part {
        return check_part(report, status);
    }
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

/// A daemon that drives some of the custodians: how many may fail is what agents know.
fn check_part(report: &mut Report, status: &StatusResponse) {
    const NAME: &str = "margin";
    let (quorum, n) = (status.quorum, status.custodians.len());
    match status.margin {
        ..0 => report.fail(
            NAME,
            format!("fewer than {quorum} of this daemon's {n} custodians are up: nothing can be changed here"),
            "tacit custodian list",
        ),
        _ => report.ok(
            NAME,
            format!("a part of {n} custodians; see tacit_agent_quorum_margin of the agents"),
        ),
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

/// A user that apps run as, too, is no identity: each of them could have the agent's keys.
fn check_users(report: &mut Report, status: &StatusResponse) {
    const NAME: &str = "agents' users";
    if status.shared_uids.is_empty() {
        return report.ok(NAME, "no rule is for a user that apps are known to run as");
    }
    let uids: Vec<_> = status.shared_uids.iter().map(u32::to_string).collect();
    report.fail(
        NAME,
        format!(
            "rules are for uid {}, which apps may run as, too",
            uids.join(", ")
        ),
        "run tacit-agent as a user of its own and name that in [[caller]] or the policy",
    );
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

#[cfg(test)]
mod tests;
