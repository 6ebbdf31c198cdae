//! What a key may be used for, over the whole stack: an operator says it, agents hear of it, and it stands in the records.

#![allow(clippy::unwrap_used)]

use std::fs;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::v1::workload_client::WorkloadClient;
use proto::v1::{
    KeyUsage, LeaseRequest, ReportUsageRequest, Subscribe, WatchRequest, WatchResponse,
    watch_request,
};
use serde_json::{Value, json};
use tests::http;
use tests::process::eventually;
use tests::scene::Scene;
use tests::upstream::Provider;
use tests::workload::{connect, hello, marked};
use tonic::transport::Channel;

const ID: &str = "openai-prod";

/// Leases granted for the key, as the daemon counts them.
fn leases(scene: &Scene) -> anyhow::Result<u64> {
    let metrics = http::get(&format!("{}/metrics", scene.stack.field("hsmd_admin")?))?;
    let name = format!("tacit_hsmd_leases_total{{key=\"{ID}\",outcome=\"granted\"}} ");
    let count = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(&name)?.parse().ok());
    Ok(count.unwrap_or(0))
}

fn show(scene: &Scene) -> anyhow::Result<Value> {
    let shown = scene.stack.tacit_json(&["key", "show", ID], b"")?;
    Ok(shown["key"].clone())
}

fn set(scene: &Scene, options: &[&str]) -> anyhow::Result<Value> {
    scene
        .stack
        .tacit_json(&[&["key", "set", ID], options].concat(), b"")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_terms_are_changed_without_sealing_and_agents_lease_anew() -> anyhow::Result<()> {
    let scene = Scene::start("1h").await?;
    scene.add(Provider::OpenAi)?;
    ensure!(scene.chat()?.status == 200, "the key serves");
    let own = show(&scene)?;
    ensure!(own["models"] == json!(["*"]), "{own}");
    ensure!(
        own["defaulted"] == json!(["environments", "teams", "permissions", "models"]),
        "{own}"
    );

    let before = leases(&scene)?;
    let changed = set(
        &scene,
        &[
            "--permission",
            "chat",
            "--model",
            "gpt-5.4-mini",
            "--project",
            "proj_1",
        ],
    )?;
    ensure!(
        changed["agents"] == 1 && changed["acknowledged"] == 1 && changed["done"] == true,
        "{changed}"
    );
    eventually("the agent leases anew", || {
        (leases(&scene).ok()? > before).then_some(())
    })?;
    let own = show(&scene)?;
    ensure!(own["permissions"] == json!(["chat"]), "{own}");
    ensure!(own["models"] == json!(["gpt-5.4-mini"]), "{own}");
    ensure!(own["attributes"] == json!({"project": "proj_1"}), "{own}");
    ensure!(
        own["defaulted"] == json!(["environments", "teams"]),
        "{own}"
    );
    ensure!(own["current_version"] == 1, "nothing was sealed: {own}");

    // The same again is no change, and no new revision.
    let same = set(&scene, &["--permission", "chat"])?;
    ensure!(same["revision"] == changed["revision"], "{same}");
    let refused = scene
        .stack
        .tacit(&["key", "set", ID, "--region", "us-east-1"], b"")?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(1) && said.contains("region"),
        "{said}"
    );

    // An environment that no caller is of: the agent lets go at once, though its lease would live for an hour.
    set(&scene, &["--environment", "production"])?;
    let lost = scene.chat()?;
    ensure!(
        lost.header("x-tacit-error") == Some("permission_denied"),
        "{}",
        lost.head
    );
    set(
        &scene,
        &[
            "--reset",
            "environments",
            "--reset",
            "permissions",
            "--reset",
            "models",
            "--reset",
            "project",
        ],
    )?;
    ensure!(scene.chat()?.status == 200, "the key serves again");
    let own = show(&scene)?;
    ensure!(own["attributes"] == json!({}), "{own}");
    audited(&scene)
}

/// The audit log.
fn records(scene: &Scene) -> anyhow::Result<Vec<Value>> {
    let config = scene.stack.path("hsmd_config")?;
    let audit = config.parent().context("a directory")?.join("state/audit");
    let mut text = String::new();
    for file in fs::read_dir(audit)? {
        text += &fs::read_to_string(file?.path())?;
    }
    Ok(text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

/// Who changed what stands in the log, the refusal too.
fn audited(scene: &Scene) -> anyhow::Result<()> {
    let records = records(scene)?;
    let set: Vec<&Value> = records
        .iter()
        .filter(|one| one["action"] == "key.set")
        .collect();
    ensure!(set.iter().all(|one| one["category"] == "policy"), "{set:?}");
    let detail = "permissions [chat]; models [gpt-5.4-mini]; project proj_1";
    let granted = |one: &&&Value| one["outcome"] == "ok" && one["detail"] == detail;
    ensure!(set.iter().filter(granted).count() == 1, "{set:?}");
    ensure!(
        set.iter().any(|one| one["outcome"] == "bad_request"),
        "{set:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_that_are_read_again_act_at_once_and_those_of_a_key_survive() -> anyhow::Result<()>
{
    let scene = Scene::start("1h").await?;
    scene.add(Provider::OpenAi)?;
    ensure!(scene.chat()?.status == 200, "the key serves");
    let before = leases(&scene)?;
    let config = scene.stack.path("hsmd_config")?;
    let text = fs::read_to_string(&config)?;
    let narrow = text.replace("models = [\"*\"]", "models = [\"gpt-5.4-mini\"]");
    ensure!(narrow != text, "the file has no models to narrow");
    fs::write(&config, &narrow)?;
    let pid = Pid::from_raw(scene.stack.pid("hsmd")?.try_into()?);
    kill(pid, Signal::SIGHUP)?;
    eventually("the agent leases anew, an hour before its time", || {
        (leases(&scene).ok()? > before).then_some(())
    })?;
    let own = show(&scene)?;
    ensure!(own["models"] == json!(["gpt-5.4-mini"]), "{own}");

    // What a definition says itself comes back from the store, whatever the defaults are.
    set(&scene, &["--model", "gpt-4o", "--permission", ""])?;
    let Scene { stack, .. } = scene;
    let stack = stack.restart()?;
    let shown = stack.tacit_json(&["key", "show", ID], b"")?;
    ensure!(shown["key"]["models"] == json!(["gpt-4o"]), "{shown}");
    ensure!(shown["key"]["permissions"] == json!([]), "{shown}");
    ensure!(
        shown["usable_by"]
            .to_string()
            .contains("nobody: the key has no permissions"),
        "{shown}"
    );
    Ok(())
}

/// The count of a metric of the daemon; 0 when it was never touched.
fn count(scene: &Scene, metric: &str) -> anyhow::Result<u64> {
    let metrics = http::get(&format!("{}/metrics", scene.stack.field("hsmd_admin")?))?;
    let text = metrics.text();
    let value = text.lines().find_map(|line| line.strip_prefix(metric));
    Ok(value.map_or(Ok(0), |value| value.trim().parse())?)
}

/// An agent of a build that knows no terms, connected; and what it may ask with.
async fn older_agent(scene: &Scene) -> anyhow::Result<Older> {
    let mut client = connect(&scene.stack.path("hsmd_socket")?).await?;
    let opened = client.open_session(marked(hello(ID))).await?.into_inner();
    let (to, from) = tokio::sync::mpsc::channel(1);
    let subscribe = Subscribe {
        session_id: opened.session_id.clone(),
        seen_revision: 0,
    };
    let kind = Some(watch_request::Kind::Subscribe(subscribe));
    to.send(WatchRequest { kind }).await?;
    let watch = client
        .watch(marked(tokio_stream::wrappers::ReceiverStream::new(from)))
        .await?
        .into_inner();
    Ok(Older {
        client,
        session_id: opened.session_id,
        _stream: (to, watch),
    })
}

struct Older {
    client: WorkloadClient<Channel>,
    session_id: Vec<u8>,
    /// Open for as long as it is connected.
    _stream: (
        tokio::sync::mpsc::Sender<WatchRequest>,
        tonic::Streaming<WatchResponse>,
    ),
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_knows_no_terms_is_served_and_named_and_reports_are_believed_so_far()
-> anyhow::Result<()> {
    let scene = Scene::start("60s").await?;
    scene.add(Provider::OpenAi)?;
    set(&scene, &["--model", "gpt-4o", "--organization", "org-1"])?;
    let mut older = older_agent(&scene).await?;
    let request = LeaseRequest {
        partial: false,
        session_id: older.session_id.clone(),
        key_id: ID.to_owned(),
        provider: "openai".to_owned(),
        upstream: scene.upstream.url(),
        ttl_ms: 60_000,
        offline_grace_ms: 0,
    };
    let lease = older.client.lease(marked(request)).await?.into_inner();
    let terms = lease.terms.context("terms come with every lease")?;
    ensure!(lease.deliveries.len() == 2 && terms.models == ["gpt-4o"]);
    ensure!(terms.attributes.len() == 1 && terms.attributes[0].value == "org-1");
    ensure!(terms.permissions.iter().any(|one| one == "chat") && terms.digest.len() == 32);
    let status = scene.stack.tacit_json(&["status"], b"")?;
    ensure!(
        status["notes"]
            .to_string()
            .contains("do not keep to permissions"),
        "{status}"
    );
    let changed = set(&scene, &["--model", "gpt-4o-mini", "--no-wait"])?;
    ensure!(
        changed["note"]
            .to_string()
            .contains("do not keep to permissions"),
        "{changed}"
    );

    // Another key's counts, and more than an agent can have seen, count for nothing or for little.
    let row = |key: &str| KeyUsage {
        key_id: key.to_owned(),
        version: 1,
        provider: "openai".to_owned(),
        input_tokens: 12,
        output_tokens: u64::MAX,
        echo_blocked: 2,
        ..KeyUsage::default()
    };
    let report = ReportUsageRequest {
        session_id: older.session_id.clone(),
        usage: vec![row(ID), row("not-a-key-of-ours")],
    };
    let reported = tokio_stream::iter([report.clone(), report]);
    let accepted = older.client.report_usage(marked(reported)).await?;
    ensure!(accepted.into_inner().accepted == 2);
    let tokens = |kind: &str| {
        count(
            &scene,
            &format!("tacit_hsmd_tokens_total{{key=\"{ID}\",kind=\"{kind}\"}}"),
        )
    };
    ensure!(tokens("input")? == 24 && tokens("reasoning")? == 0);
    ensure!(tokens("output")? == 2_000_000_000_000);
    let echoes = format!("tacit_hsmd_echo_blocked_total{{key=\"{ID}\"}}");
    ensure!(count(&scene, &echoes)? == 4);
    // By the bounded door: the second report within the minute shares the first one's line.
    let records = records(&scene)?;
    let echoes: Vec<&Value> = records
        .iter()
        .filter(|one| one["action"] == "key.echo")
        .collect();
    let [echo] = echoes[..] else {
        anyhow::bail!("{echoes:?}");
    };
    ensure!(
        echo["category"] == "inference" && echo["outcome"] == "echo_blocked" && echo["key"] == ID,
        "{echo}"
    );
    Ok(())
}
