//! `tacit backup`: the daemon's state as one file, checked where it arrives; and an operator's word that it may be restored.
//!
//! What `verify` can tell without a token: that at least t pinned custodians signed the manifest and that every byte is the
//! one that they signed for. Whether the store inside opens and is believed takes t tokens: `hsmd restore --dry-run`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use custody::Trust;
use custody::backup::{ACCEPTANCE_MAX_BYTES, Acceptance, BackupManifest, Checker, Head};
use proto::v1::CreateBackupRequest;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::Answer;
use crate::args::{BackupVerb, RestoreBackup};
use crate::client::{self, unary};
use crate::config::Paths;
use crate::failure::Refusal;
use crate::files::{self, Arriving};
use crate::output::{Output, clean, fields, moment};
use crate::{sealer, terminal, trust};

/// Bytes read at a time.
const READ: usize = 256 * 1024;

/// `tacit backup …`
pub(crate) async fn run(verb: BackupVerb, paths: &Paths, output: &Output) -> Answer {
    match verb {
        BackupVerb::Create { file } => create(&file, paths, output).await,
        BackupVerb::Verify { file } => verify(&file, paths, output),
        BackupVerb::Accept { order, out } => accept(&order, &out, paths, output),
        BackupVerb::Restore(options) => restore(&options, paths, output).await,
    }
}

async fn create(path: &Path, paths: &Paths, output: &Output) -> Answer {
    // The pins are looked for first: a backup that this operator could not verify is not worth the wait.
    let trust = trust::load(&paths.trust)?;
    let mut file = Arriving::begin(path)?;
    let mut daemon = client::connect(&paths.socket).await?;
    let mut stream = unary(daemon.admin.create_backup(CreateBackupRequest {})).await?;
    let (mut checker, mut whole) = (Checker::new(), false);
    while let Some(chunk) = stream
        .message()
        .await
        .map_err(|status| Refusal::new(&status))?
    {
        checker.feed(&chunk.data).context("what the daemon sent")?;
        file.write(&chunk.data)?;
        whole |= chunk.last;
    }
    ensure!(
        whole,
        "the daemon's answer ended too early: nothing was kept"
    );
    let (head, _) = checker.finish().context("what the daemon sent")?;
    let signed = believed(&head, &trust)?;
    file.keep()?;
    let text = format!("{}\n{}", render(&head.manifest, &signed), NEXT);
    output.result(&text, &to_json(&head.manifest, &signed));
    Ok(true)
}

const NEXT: &str = "It holds ciphertext, names in the audit log, and pins; without its tokens nothing of it opens. Keep it where the\ntokens are not, and try it now and then: hsmd restore --dry-run --backup FILE";

/// Who signed, or why that is not enough.
fn believed(head: &Head, trust: &Trust) -> anyhow::Result<Vec<String>> {
    let vouchers = head.vouchers(trust);
    if !vouchers.bad.is_empty() {
        let names = vouchers.bad.join(", ");
        bail!("backup_edited: the manifest is not what custodian {names} signed");
    }
    let (found, needed) = (vouchers.good.len(), usize::from(trust.threshold));
    ensure!(
        found >= needed,
        "backup_not_signed: {found} custodians that the trust file pins signed this backup, {needed} are needed; it was made \
         elsewhere, or this trust file is another one's"
    );
    Ok(vouchers.good)
}

fn verify(path: &Path, paths: &Paths, output: &Output) -> Answer {
    let trust = trust::load(&paths.trust)?;
    let failed = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let (mut checker, mut buffer) = (Checker::new(), vec![0; READ]);
    loop {
        match file.read(&mut buffer).with_context(failed)? {
            0 => break,
            read => checker.feed(&buffer[..read])?,
        }
    }
    let (head, _) = checker.finish()?;
    let signed = believed(&head, &trust)?;
    let text = format!(
        "{}\nnot checked here: whether the store inside is believed; that takes {} of these tokens: hsmd restore --dry-run --backup FILE",
        render(&head.manifest, &signed),
        head.manifest.threshold
    );
    output.result(&text, &to_json(&head.manifest, &signed));
    Ok(true)
}

fn render(manifest: &BackupManifest, signed: &[String]) -> String {
    let tokens: Vec<String> = manifest
        .tokens
        .iter()
        .map(|token| {
            format!(
                "{} (serial {}, label {})",
                token.id, token.serial, token.label
            )
        })
        .collect();
    let made_at = i64::try_from(manifest.made_at).unwrap_or(i64::MAX);
    fields(&[
        ("manifest", hex::encode(manifest.hash())),
        (
            "made",
            format!("{} by hsmd {}", moment(made_at), clean(&manifest.version)),
        ),
        ("store revision", manifest.revision.to_string()),
        ("audit records", manifest.audit_records.to_string()),
        ("signed by", signed.join(", ")),
        ("parts", format!("{}, all whole", manifest.parts.len())),
        (
            "a restore takes",
            format!("{} of: {}", manifest.threshold, clean(&tokens.join("; "))),
        ),
    ])
}

fn to_json(manifest: &BackupManifest, signed: &[String]) -> Value {
    let token = |one: &custody::backup::TokenEntry| {
        json!({
            "custodian": one.id.as_str(), "serial": one.serial, "label": one.label,
            "fingerprint": one.fingerprint.to_string(),
        })
    };
    let part = |one: &custody::backup::PartEntry| json!({"name": one.name, "bytes": one.length, "sha256": hex::encode(one.hash)});
    json!({
        "manifest_sha256": hex::encode(manifest.hash()), "version": manifest.version,
        "made_at": manifest.made_at, "revision": manifest.revision,
        "audit_records": manifest.audit_records, "threshold": manifest.threshold,
        "tokens": manifest.tokens.iter().map(token).collect::<Vec<_>>(),
        "parts": manifest.parts.iter().map(part).collect::<Vec<_>>(),
        "signed_by": signed, "needs_tokens": "whether the store inside is believed",
    })
}

fn accept(order: &Path, out: &Path, paths: &Paths, output: &Output) -> Answer {
    let acceptance = read_order(order)?;
    sign(acceptance, out, paths, output)
}

fn read_order(order: &Path) -> anyhow::Result<Acceptance> {
    let bytes = files::read(order, ACCEPTANCE_MAX_BYTES)?;
    Acceptance::parse(&bytes).with_context(|| format!("{} is refused", order.display()))
}

fn sign(acceptance: Acceptance, out: &Path, paths: &Paths, output: &Output) -> Answer {
    let trust = trust::load(&paths.trust)?;
    let signer = sealer::load(&paths.sealer, Some(&trust))?;
    let name = trust.sealer_name(&signer.public()).context(
        "the trust file does not pin this sealer: the daemon would refuse what it signs",
    )?;
    let remembered = acceptance
        .remembered
        .iter()
        .map(|(_, revision, _)| *revision);
    let latest = remembered.max().unwrap_or(0);
    let text = fields(&[
        ("accepted by", name.to_owned()),
        ("backup (manifest)", hex::encode(acceptance.backup)),
        ("its revision", acceptance.revision.to_string()),
        ("tokens remember", latest.to_string()),
        (
            "changes that are lost",
            latest.saturating_sub(acceptance.revision).to_string(),
        ),
        ("acceptance", out.display().to_string()),
    ]);
    let told = json!({
        "sealer": name, "manifest_sha256": hex::encode(acceptance.backup),
        "revision": acceptance.revision, "remembered": latest,
    });
    let accepted = acceptance
        .sign(signer.as_ref())
        .map_err(|text| anyhow::anyhow!("the sealer did not sign: {text}"))?;
    files::create_new(out, &accepted.encode(), 0o600)?;
    output.result(&text, &told);
    Ok(true)
}

/// All of it where sealer and daemon are on one machine: `hsmd restore --dry-run`, the operator's yes, `hsmd restore`.
async fn restore(options: &RestoreBackup, paths: &Paths, output: &Output) -> Answer {
    let work = work_beside(&options.file)?;
    let (order, accepted) = (work.join("order"), work.join("acceptance"));
    let ended = ceremony(options, &order, &accepted, paths, output).await;
    // Ours alone, and of no use to anybody afterwards: an acceptance is good for one restore.
    let _ = std::fs::remove_dir_all(&work);
    ended
}

async fn ceremony(
    options: &RestoreBackup,
    order: &Path,
    accepted: &Path,
    paths: &Paths,
    output: &Output,
) -> Answer {
    let mut look = hsmd(options, paths)?;
    look.arg("--dry-run").arg("--order").arg(order);
    if !run_to_end(&mut look).await? {
        return Ok(false);
    }
    if options.dry_run {
        return Ok(true);
    }
    if !options.yes {
        terminal::confirm(
            "Restore this, and lose what came after it?",
            "--yes answers",
        )?;
    }
    sign(read_order(order)?, accepted, paths, output)?;
    let mut apply = hsmd(options, paths)?;
    apply.arg("--acceptance").arg(accepted);
    run_to_end(&mut apply).await
}

fn hsmd(options: &RestoreBackup, paths: &Paths) -> anyhow::Result<Command> {
    let mut command = Command::new(crate::dev::children::sibling("hsmd")?);
    command
        .arg("--config")
        .arg(&options.config)
        .arg("restore")
        .arg("--backup")
        .arg(&options.file)
        .arg("--trust")
        .arg(&paths.trust)
        .kill_on_drop(true)
        .stdin(std::process::Stdio::null());
    Ok(command)
}

async fn run_to_end(command: &mut Command) -> anyhow::Result<bool> {
    let status = command.status().await.context("cannot start hsmd")?;
    Ok(status.success())
}

/// A directory of ours alone beside the backup.
fn work_beside(file: &Path) -> anyhow::Result<std::path::PathBuf> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let dir = file.with_file_name(format!(".{name}.{}.restore", std::process::id()));
    files::create_directory(&dir)?;
    Ok(dir)
}
