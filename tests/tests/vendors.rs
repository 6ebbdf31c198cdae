//! Custodians of different make: two on SoftHSM and one on NSS softokn hold the shares of one key.

#![allow(clippy::unwrap_used)]

use std::fs;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tests::fixture;
use tests::process::{eventually, send};
use tests::scene::Scene;
use tests::stack::Stack;
use tests::upstream::Provider;

/// The third custodian's table, replaced by one on an NSS database: other values, and no field that SoftHSM has not.
fn with_nss(config: &str, token: &softhsm::nss::NssDir) -> anyhow::Result<String> {
    let mut file: toml::Table = config.parse()?;
    let custodians = file["custodian"]
        .as_array_mut()
        .context("hsmd.toml has custodians")?;
    let mut one = toml::Table::new();
    for (name, value) in [
        ("id", token.id.clone()),
        ("module", token.module.display().to_string()),
        ("token_label", token.label.clone()),
        ("pin_file", token.pin_file.display().to_string()),
        ("init_args", token.init_args.clone()),
    ] {
        one.insert(name.to_owned(), toml::Value::String(value));
    }
    let (name, value) = softhsm::nss::QUICK;
    let mut env = toml::Table::new();
    env.insert(name.to_owned(), toml::Value::String(value.to_owned()));
    one.insert("env".to_owned(), toml::Value::Table(env));
    *custodians.last_mut().context("there are three")? = toml::Value::Table(one);
    Ok(toml::to_string(&file)?)
}

/// An operator who has not put any key in yet exchanges one module for another.
fn exchange(stack: &Stack) -> anyhow::Result<()> {
    let token = softhsm::nss::up(&stack.dir().join("nss"), "n")?;
    let config = stack.path("hsmd_config")?;
    let edited = with_nss(&fs::read_to_string(&config)?, &token)?;
    fs::write(&config, edited)?;
    // The trust file and the store name the custodian that went; both are made again.
    let trust = stack.environment("TACIT_TRUST")?;
    let state = std::path::Path::new(trust)
        .parent()
        .context("the trust file lies in a directory")?;
    fs::remove_dir_all(state)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_custodian_on_nss_and_two_on_softhsm_serve_a_key() -> anyhow::Result<()> {
    let Scene {
        stack,
        upstream,
        outside,
    } = Scene::start("0s").await?;
    let scene = Scene {
        stack: stack.restart_edited(exchange)?,
        upstream,
        outside,
    };
    let shown = scene.stack.tacit_json(&["custodian", "list"], b"")?;
    let modules = shown.to_string();
    assert!(modules.contains("\"n\""), "{modules}");

    scene.add(Provider::OpenAi)?;
    eventually("the agent serves", || {
        scene.chat().ok().filter(|answer| answer.status == 200)
    })?;
    assert_eq!(scene.last_key()?, fixture::key(Provider::OpenAi));

    // Each of the three can be missing, so each of the three makes does its part.
    for round in 0..3 {
        let victim = *scene
            .stack
            .pids("tacit-token")
            .get(round)
            .context("three token processes")?;
        scene.serving(|| {
            send(victim, Signal::SIGKILL)?;
            eventually("the token process is replaced", || {
                let status = scene.stack.tacit_json(&["status"], b"").ok()?;
                let up = status["custodians"]
                    .as_array()?
                    .iter()
                    .filter(|custodian| custodian["state"] == "up")
                    .count();
                let pids = scene.stack.pids("tacit-token");
                (up == 3 && pids.len() == 3 && !pids.contains(&victim)).then_some(())
            })
        })?;
    }
    // The shares are still the ones that the operator signed, on NSS too.
    let id = tests::scene::id(Provider::OpenAi);
    let verified = scene.stack.tacit(&["key", "verify", &id], b"")?;
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    Ok(())
}
