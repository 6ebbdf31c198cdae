//! From a configuration to a serving daemon, and its orderly end.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hsm::TokenClient;
use lifecycle::drain::Trigger;
use lifecycle::readiness::Readiness;
use lifecycle::{admin, announce, notify, signals};
use prometheus::Registry;

use crate::audit::{Audit, Category, Event};
use crate::config::{Config, StoreKind};
use crate::custodians::Custodians;
use crate::daemon::{Awaited, Daemon, Parts, warn_of_shared_uids};
use crate::metrics::Metrics;
use crate::peer::Incoming;
use crate::store::{Sqlite, Vault};
use crate::{service, socket};

/// How long calls in flight may take after a signal: below systemd's default of 90 s and Kubernetes' of 30 s.
const DRAIN: Duration = Duration::from_secs(20);

/// The trust file is missing: the daemon cannot know its custodians.
#[derive(Debug, thiserror::Error)]
#[error("{} does not exist: run hsmd init --config {}", .trust.display(), .config.display())]
pub struct NoTrustFile {
    trust: PathBuf,
    config: PathBuf,
}

/// How this process was started.
pub struct Start<'a> {
    /// Where the configuration came from, for reloads.
    pub config_path: &'a Path,
    /// Where to write the bound addresses.
    pub announce: Option<&'a Path>,
    /// The installed handlers.
    pub signals: signals::Signals,
    /// What the process has given up.
    pub hardening: confine::Report,
}

/// Serves until a signal, then drains.
///
/// # Errors
/// What kept it from starting, with the whole chain.
pub async fn run(config: Config, start: Start<'_>) -> anyhow::Result<()> {
    let Start {
        config_path,
        announce,
        signals,
        hardening,
    } = start;
    let trust = config.trust_file();
    if !trust.exists() {
        return Err(NoTrustFile {
            trust,
            config: config_path.to_owned(),
        }
        .into());
    }
    anyhow::ensure!(
        !crate::restore::is_begun(&config.state_dir),
        "a restore was begun in {} and not finished: run hsmd restore again with the same backup, or hsmd restore --abandon",
        config.state_dir.display()
    );
    let trigger = Trigger::new();
    let mut reloads = signals.spawn(trigger.clone());
    let registry = Registry::new();
    lifecycle::metrics::register(&registry, "tacit_hsmd", env!("CARGO_PKG_VERSION"))?;
    lifecycle::metrics::hardening(&registry, hardening.gauges())?;
    let readiness = Readiness::new(&trigger);
    let awaited = Awaited::register(&readiness);

    // Everything that can fail is opened or bound before anything is served.
    let store = match config.store.kind {
        StoreKind::Sqlite => Sqlite::open(&config.state_dir.join("store.sqlite"))?,
    };
    let store = Vault::new(Box::new(store));
    let audit = Audit::open(&config.state_dir.join("audit"), config.audit.retention_days)
        .context("cannot open the audit log under state_dir")?;
    let workload = socket::bind(
        &config.workload_socket,
        0o660,
        config.workload_group.as_deref(),
    )?;
    let witness = socket::bind(
        &config.witness_socket(),
        0o660,
        config.workload_group.as_deref(),
    )?;
    let control = socket::bind(&config.admin_socket, 0o600, None)?;
    let pages = admin::bind(config.admin_listen).await?;
    for token in config.tokens() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&token.state_dir)
            .with_context(|| format!("cannot create {}", token.state_dir.display()))?;
    }
    let clients = config
        .tokens()
        .into_iter()
        .map(TokenClient::start)
        .collect();
    let custodians = Arc::new(match config.part {
        true => Custodians::part(clients, config.threshold),
        false => Custodians::new(clients, config.threshold),
    });
    let metrics = Metrics::register(&registry, Arc::clone(&custodians))?;
    metrics.part.set(config.part.into());

    let (workload_refused, admin_refused) = (
        metrics.connections_refused.clone(),
        metrics.connections_refused.clone(),
    );
    let old_kernel = config.rules.requirements.old_kernel;
    warn_of_shared_uids(&config);
    let addresses = Addresses {
        workload_socket: &config.workload_socket,
        admin_socket: &config.admin_socket,
        admin_listen: pages.addr(),
    };
    tracing::info!(workload = %addresses.workload_socket.display(), admin = %addresses.admin_socket.display(), pages = %addresses.admin_listen, "bound");
    if let Some(file) = announce {
        addresses.announce(file)?;
    }
    let daemon = Daemon::new(Parts {
        config,
        config_path: config_path.to_owned(),
        store,
        audit,
        custodians,
        metrics,
        hardening,
        drain: trigger.clone(),
    });
    daemon
        .audit
        .record(
            Event::new(Category::System, "daemon.start", "ok", "daemon")
                .detail(env!("CARGO_PKG_VERSION")),
        )
        .await?;
    let pages = pages.spawn("tacit_hsmd", readiness.clone(), registry)?;
    notify::spawn(readiness.clone(), trigger.clone());

    let tending = tokio::spawn(Arc::clone(&daemon).tend(awaited, trigger.watcher()));
    let stop = |trigger: Trigger| async move {
        trigger.started().await;
    };
    let (for_agents, for_operators) = (trigger.watcher(), trigger.watcher());
    let witnesses = tokio::spawn(Arc::clone(&daemon.witnesses).serve(witness.listener));
    let agents = service::serve_workload(
        Arc::clone(&daemon),
        Incoming::new(workload.listener, workload_refused).attested(old_kernel),
        stop(trigger.clone()),
    );
    let operators = service::serve_admin(
        Arc::clone(&daemon),
        Incoming::new(control.listener, admin_refused),
        stop(trigger.clone()),
    );
    let agents = tokio::spawn(async move { (agents.await, for_agents).0 });
    let operators = tokio::spawn(async move { (operators.await, for_operators).0 });

    loop {
        tokio::select! {
            Some(()) = reloads.recv() => match daemon.reload() {
                Ok(()) => tracing::info!("configuration read again"),
                Err(error) => tracing::error!(error = %format!("{error:#}"), "the new configuration is refused; the old one stays in force"),
            },
            _ = trigger.started() => break,
        }
    }
    witnesses.abort();
    drop((workload.guard, witness.guard, control.guard));
    if let Err(late) = trigger.finish(DRAIN).await {
        tracing::warn!(%late, "some calls were cut off");
    }
    agents.abort();
    operators.abort();
    tending.abort();
    for one in daemon.custodians.iter() {
        one.client.shutdown().await;
    }
    daemon
        .audit
        .record(Event::new(Category::System, "daemon.stop", "ok", "daemon"))
        .await?;
    drop(pages);
    Ok(())
}

/// Where the daemon can be reached, for whoever started it.
#[derive(Debug)]
struct Addresses<'a> {
    workload_socket: &'a Path,
    admin_socket: &'a Path,
    admin_listen: std::net::SocketAddr,
}

impl Addresses<'_> {
    /// Writes the addresses as one JSON object, atomically: a reader sees nothing or all of it.
    fn announce(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::json!({
            "workload_socket": self.workload_socket,
            "admin_socket": self.admin_socket,
            "admin_listen": self.admin_listen.to_string(),
        });
        announce::write(file, &text.to_string())
            .with_context(|| format!("cannot write {}", file.display()))
    }
}
