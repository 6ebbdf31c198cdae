//! `tacit dev`: a whole stack in the foreground, for development.
//!
//! SoftHSM tokens, `hsmd` and `tacit-agent` under one directory, each as it runs in production, only all as this user.
//! The directory is kept: a second start finds the same tokens, the same store, the same keys. Nothing is ever deleted.

pub(crate) mod children;
mod mark;
mod settings;
mod tokens;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use custody::Sealer as _;
use serde_json::{Value, json};

use crate::Answer;
use crate::args::Dev;
use crate::files;
use crate::output::Output;
use crate::sealer::{self, SealerError};
use crate::trust;

use children::{Child, Signals, Stopped};
pub(crate) use mark::is_stack_of;
use settings::Layout;

/// Longest wait for a daemon to bind and become ready: three tokens on a slow disk fit many times.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// `tacit dev`: provisions what is missing, starts both daemons, waits for a signal or for one of them to end.
pub(crate) async fn run(options: Dev, output: &Output) -> Answer {
    let mut signals = Signals::register()?; // first: a Ctrl-C during start-up must not leave children behind
    let (layout, _lock) = prepare(&options, output)?;
    let config = layout.hsmd_toml();
    tokio::select! {
        () = signals.first() => anyhow::bail!("interrupted before anything was started"),
        done = children::run_to_end("hsmd", &["init", "--config"], &config) => done?,
    }
    pin_sealer(&layout)?;
    let mut running = Vec::new();
    let started = tokio::select! {
        () = signals.first() => Ok(None),
        started = start(&layout, &mut running) => started.map(Some),
    };
    let outcome = match started {
        Ok(Some(addresses)) => {
            announce(&addresses, options.json, &layout, output);
            children::watch(&mut running, &mut signals).await
        }
        Ok(None) => Ok(Stopped::Asked),
        Err(error) => Err(error),
    };
    children::stop(running, &mut signals, output).await;
    match outcome? {
        Stopped::Asked => Ok(true),
        Stopped::Child(text) => anyhow::bail!(text),
    }
}

/// Everything that needs no daemon; the directory is ours while the returned file is open.
fn prepare(options: &Dev, output: &Output) -> anyhow::Result<(Layout, File)> {
    files::create_directory(&options.dir)?;
    let dir = options
        .dir
        .canonicalize()
        .with_context(|| format!("cannot resolve {}", options.dir.display()))?;
    let layout = Layout::new(dir)?;
    for directory in [layout.run(), layout.state()] {
        files::create_directory(&directory)?;
    }
    let lock = mark::lock(&layout)?;
    let module = tokens::provision(&layout)?;
    settings::write_hsmd(&layout, &module)?;
    if let Some(remark) = settings::write_agent(&layout, options.listen)? {
        output.note(&remark);
    }
    Ok((layout, lock))
}

/// The sealer of the directory, made once and pinned in the trust file that both daemons read.
fn pin_sealer(layout: &Layout) -> anyhow::Result<()> {
    let path = layout.sealer();
    let sealer = match sealer::load_file(&path) {
        Ok(sealer) => sealer,
        Err(SealerError::Missing(_)) => sealer::create_file(&path)?,
        Err(error) => return Err(error.into()),
    };
    let known = trust::load(&layout.trust())?;
    match known.sealer_name(&sealer.public()) {
        Some(_) => Ok(()),
        None => trust::add_sealer(&layout.trust(), "dev", sealer.public()),
    }
}

/// Where the stack can be reached.
#[derive(Debug)]
struct Addresses {
    hsmd: Value,
    agent: Value,
}

async fn start(layout: &Layout, running: &mut Vec<Child>) -> anyhow::Result<Addresses> {
    let mut hsmd = Child::start("hsmd", &layout.hsmd_toml(), &layout.announcement("hsmd"))?;
    let found = hsmd.announced(START_DEADLINE).await;
    running.push(hsmd); // also when it failed: whoever started it stops it
    let hsmd = found?;
    ready(running, &hsmd).await?;
    let mut agent = Child::start(
        "tacit-agent",
        &layout.agent_toml(),
        &layout.announcement("agent"),
    )?;
    let found = agent.announced(START_DEADLINE).await;
    running.push(agent);
    let agent = found?;
    ready(running, &agent).await?;
    Ok(Addresses { hsmd, agent })
}

async fn ready(running: &mut [Child], announced: &Value) -> anyhow::Result<()> {
    let last = running
        .last_mut()
        .context("the child was pushed just now")?;
    last.ready(&text(announced, "admin_listen"), START_DEADLINE)
        .await
}

fn text(announced: &Value, field: &str) -> String {
    announced[field].as_str().unwrap_or_default().to_owned()
}

fn announce(addresses: &Addresses, json: bool, layout: &Layout, output: &Output) {
    let url = |announced: &Value, field| format!("http://{}", text(announced, field));
    let agent = url(&addresses.agent, "listen");
    let document = json!({
        "agent": agent,
        "agent_admin": url(&addresses.agent, "admin_listen"),
        "hsmd_admin": url(&addresses.hsmd, "admin_listen"),
        "hsmd_socket": text(&addresses.hsmd, "workload_socket"),
        "admin_socket": text(&addresses.hsmd, "admin_socket"),
        "agent_config": layout.agent_toml(),
        "hsmd_config": layout.hsmd_toml(),
        "env": {
            "TACIT_ADMIN_SOCKET": text(&addresses.hsmd, "admin_socket"),
            "TACIT_TRUST": layout.trust(),
            "TACIT_SEALER": layout.sealer(),
        },
    });
    if json || output.is_json() {
        output.text(&document.to_string());
    } else {
        output.text(&next_steps(&agent, &document, layout));
    }
}

fn next_steps(agent: &str, document: &Value, layout: &Layout) -> String {
    let quoted = |path: PathBuf| quote(&path);
    let socket = document["admin_socket"].as_str().unwrap_or_default();
    format!(
        "tacit is up. Ctrl-C stops it; its state stays in {dir}.\n\
         \n\
         In another terminal:\n\
         \x20 export TACIT_ADMIN_SOCKET={socket}\n\
         \x20 export TACIT_TRUST={trust}\n\
         \x20 export TACIT_SEALER={sealer}\n\
         \x20 tacit key add openai-prod --provider openai       # asks for the key; anthropic-prod, gemini-prod likewise\n\
         \x20 tacit run --agent {agent} -- python app.py        # an app with an SDK, and no key\n\
         \x20 tacit status; tacit key list; tacit key verify openai-prod\n\
         \n\
         Routes and upstreams: {config} (send the agent SIGHUP, or: tacit agent reload)",
        dir = layout.dir().display(),
        socket = quote(Path::new(socket)),
        trust = quoted(layout.trust()),
        sealer = quoted(layout.sealer()),
        config = layout.agent_toml().display(),
    )
}

/// A path as a shell takes it.
fn quote(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_pasted_into_a_shell() {
        assert_eq!(quote(Path::new("/tmp/dev/x.sock")), "/tmp/dev/x.sock");
        assert_eq!(quote(Path::new("/tmp/it's here")), r"'/tmp/it'\''s here'");
    }
}
