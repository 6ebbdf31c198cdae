//! What a key may be used for, over the whole stack: an operator says it, agents hear of it, and it stands in the records.

#![allow(clippy::unwrap_used)]

use std::fs;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::http;
use tests::process::eventually;
use tests::scene::Scene;
use tests::upstream::Provider;

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

/// Who changed what stands in the log, the refusal too.
fn audited(scene: &Scene) -> anyhow::Result<()> {
    let config = scene.stack.path("hsmd_config")?;
    let audit = config.parent().context("a directory")?.join("state/audit");
    let mut text = String::new();
    for file in fs::read_dir(audit)? {
        text += &fs::read_to_string(file?.path())?;
    }
    let records: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
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
