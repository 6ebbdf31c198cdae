//! `tacit status`: the daemon on one page.

use proto::v1::StatusResponse;
use serde_json::{Value, json};

use crate::Answer;
use crate::client;
use crate::config::Paths;
use crate::custodian;
use crate::output::{Output, clean, fields, list, now, span};

/// `tacit status`. A daemon that is not ready is a negative answer: exit code 1.
pub(crate) async fn run(paths: &Paths, output: &Output) -> Answer {
    let mut daemon = client::connect(&paths.socket).await?;
    let status = daemon.status().await?;
    output.result(&render(&status, now()), &to_json(&status));
    Ok(status.ready)
}

fn render(status: &StatusResponse, now: i64) -> String {
    // Older daemons name no quorum: it is the threshold.
    let quorum = match status.quorum {
        0 => status.threshold,
        quorum => quorum,
    };
    let available = i64::from(quorum) + i64::from(status.margin);
    let margin = match status.margin {
        ..0 if status.part => format!("{}: NOTHING CAN BE CHANGED HERE", status.margin),
        _ if status.part => format!(
            "a part: agents gather {} shares from several daemons, and know how many may fail",
            status.threshold
        ),
        ..0 => format!("{}: NO LEASE CAN BE SERVED", status.margin),
        0 => "0: the next custodian that fails stops all leases".to_owned(),
        margin => format!("{margin} may fail"),
    };
    let mut text = fields(&[
        ("hsmd", status.version.clone()),
        ("up", span(now.saturating_sub(status.started_at))),
        ("ready", if status.ready { "yes" } else { "NO" }.to_owned()),
        (
            "custodians up",
            format!(
                "{available} of {}, {quorum} needed",
                status.custodians.len(),
            ),
        ),
        ("margin", margin),
        ("keys", status.keys.to_string()),
        ("agents connected", status.agents_connected.to_string()),
        ("store revision", status.revision.to_string()),
        ("denied", status.denied.to_string()),
        ("hardening", hardening(status)),
        (
            "defaults",
            format!(
                "environments {}, teams {}, upstreams {}",
                list(&status.default_environments),
                list(&status.default_teams),
                list(&status.default_upstreams)
            ),
        ),
        (
            "",
            format!(
                "permissions {}, models {}",
                list(&status.default_permissions),
                list(&status.default_models)
            ),
        ),
    ]);
    text += "\n\n";
    text += &custodian::render(&status.custodians);
    if !status.elsewhere.is_empty() {
        text += &format!("\nof other daemons: {}", clean(&list(&status.elsewhere)));
    }
    for note in &status.notes {
        text += &format!("\nnote: {}", clean(note));
    }
    text
}

/// Which measures hold, or which do not.
fn hardening(status: &StatusResponse) -> String {
    let lacking: Vec<String> = status
        .hardening
        .iter()
        .filter(|one| !one.holds)
        .map(|one| format!("{} {}", one.measure, clean(&one.state)))
        .collect();
    match (status.hardening.len(), lacking.is_empty()) {
        (0, _) => "not told by this daemon".to_owned(),
        (all, true) => format!("all {all} measures hold"),
        (_, false) => format!("NOT: {}", lacking.join("; ")),
    }
}

fn to_json(status: &StatusResponse) -> Value {
    json!({
        "version": status.version, "started_at": status.started_at, "revision": status.revision,
        "threshold": status.threshold, "quorum": status.quorum, "part": status.part,
        "elsewhere": status.elsewhere, "margin": status.margin, "ready": status.ready,
        "custodians": status.custodians.iter().map(custodian::to_json).collect::<Vec<_>>(),
        "keys": status.keys, "agents_connected": status.agents_connected, "notes": status.notes,
        "default_upstreams": status.default_upstreams,
        "default_environments": status.default_environments,
        "default_teams": status.default_teams,
        "default_permissions": status.default_permissions,
        "default_models": status.default_models, "denied": status.denied,
        "hardening": status.hardening.iter().map(|one| json!({
            "measure": one.measure, "holds": one.holds, "state": one.state,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::CustodianStatus;

    #[test]
    fn a_margin_that_is_gone_is_loud() {
        let status = |margin| StatusResponse {
            threshold: 2,
            margin,
            custodians: vec![CustodianStatus::default(); 3],
            ..StatusResponse::default()
        };
        assert!(render(&status(1), 0).contains("3 of 3, 2 needed"));
        assert!(render(&status(0), 0).contains("the next custodian that fails"));
        let broken = render(&status(-1), 0);
        assert!(
            broken.contains("NO LEASE") && broken.contains("1 of 3"),
            "{broken}"
        );
    }

    #[test]
    fn a_custodian_that_is_not_as_pinned_is_loud() {
        let one = CustodianStatus {
            id: "b".to_owned(),
            mismatch: true,
            ..CustodianStatus::default()
        };
        assert!(custodian::render(&[one]).contains("NOT AS PINNED"));
    }
}
