//! Each verdict beside its nearest neighbour.

use std::fs;

use super::machine::check_socket;
use super::report::Verdict;
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
