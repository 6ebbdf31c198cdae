//! `hsmd restore` on the command line: arguments, locks, tokens; then the ceremony.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use custody::Trust;
use custody::backup::{ACCEPTANCE_MAX_BYTES, Accepted};
use custody::trust::TRUST_MAX_BYTES;
use hsm::TokenClient;
use nix::fcntl::{Flock, FlockArg};

use super::{BackupFile, Plan, Restore, Restored, Step, abandon, stage};
use crate::config::Config;
use crate::custodians::Custodians;

/// How long token processes may take to come up: as for `init`.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// What the command line says.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The backup that `tacit backup create` wrote.
    #[arg(long, value_name = "FILE", required_unless_present = "abandon")]
    pub backup: Option<PathBuf>,
    /// Your own copy of the trust file, where the state directory has none: what a backup says of itself is no proof.
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Open and verify the backup with the tokens, say what a restore would do, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: write the order that a sealer is to sign.
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    pub order: Option<PathBuf>,
    /// The signed order: `tacit backup accept ORDER`.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub acceptance: Option<PathBuf>,
    /// Throw away a restore that was begun and of which no token knows yet.
    #[arg(long, conflicts_with_all = ["backup", "dry_run", "acceptance"])]
    pub abandon: bool,
}

/// Runs the command.
///
/// # Errors
/// What kept it, with the next step; nothing was changed unless it says so.
pub async fn run(config: &Config, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    stage::directory(&config.state_dir)?;
    let _alone = alone(config)?;
    let Some(path) = &options.backup else {
        abandon(&config.state_dir)?;
        writeln!(out, "nothing of a restore is left")?;
        return Ok(());
    };
    let trust = trust(config, options)?;
    let backup = BackupFile::open(path, &trust)?;
    writeln!(
        out,
        "backup of revision {} made at {} by hsmd {}, manifest {}",
        backup.manifest.revision,
        backup.manifest.made_at,
        backup.manifest.version,
        hex::encode(backup.manifest.hash())
    )?;
    writeln!(
        out,
        "signed by {}; every part is whole",
        backup.signed_by.join(", ")
    )?;
    let custodians = tokens(config, &trust).await?;
    let (state, days) = (&config.state_dir, config.audit.retention_days);
    let restore = Restore::new(state, backup, Arc::clone(&custodians), trust, days).await;
    let ended = match restore {
        Ok(restore) => work(options, restore, out).await,
        Err(error) => Err(error),
    };
    for one in custodians.iter() {
        one.client.shutdown().await;
    }
    ended
}

async fn work(options: &Options, mut restore: Restore, out: &mut dyn Write) -> anyhow::Result<()> {
    if options.dry_run {
        let plan = restore.plan().await?;
        if let Some(order) = &options.order {
            write_new(order, &plan.acceptance.encode())?;
        }
        return tell_plan(&plan, options, out);
    }
    let accepted = options
        .acceptance
        .as_deref()
        .map(read_accepted)
        .transpose()?;
    let actor = format!("uid:{} pid:{}", nix::unistd::getuid(), std::process::id());
    let mut reached = |_: Step| Ok(());
    let done = restore
        .apply(accepted.as_ref(), &actor, &mut reached)
        .await?;
    tell_done(&done, out)
}

fn tell_plan(plan: &Plan, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "the store inside is believed: {} keys at revision {}; tokens remember revision {}",
        plan.keys, plan.acceptance.revision, plan.remembered
    )?;
    let lost = plan.remembered.saturating_sub(plan.acceptance.revision);
    writeln!(
        out,
        "a restore loses {lost} changes and makes a new revision above all that tokens remember"
    )?;
    for (key, version) in &plan.revoked {
        writeln!(
            out,
            "version {version} of {key} was revoked since: it stays revoked"
        )?;
    }
    match &options.order {
        Some(order) => writeln!(
            out,
            "nothing was changed. Next: tacit backup accept {} --out ACCEPTANCE, then hsmd restore with --acceptance",
            order.display()
        )?,
        None => writeln!(
            out,
            "nothing was changed; --order FILE writes what a sealer is to sign"
        )?,
    }
    Ok(())
}

fn tell_done(done: &Restored, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "restored: the content of revision {} is revision {} now",
        done.from, done.revision
    )?;
    for (key, version) in &done.revoked {
        writeln!(
            out,
            "version {version} of {key} stays revoked, as the tokens remember"
        )?;
    }
    if done.own_audit {
        writeln!(
            out,
            "this machine's own audit log was kept; the one in the backup was not put in place"
        )?;
    }
    writeln!(
        out,
        "the store that was here, if any, is kept beside the new one. Next: start hsmd, then tacit status and tacit key verify"
    )?;
    Ok(())
}

/// No daemon and no other restore works on this state.
fn alone(config: &Config) -> anyhow::Result<Flock<File>> {
    if UnixStream::connect(&config.admin_socket).is_ok() {
        bail!(
            "hsmd runs: it listens on {}; stop it first",
            config.admin_socket.display()
        );
    }
    let path = config.state_dir.join("restore.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| anyhow::Error::new(error))
        .context("another restore runs on this state directory")
}

/// The trust file: this machine's, or the operator's own copy; never the one inside the backup.
fn trust(config: &Config, options: &Options) -> anyhow::Result<Trust> {
    let read = |path: &Path| -> anyhow::Result<Trust> {
        let bytes = read_bounded(path, TRUST_MAX_BYTES)?;
        Trust::parse(&bytes).with_context(|| format!("{} is refused", path.display()))
    };
    let own = config.trust_file();
    let installed = own.exists().then(|| read(&own)).transpose()?;
    let given = options.trust.as_deref().map(read).transpose()?;
    match (installed, given) {
        (Some(installed), Some(given)) => {
            ensure!(
                installed == given,
                "trust_differs: {} is not what --trust names; find out why before anything else",
                own.display()
            );
            Ok(installed)
        }
        (Some(trust), None) | (None, Some(trust)) => Ok(trust),
        (None, None) => bail!(
            "{} does not exist: name your own copy of the trust file with --trust FILE (operators and agents have one)",
            own.display()
        ),
    }
}

fn read_bounded(path: &Path, max: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bound = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)
        .and_then(|file| file.take(bound).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        bytes.len() <= max,
        "{} is longer than {max} bytes",
        path.display()
    );
    Ok(bytes)
}

fn read_accepted(path: &Path) -> anyhow::Result<Accepted> {
    let bytes = read_bounded(path, 2 * ACCEPTANCE_MAX_BYTES)?;
    Accepted::parse(&bytes).with_context(|| format!("{} is refused", path.display()))
}

fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Starts the token processes, waits until each is up or known not to be, and compares them with their pins.
async fn tokens(config: &Config, trust: &Trust) -> anyhow::Result<Arc<Custodians>> {
    for token in config.tokens() {
        fs::create_dir_all(&token.state_dir)
            .with_context(|| format!("cannot create {}", token.state_dir.display()))?;
    }
    let clients = config
        .tokens()
        .into_iter()
        .map(TokenClient::start)
        .collect();
    let custodians = Arc::new(Custodians::new(clients, config.threshold));
    for one in custodians.all() {
        let mut health = one.client.health();
        let settled = health.wait_for(|health| !matches!(health, hsm::Health::Starting));
        // Whoever is not up by then is missing, and named so.
        let _ = tokio::time::timeout(START_DEADLINE, settled).await;
        if one.client.health().borrow().is_up()
            && let Err(error) = one.examine(trust).await
        {
            tracing::warn!(custodian = %one.id, %error, "custodian is not used");
        }
    }
    Ok(custodians)
}
