//! `tacit key test`: connected agents make the provider's zero-token call with a key, and say what came of it.
//!
//! The key stays where it is: the daemon passes the word on, and an agent leases the key as for an app.

use std::time::Duration;

use custody::KeyId;
use proto::v1::test_key_response::Result as Tried;
use proto::v1::{ListAgentsRequest, TestKeyRequest};
use serde_json::json;

use crate::Answer;
use crate::args::TestKey;
use crate::client::{self, Daemon, unary};
use crate::config::Paths;
use crate::failure::Refusal;
use crate::output::{Output, clean, table};

/// How long `key add` waits for the tries; the key is in already, and a provider may not answer at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// `tacit key test`. No agent that could try it is a negative answer too.
pub(super) async fn run(options: TestKey, paths: &Paths, output: &Output) -> Answer {
    let mut daemon = client::connect(&paths.socket).await?;
    let agent = options.agent.unwrap_or_default();
    let results = ask(&mut daemon, &options.id, agent).await?;
    let row = |one: &Tried| {
        let outcome = if one.ok { "ok" } else { "failed" };
        vec![one.agent.clone(), outcome.to_owned(), one.detail.clone()]
    };
    let text = if results.is_empty() {
        format!("no connected agent has a route to {}", options.id)
    } else {
        let rows: Vec<_> = results.iter().map(row).collect();
        table(&["AGENT", "TEST", "DETAIL"], &rows)
    };
    let document: Vec<_> = results
        .iter()
        .map(|one| json!({"agent": one.agent, "ok": one.ok, "detail": one.detail}))
        .collect();
    output.result(
        &text,
        &json!({"key_id": options.id.as_str(), "results": document}),
    );
    Ok(!results.is_empty() && results.iter().all(|one| one.ok))
}

/// Has a key that was just added tried by whoever is connected. It is in whatever comes of it: trouble is a remark.
pub(super) async fn after_add(daemon: &mut Daemon, id: &KeyId, output: &Output) {
    let tried = tokio::time::timeout(PATIENCE, ask_connected(daemon, id)).await;
    let results = match tried {
        Ok(Ok(results)) => results,
        Ok(Err(refusal)) => {
            output.note(&format!("warning: the key was not tried: {refusal}"));
            return;
        }
        Err(_) => {
            let waited = PATIENCE.as_secs();
            output.note(&format!(
                "warning: no word from the agents that try the key within {waited} s; tacit key test {id}"
            ));
            return;
        }
    };
    if results.is_empty() {
        output.note(&format!(
            "not tried: no connected agent has a route to it yet; later: tacit key test {id}"
        ));
    }
    for one in results {
        let agent = clean(&one.agent);
        let detail = clean(&one.detail);
        output.note(&if one.ok {
            format!("tried by {agent}: ok, {detail}")
        } else {
            format!("warning: tried by {agent}, and it failed: {detail}; tacit key test {id}")
        });
    }
}

async fn ask_connected(daemon: &mut Daemon, id: &KeyId) -> Result<Vec<Tried>, Refusal> {
    let agents = unary(daemon.admin.list_agents(ListAgentsRequest {})).await?;
    if !agents.agents.iter().any(|one| one.connected) {
        return Ok(Vec::new());
    }
    ask(daemon, id, String::new()).await
}

async fn ask(daemon: &mut Daemon, id: &KeyId, agent: String) -> Result<Vec<Tried>, Refusal> {
    let request = TestKeyRequest {
        key_id: id.to_string(),
        agent,
    };
    let answer = unary(daemon.admin.test_key(request)).await?;
    Ok(answer.results)
}
