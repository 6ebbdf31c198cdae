//! Backup and restore with real processes: made while it serves, verified anywhere, restored by a ceremony that can be
//! killed at every step.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, bail, ensure};
use custody::FileSealer;
use custody::backup::{Accepted, Head};
use hsmd::restore::{BackupFile, Restore, Step};
use secret::Secret;
use serde_json::Value;
use tests::daemon::Post;
use tests::process::bin;
use tests::stack::{self, Stack};
use tests::upstream::Provider;
use tests::vault::Insider;

const ADD: [&str; 5] = [
    "--provider",
    "openai",
    "--upstream",
    "https://api.openai.com",
    "--no-test",
];
const PLANTED: &str = "planted description that no thief may read";

fn add(stack: &Stack, id: &str) -> anyhow::Result<()> {
    let arguments = [&["key", "add", id, "--description", PLANTED], &ADD[..]].concat();
    stack.tacit_json(&arguments, tests::fixture::key(Provider::OpenAi).as_bytes())?;
    Ok(())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A command that must be refused, and what it says.
fn refused(command: Command, name: &str) -> anyhow::Result<String> {
    let output = stack::run(command, b"")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && said.contains(name),
        "no {name}: {} {said}",
        output.status
    );
    Ok(said)
}

#[test]
fn a_backup_is_made_while_writes_go_on_and_one_that_was_changed_is_named() -> anyhow::Result<()> {
    let stack = Stack::plain()?;
    add(&stack, "one")?;
    let outside = tempfile::tempdir()?;
    let (done, writes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut made: Vec<(PathBuf, Value)> = Vec::new();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let writer = scope.spawn(|| -> anyhow::Result<()> {
            while !done.load(Ordering::SeqCst) {
                let text = format!("{PLANTED} {}", writes.load(Ordering::SeqCst));
                stack.tacit_json(
                    &["key", "set", "one", "--description", &text, "--no-wait"],
                    b"",
                )?;
                writes.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        let backups = (|| {
            for at in 0..4 {
                let file = outside.path().join(format!("{at}.backup"));
                let told = stack.tacit_json(&["backup", "create", text(&file)], b"")?;
                made.push((file, told));
            }
            anyhow::Ok(())
        })();
        done.store(true, Ordering::SeqCst);
        writer.join().unwrap()?;
        backups
    })?;
    ensure!(
        writes.load(Ordering::SeqCst) > 2,
        "nothing was written meanwhile"
    );
    let revisions: Vec<u64> = made
        .iter()
        .map(|(_, told)| told["revision"].as_u64().unwrap())
        .collect();
    ensure!(
        revisions.windows(2).all(|pair| pair[0] < pair[1]),
        "{revisions:?}"
    );

    // What rests shows nothing of the definition, the daemon's own journal included; the command shows that it is there.
    let state = stack.path("hsmd_config")?.parent().unwrap().join("state");
    let store: Vec<PathBuf> = fs::read_dir(&state)?
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("store.sqlite")
        })
        .collect();
    ensure!(store.len() >= 2, "no journal: {store:?}");
    let holds = |path: &PathBuf| {
        memchr::memmem::find(&fs::read(path).unwrap(), PLANTED.as_bytes()).is_some()
    };
    ensure!(!store.iter().any(holds), "the definition rests in clear");
    let shown = stack.tacit_json(&["key", "show", "one"], b"")?.to_string();
    ensure!(shown.contains(PLANTED), "{shown}");

    let (file, told) = &made[0];
    ensure!(
        fs::metadata(file)?.permissions().mode() & 0o777 == 0o600,
        "its mode"
    );
    let verified = stack.tacit_json(&["backup", "verify", text(file)], b"")?;
    ensure!(verified == *told, "{verified} is not {told}");
    ensure!(
        verified["threshold"] == 2 && verified["tokens"].as_array().unwrap().len() == 3,
        "{verified}"
    );
    // It is never overwritten.
    let before = fs::read(file)?;
    refused(stack.command(&["backup", "create", text(file)])?, "exists")?;
    ensure!(fs::read(file)? == before, "it was overwritten");

    let edited = outside.path().join("edited");
    let (head, used) = Head::parse(&before)?.context("a whole head")?;
    let bytes = before.len();
    for at in [4, 60, used - 20, used, used + (bytes - used) / 2, bytes - 1] {
        let mut changed = before.clone();
        changed[at] ^= 1;
        fs::write(&edited, changed)?;
        refused(
            stack.command(&["backup", "verify", text(&edited)])?,
            "backup",
        )?;
    }
    for (name, changed) in [
        ("cut short", before[..bytes - 1].to_vec()),
        ("after its end", [&before[..], b"x"].concat()),
    ] {
        fs::write(&edited, changed)?;
        refused(stack.command(&["backup", "verify", text(&edited)])?, name)?;
    }
    // Whole, and signed by nobody that counts: one signature is not two.
    let lone = Head {
        signatures: head.signatures[..1].to_vec(),
        ..head
    };
    fs::write(&edited, [&lone.encode()[..], &before[used..]].concat())?;
    refused(
        stack.command(&["backup", "verify", text(&edited)])?,
        "backup_not_signed",
    )?;
    Ok(())
}

/// A machine whose daemon is stopped, and a backup from before its last changes: `one` is there, `two` was revoked since,
/// `three` was added since.
struct Disaster {
    post: Post,
    config: PathBuf,
    state: PathBuf,
    backup: PathBuf,
    sealer: PathBuf,
    trust: PathBuf,
    outside: tempfile::TempDir,
}

impl Disaster {
    fn scene() -> anyhow::Result<Self> {
        let stack = Stack::plain()?;
        for id in ["one", "two"] {
            add(&stack, id)?;
        }
        let outside = tempfile::tempdir()?;
        let backup = outside.path().join("tacit.backup");
        stack.tacit_json(&["backup", "create", text(&backup)], b"")?;
        stack.tacit_json(&["key", "revoke", "two", "--no-wait"], b"")?;
        add(&stack, "three")?;
        let config = stack.path("hsmd_config")?;
        let state = config.parent().unwrap().join("state");
        let trust = outside.path().join("operators-own.json");
        fs::copy(stack.environment("TACIT_TRUST")?, &trust)?;
        let sealer = PathBuf::from(stack.environment("TACIT_SEALER")?);
        Ok(Self {
            post: stack.into_post()?,
            config,
            state,
            backup,
            sealer,
            trust,
            outside,
        })
    }

    /// The disk is gone: store and audit log; tokens and configuration are not.
    fn lose_disk(&self) -> anyhow::Result<()> {
        for entry in fs::read_dir(&self.state)? {
            let path = entry?.path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("store.sqlite") {
                fs::remove_file(&path)?;
            } else if name == "audit" || name.starts_with("before-restore") {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    fn hsmd(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(bin("hsmd")?);
        command.arg("--config").arg(&self.config).arg("restore");
        command.arg("--backup").arg(&self.backup).args(arguments);
        Ok(command)
    }

    /// What is served now: `one` as it was, `two` revoked, `three` unknown.
    fn is_restored(&mut self) -> anyhow::Result<()> {
        let daemon = self.post.start()?;
        let list = self.post.tacit_json(&["key", "list"])?;
        let keys: Vec<(String, String)> = list["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| {
                (
                    key["key_id"].as_str().unwrap().to_owned(),
                    key["state"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        let wanted = [("one", "active"), ("two", "deactivated")];
        ensure!(
            keys == wanted.map(|(id, state)| (id.to_owned(), state.to_owned())),
            "{keys:?}"
        );
        self.post.tacit_json(&["key", "verify", "one"])?;
        drop(daemon);
        Ok(())
    }
}

#[test]
fn a_lost_machine_is_restored_by_ceremony_and_what_was_revoked_stays_revoked() -> anyhow::Result<()>
{
    let mut scene = Disaster::scene()?;
    // A running daemon is not restored under its feet.
    let daemon = scene.post.start()?;
    refused(scene.hsmd(&["--dry-run"])?, "hsmd runs")?;
    let mut daemon = daemon;
    daemon.process().signal(nix::sys::signal::Signal::SIGTERM)?;
    daemon.process().exit()?;
    drop(daemon);
    scene.lose_disk()?;
    fs::remove_file(scene.state.join("custodians.json"))?;

    // Nothing inside a backup says whom to trust.
    refused(scene.hsmd(&["--dry-run"])?, "--trust")?;
    let trust = text(&scene.trust).to_owned();
    // Two of three tokens away: one is not enough, and the missing ones are named.
    let config = fs::read_to_string(&scene.config)?;
    let without = config
        .replace("\"tacit-b\"", "\"gone-b\"")
        .replace("\"tacit-c\"", "\"gone-c\"");
    ensure!(without != config, "no labels in {config}");
    fs::write(&scene.config, &without)?;
    let said = refused(
        scene.hsmd(&["--trust", &trust, "--dry-run"])?,
        "tokens_missing",
    )?;
    ensure!(
        said.contains("label tacit-b")
            && said.contains("label tacit-c")
            && !said.contains("label tacit-a"),
        "{said}"
    );
    ensure!(said.contains("emergency shares"), "no next step: {said}");
    fs::write(&scene.config, &config)?;

    // Enough tokens, and nobody's word that it may be.
    refused(scene.hsmd(&["--trust", &trust])?, "acceptance_missing")?;
    ensure!(!scene.state.join("restore").exists(), "something was begun");
    let order = scene.outside.path().join("order");
    let looked = stack::run(
        scene.hsmd(&["--trust", &trust, "--dry-run", "--order", text(&order)])?,
        b"",
    )?;
    let said = String::from_utf8_lossy(&looked.stdout).into_owned();
    ensure!(
        looked.status.success()
            && said.contains("version 1 of two was revoked since")
            && said.contains("2 keys"),
        "{said} {}",
        String::from_utf8_lossy(&looked.stderr)
    );
    ensure!(
        !scene.state.join("store.sqlite").exists(),
        "a dry run changed something"
    );
    // A word that was changed afterwards is nobody's.
    let accepted = scene.outside.path().join("acceptance");
    let accept = |out: &Path| -> anyhow::Result<Command> {
        let arguments = [
            "backup",
            "accept",
            text(&order),
            "--out",
            text(out),
            "--trust",
            &trust,
        ];
        scene.post.command(&arguments)
    };
    ensure!(
        stack::run(accept(&accepted)?, b"")?.status.success(),
        "accept failed"
    );
    let good = fs::read(&accepted)?;
    let mut bad = good.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    fs::write(&accepted, bad)?;
    let with = ["--trust", &trust, "--acceptance", text(&accepted)];
    refused(scene.hsmd(&with)?, "acceptance_refused")?;
    fs::write(&accepted, good)?;
    let output = stack::run(scene.hsmd(&with)?, b"")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    scene.is_restored()?;
    let audit: String = fs::read_dir(scene.state.join("audit"))?
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for words in [
        "accepted by sealer",
        "\"backup.create\"",
        "\"outcome\":\"finished\"",
    ] {
        ensure!(audit.contains(words), "{words} is not in the audit log");
    }
    // The word was for that one restore.
    scene.lose_disk()?;
    refused(scene.hsmd(&with)?, "acceptance_refused")?;
    // In one command, where everything is on one machine.
    let config = text(&scene.config).to_owned();
    let backup = text(&scene.backup).to_owned();
    let arguments = [
        "backup", "restore", &backup, "--config", &config, "--yes", "--trust", &trust,
    ];
    let output = stack::run(scene.post.command(&arguments)?, b"")?;
    ensure!(
        output.status.success(),
        "{} {}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    scene.is_restored()
}

/// The sealer of a development stack, from its file.
fn sealer(path: &Path) -> anyhow::Result<FileSealer> {
    let line = fs::read_to_string(path)?;
    let digits = line.trim_end().rsplit(' ').next().context("a seed")?;
    let seed: [u8; 32] = hex::decode(digits)?.try_into().ok().context("32 bytes")?;
    Ok(FileSealer::from_seed(&Secret::new(Box::new(seed)))?)
}

#[test]
fn a_restore_that_is_killed_at_any_step_goes_on_from_there() -> anyhow::Result<()> {
    let mut scene = Disaster::scene()?;
    let insider = Insider::new(&scene.config)?;
    let sealer = sealer(&scene.sealer)?;
    let steps = [
        Step::Prepared,
        Step::AuditPlaced,
        Step::AcceptanceAudited,
        Step::Committing,
        Step::Committed,
        Step::StorePlaced,
    ];
    let restore = async || {
        let file = BackupFile::open(&scene.backup, &insider.trust)?;
        let custodians = Arc::clone(&insider.custodians);
        Restore::new(&scene.state, file, custodians, insider.trust.clone(), 365).await
    };
    for last in steps {
        scene.lose_disk()?;
        let accepted: Accepted = insider.runtime.block_on(async {
            let plan = restore().await?.plan().await?;
            plan.acceptance.sign(&sealer).map_err(anyhow::Error::msg)
        })?;
        let killed = insider.runtime.block_on(async {
            let mut die = |step: Step| {
                if step == last {
                    bail!("killed here");
                }
                Ok(())
            };
            restore()
                .await?
                .apply(Some(&accepted), "test", &mut die)
                .await
        });
        let error = killed.map(|_| ()).unwrap_err().to_string();
        ensure!(error.contains("killed here"), "{last:?}: {error}");
        ensure!(hsmd::restore::is_begun(&scene.state), "{last:?}");
        // No daemon starts on half of it; before tokens know of it, it can be taken back.
        let mut command = Command::new(bin("hsmd")?);
        command.arg("--config").arg(&scene.config);
        refused(command, "a restore was begun")?;
        let done = insider.runtime.block_on(async {
            let mut go_on = |_: Step| Ok(());
            restore()
                .await?
                .apply(Some(&accepted), "test", &mut go_on)
                .await
        });
        let done = done.with_context(|| format!("after {last:?}"))?;
        ensure!(done.revision > done.from, "{last:?}: {done:?}");
        ensure!(!hsmd::restore::is_begun(&scene.state), "{last:?}");
        let audit: String = fs::read_dir(scene.state.join("audit"))?
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        ensure!(
            audit.contains("accepted by sealer"),
            "{last:?}: not audited"
        );
    }
    // And one that is thrown away before tokens know of it.
    scene.lose_disk()?;
    let accepted = insider.runtime.block_on(async {
        let plan = restore().await?.plan().await?;
        plan.acceptance.sign(&sealer).map_err(anyhow::Error::msg)
    })?;
    let killed = insider.runtime.block_on(async {
        let mut die = |_: Step| bail!("killed here");
        restore()
            .await?
            .apply(Some(&accepted), "test", &mut die)
            .await
    });
    ensure!(killed.is_err(), "it was killed");
    hsmd::restore::abandon(&scene.state)?;
    ensure!(!hsmd::restore::is_begun(&scene.state), "it is gone");
    let done = insider.runtime.block_on(async {
        let mut go_on = |_: Step| Ok(());
        restore()
            .await?
            .apply(Some(&accepted), "test", &mut go_on)
            .await
    });
    done?;
    drop(insider);
    scene.is_restored()
}
