//! `tacit agent`: who leases keys, which version of each they use, and having them read their configuration again.

use proto::v1::{AgentStatus, ListAgentsRequest, ReloadAgentRequest};
use serde_json::{Value, json};

use crate::Answer;
use crate::args::AgentVerb;
use crate::client::{self, unary};
use crate::config::Paths;
use crate::output::{Output, age, fields, list, moment, now, table};

/// `tacit agent …`
pub(crate) async fn run(verb: AgentVerb, paths: &Paths, output: &Output) -> Answer {
    let mut daemon = client::connect(&paths.socket).await?;
    if let AgentVerb::Reload { name } = verb {
        let request = ReloadAgentRequest {
            name: name.unwrap_or_default(),
        };
        let response = unary(daemon.admin.reload_agent(request)).await?;
        return Ok(tell_reload(&response.results, output));
    }
    let agents = unary(daemon.admin.list_agents(ListAgentsRequest {}))
        .await?
        .agents;
    match verb {
        AgentVerb::Status { name } => {
            let named = |one: &&AgentStatus| {
                name.as_deref()
                    .is_none_or(|name| one.name == name || one.instance == name)
            };
            let chosen: Vec<_> = agents.iter().filter(named).collect();
            if let (true, Some(name)) = (chosen.is_empty(), &name) {
                anyhow::bail!("the daemon knows no agent {name}; see tacit agent list");
            }
            let text: Vec<_> = chosen.iter().map(|one| render_one(one)).collect();
            let json: Vec<_> = chosen.iter().map(|one| to_json(one)).collect();
            output.result(&text.join("\n\n"), &json!({"agents": json}));
        }
        AgentVerb::List | AgentVerb::Reload { .. } => {
            let text = if agents.is_empty() {
                "no agent has connected; start one: tacit-agent --config FILE".to_owned()
            } else {
                render_list(&agents, now())
            };
            let json: Vec<_> = agents.iter().map(to_json).collect();
            output.result(&text, &json!({"agents": json}));
        }
    }
    Ok(true)
}

fn tell_reload(results: &[proto::v1::reload_agent_response::Result], output: &Output) -> bool {
    let row = |one: &proto::v1::reload_agent_response::Result| {
        let outcome = if one.ok { "ok" } else { "failed" };
        vec![one.agent.clone(), outcome.to_owned(), one.detail.clone()]
    };
    let text = if results.is_empty() {
        "no connected agent".to_owned()
    } else {
        table(
            &["AGENT", "RELOAD", "DETAIL"],
            &results.iter().map(row).collect::<Vec<_>>(),
        )
    };
    let json: Vec<_> = results
        .iter()
        .map(|one| json!({"agent": one.agent, "ok": one.ok, "detail": one.detail}))
        .collect();
    output.result(&text, &json!({"results": json}));
    !results.is_empty() && results.iter().all(|one| one.ok)
}

/// `openai-prod@2, anthropic-prod@1`.
fn in_use(one: &AgentStatus) -> String {
    let keys: Vec<_> = one
        .in_use
        .iter()
        .map(|key| format!("{}@{}", key.key_id, key.version))
        .collect();
    list(&keys)
}

fn render_list(agents: &[AgentStatus], now: i64) -> String {
    let heads = [
        "AGENT",
        "VERSION",
        "UID",
        "PID",
        "CONNECTED",
        "REVISION",
        "KEYS IN USE",
        "ATTESTED BY",
        "SCOPE",
    ];
    let row = |one: &AgentStatus| {
        let since = age(one.connected_at, now);
        vec![
            one.name.clone(),
            one.version.clone(),
            one.uid.to_string(),
            one.pid.to_string(),
            if one.connected {
                since
            } else {
                "no".to_owned()
            },
            one.acknowledged_revision.to_string(),
            in_use(one),
            list(&one.attestors),
            format!("{} / {}", list(&one.environments), list(&one.teams)),
        ]
    };
    table(&heads, &agents.iter().map(row).collect::<Vec<_>>())
}

fn render_one(one: &AgentStatus) -> String {
    fields(&[
        ("agent", one.name.clone()),
        ("instance", one.instance.clone()),
        ("version", one.version.clone()),
        ("process", format!("{} of uid {}", one.pid, one.uid)),
        (
            "connected",
            if one.connected {
                moment(one.connected_at)
            } else {
                "no".to_owned()
            },
        ),
        (
            "acknowledged revision",
            one.acknowledged_revision.to_string(),
        ),
        ("keys in use", in_use(one)),
        ("keys configured", list(&one.key_ids)),
        ("attested", one.attested.clone()),
        ("by", list(&one.attestors)),
        ("rules", list(&one.rules)),
        ("environments", list(&one.environments)),
        ("teams", list(&one.teams)),
    ])
}

fn to_json(one: &AgentStatus) -> Value {
    let in_use: Vec<_> = one
        .in_use
        .iter()
        .map(|key| json!({"key_id": key.key_id, "version": key.version}))
        .collect();
    json!({
        "name": one.name, "instance": one.instance, "version": one.version, "uid": one.uid,
        "pid": one.pid, "connected": one.connected, "connected_at": one.connected_at,
        "acknowledged_revision": one.acknowledged_revision, "in_use": in_use,
        "environments": one.environments, "teams": one.teams, "key_ids": one.key_ids,
        "attested": one.attested, "attestors": one.attestors, "rules": one.rules, "labels": one.labels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::agent_status::KeyInUse;

    #[test]
    fn the_list_shows_which_version_each_agent_uses() {
        let agent = AgentStatus {
            name: "px_acme_prod".to_owned(),
            connected: true,
            connected_at: 940,
            in_use: vec![KeyInUse {
                key_id: "openai-prod".to_owned(),
                version: 2,
            }],
            ..AgentStatus::default()
        };
        let gone = AgentStatus {
            connected: false,
            ..agent.clone()
        };
        let text = render_list(&[agent, gone], 1_000);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[1].contains("openai-prod@2") && lines[1].contains(" 1m "),
            "{text}"
        );
        assert!(lines[2].contains(" no "), "{text}");
    }
}
