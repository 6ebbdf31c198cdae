//! The attackers of the store: whoever can write the database, the trust file or the configuration. Each change is
//! refused by its own name; the untouched neighbour is served. Most of them are given even the store's key: what is believed
//! must not rest on its secrecy.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use hsmd::store::{Loaded, Row};
use rusqlite::Connection;
use tests::daemon::Post;
use tests::process::{Process, bin, eventually};
use tests::stack::{self, Stack};
use tests::vault::Insider;

/// The place, the daemon's files in it, and copies of the database at two moments.
struct Crime {
    post: Post,
    config: PathBuf,
    store: PathBuf,
    now: PathBuf,
    earlier: PathBuf,
}

const ADD: [&str; 5] = [
    "--provider",
    "openai",
    "--upstream",
    "https://api.openai.com",
    "--no-test",
];

impl Crime {
    /// Two keys; `one` was rotated, `two` revoked, `three` destroyed. `earlier` is from before the last of those.
    fn scene() -> anyhow::Result<Self> {
        let stack = Stack::plain()?;
        let key_text = tests::fixture::key(tests::upstream::Provider::OpenAi);
        let key = key_text.as_bytes();
        for id in ["one", "two", "three"] {
            stack.tacit_json(&[&["key", "add", id], &ADD[..]].concat(), key)?;
        }
        stack.tacit_json(&["key", "revoke", "three", "--no-wait"], b"")?;
        let config = stack.path("hsmd_config")?;
        let mut post = stack.into_post()?;
        let state = config.parent().context("a directory")?.join("state");
        let store = state.join("store.sqlite");
        let (earlier, now) = (state.join("earlier.copy"), state.join("now.copy"));
        fs::copy(&store, &earlier)?;
        let daemon = post.start()?;
        let mut rotate = post.command(&[
            "key",
            "rotate",
            "one",
            "--no-wait",
            "--upstream",
            "https://api.openai.com",
        ])?;
        rotate.args(["--output", "json"]);
        ensure!(stack::run(rotate, key)?.status.success(), "rotate failed");
        post.tacit_json(&["key", "revoke", "two", "--no-wait"])?;
        post.tacit_json(&["key", "destroy", "three", "--yes"])?;
        let mut daemon = daemon;
        daemon.process().signal(nix::sys::signal::Signal::SIGTERM)?;
        daemon.process().exit()?;
        drop(daemon);
        fs::copy(&store, &now)?;
        Ok(Self {
            post,
            config,
            store,
            now,
            earlier,
        })
    }

    /// Puts a copy of the database in place, without any journal of another one.
    fn place(&self, copy: &Path) -> anyhow::Result<()> {
        for suffix in ["-wal", "-shm"] {
            let mut path = self.store.clone().into_os_string();
            path.push(suffix);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        fs::copy(copy, &self.store)?;
        Ok(())
    }

    /// Changes the content of the present store with `crime`, by one who has its key; starts the daemon, and expects this
    /// refusal and nothing served.
    fn refuses(
        &mut self,
        name: &str,
        crime: impl FnOnce(&mut Loaded, &Loaded),
    ) -> anyhow::Result<()> {
        let insider = Insider::new(&self.config)?;
        self.place(&self.earlier)?;
        let earlier = insider.read(&self.store)?;
        self.place(&self.now)?;
        let mut now = insider.read(&self.store)?;
        crime(&mut now, &earlier);
        insider.rewrite(&self.store, &now)?;
        drop(insider);
        self.serves_nothing(name)
    }

    /// The same by one who has only the file.
    fn refuses_outside(&mut self, name: &str, crime: &str) -> anyhow::Result<()> {
        self.place(&self.now)?;
        let changed = Connection::open(&self.store)?.execute(crime, [])?;
        ensure!(changed > 0, "{crime} changed nothing");
        self.serves_nothing(name)
    }

    fn serves_nothing(&mut self, name: &str) -> anyhow::Result<()> {
        let before = fs::read(&self.store)?;
        let mut command = Command::new(bin("hsmd")?);
        command.arg("--config").arg(&self.config);
        let mut process = Process::start(&format!("refused-{name}"), command, self.post.dir())?;
        process
            .stderr_line(name)
            .with_context(|| format!("no {name}: {}", process.output().1))?;
        let output = eventually("the daemon answers", || {
            let output = stack::run(self.post.command(&["key", "list"]).ok()?, b"").ok()?;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            text.contains(name).then_some((output.status.code(), text))
        })?;
        ensure!(output.0 == Some(1), "{output:?}");
        process.signal(nix::sys::signal::Signal::SIGTERM)?;
        process.exit()?;
        drop(process);
        // What is refused is left as it was found, for whoever investigates.
        let after = fs::read(&self.store)?;
        ensure!(
            rows(&self.store)? > 0 || after == before,
            "{name}: the refused store was changed"
        );
        Ok(())
    }
}

fn rows(store: &Path) -> anyhow::Result<i64> {
    Ok(Connection::open(store)?.query_row("SELECT count(*) FROM sealed", [], |row| row.get(0))?)
}

fn row<'a>(loaded: &'a mut Loaded, kind: &str, id: &str) -> &'a mut Row {
    let mut rows = loaded.rows.iter_mut();
    rows.find(|row| row.kind.name() == kind && row.id == id)
        .unwrap()
}

/// Puts a row with its MACs as it is in another store.
fn copy_row(from: &Loaded, to: &mut Loaded, kind: &str, id: &str) {
    let found = from
        .rows
        .iter()
        .find(|row| row.kind.name() == kind && row.id == id);
    to.rows
        .retain(|row| row.kind.name() != kind || row.id != id);
    to.rows.push(found.unwrap().clone());
}

#[test]
fn every_change_of_a_store_has_its_own_name_and_the_untouched_one_is_served() -> anyhow::Result<()>
{
    let mut crime = Crime::scene()?;
    for kind in ["key", "version", "share"] {
        let id = match kind {
            "key" => "one",
            "version" => "one/2",
            _ => "one/2/1",
        };
        crime.refuses("record_edited", |now, _| {
            let record = &mut row(now, kind, id).record;
            let last = record.len() - 2;
            record[last] ^= 1;
        })?;
    }
    crime.refuses("record_swapped", |now, _| {
        let one = row(now, "version", "one/1").record.clone();
        let two = std::mem::replace(&mut row(now, "version", "two/1").record, one);
        row(now, "version", "one/1").record = two;
    })?;
    // The revoked version as it was before, authentic in every byte.
    crime.refuses("record_older", |now, earlier| {
        copy_row(earlier, now, "version", "two/1")
    })?;
    crime.refuses("record_missing", |now, _| {
        now.rows.retain(|row| row.id != "two/1");
    })?;
    // The share of a destroyed version, put back.
    crime.refuses("record_extra", |now, earlier| {
        copy_row(earlier, now, "share", "three/1/1")
    })?;
    crime.refuses("inventory_edited", |now, _| {
        let last = now.inventory.as_mut().unwrap().last_mut().unwrap();
        *last ^= 1;
    })?;
    // One custodian's word, as a stolen token could give it, against the two that a key needs.
    crime.refuses("not vouched", |now, _| {
        now.inventory_macs.retain(|mac| mac.custodian == "c");
        assert_eq!(now.inventory_macs.len(), 1);
    })?;
    let another = "(SELECT sealed FROM sealed WHERE area = 'inventory')";
    crime.refuses_outside(
        "row_changed",
        &format!("UPDATE sealed SET sealed = {another}"),
    )?;
    crime.refuses_outside("store_key_edited", "DELETE FROM key_part")?;
    let odd = "INSERT INTO sealed (area, name, epoch, sealed) VALUES ('spell', x'00', 1, x'00')";
    crime.refuses_outside("row_changed", odd)?;
    // A whole store from before the revocation.
    crime.place(&crime.earlier.clone())?;
    crime.serves_nothing("store_older")?;
    // No store at all, with tokens that remember one.
    fs::remove_file(&crime.store)?;
    let mut command = Command::new(bin("hsmd")?);
    command.arg("--config").arg(&crime.config);
    let mut process = Process::start("emptied", command, crime.post.dir())?;
    process.stderr_line("store_older")?;
    drop(process);

    crime.place(&crime.now.clone())?;
    let daemon = crime.post.start()?;
    let list = crime.post.tacit_json(&["key", "list"])?;
    ensure!(
        list["keys"].as_array().is_some_and(|keys| keys.len() == 3),
        "{list}"
    );
    crime.post.tacit_json(&["key", "verify", "one"])?;
    drop(daemon);
    Ok(())
}

/// An operator who loses patience at any moment: the daemon finishes what it began, and its store stays one.
#[test]
fn a_client_that_goes_away_leaves_no_half_written_change() -> anyhow::Result<()> {
    let stack = Stack::plain()?;
    let key = tests::fixture::key(tests::upstream::Provider::OpenAi).as_bytes();
    let outside = tempfile::tempdir()?;
    for round in 0..40u64 {
        let id = format!("x{round}");
        let sealed = stack.tacit(&[&["key", "seal", &id], &ADD[..4]].concat(), key)?;
        let file = outside.path().join(&id);
        fs::write(&file, sealed.stdout)?;
        let file = file.to_str().context("temporary paths are text")?;
        let mut child = stack
            .command(&["key", "add", &id, "--no-test", "--sealed", file])?
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        // Spread over the time that an addition takes; some come too early, some too late.
        std::thread::park_timeout(std::time::Duration::from_millis(2 + round));
        child.kill()?;
        child.wait()?;
    }
    stack.tacit_json(&[&["key", "add", "last"], &ADD[..]].concat(), key)?;
    stack.tacit_json(&["key", "revoke", "last", "--no-wait"], b"")?;
    let ids = |list: serde_json::Value| -> Vec<String> {
        let keys = list["keys"].as_array().cloned().unwrap_or_default();
        let id = |key: &serde_json::Value| key["key_id"].as_str().unwrap_or_default().to_owned();
        keys.iter().map(id).collect()
    };
    let before = ids(stack.tacit_json(&["key", "list"], b"")?);
    ensure!(
        before.len() > 1,
        "every client was killed too early: {before:?}"
    );
    let mut post = stack.into_post()?;
    let daemon = post.start()?;
    ensure!(
        ids(post.tacit_json(&["key", "list"])?) == before,
        "the restart changed the keys"
    );
    for id in before.iter().filter(|id| *id != "last") {
        post.tacit_json(&["key", "verify", id])?;
    }
    drop(daemon);
    Ok(())
}

#[test]
fn a_store_that_is_newer_foreign_or_damaged_says_so_and_is_left_alone() -> anyhow::Result<()> {
    let crime = Crime::scene()?;
    let start = |name: &str| -> anyhow::Result<(Option<i32>, String)> {
        let mut command = Command::new(bin("hsmd")?);
        command.arg("--config").arg(&crime.config);
        let mut process = Process::start(name, command, crime.post.dir())?;
        let status = process.exit()?;
        Ok((status.code(), process.output().1))
    };
    crime.place(&crime.now)?;
    Connection::open(&crime.store)?.pragma_update(None, "user_version", 99)?;
    let (code, text) = start("newer")?;
    ensure!(
        code == Some(1) && text.contains("schema 99") && text.contains("newer hsmd"),
        "{code:?} {text}"
    );

    crime.place(&crime.now)?;
    Connection::open(&crime.store)?.pragma_update(None, "application_id", 7)?;
    let (code, text) = start("foreign")?;
    ensure!(
        code == Some(1) && text.contains("another program's database"),
        "{code:?} {text}"
    );

    fs::write(
        &crime.store,
        "this is a letter, not a database; ".repeat(200),
    )?;
    let (code, text) = start("letter")?;
    ensure!(
        code == Some(1) && text.contains("not a usable Tacit store"),
        "{code:?} {text}"
    );
    ensure!(
        fs::read_to_string(&crime.store)?.starts_with("this is a letter"),
        "the file was changed"
    );

    crime.place(&crime.now)?;
    let mut bytes = fs::read(&crime.store)?;
    let half = bytes.len() / 2;
    for byte in &mut bytes[half..half + 2048] {
        *byte ^= 0x5a;
    }
    fs::write(&crime.store, &bytes)?;
    let mut command = Command::new(bin("hsmd")?);
    command.arg("--config").arg(&crime.config);
    let process = Process::start("damaged", command, crime.post.dir())?;
    // Where the damage hits decides who sees it first: SQLite's own check, or the custodians' MACs.
    eventually("the damage is named", || {
        let text = process.output().1;
        [
            "not a usable Tacit store",
            "record_",
            "inventory_",
            "row_changed",
            "store_key_edited",
        ]
        .iter()
        .any(|name| text.contains(name))
        .then_some(())
    })?;
    ensure!(
        !process.output().1.contains("panicked"),
        "{}",
        process.output().1
    );
    drop(process);
    Ok(())
}

#[test]
fn tokens_that_trade_places_are_refused_by_name() -> anyhow::Result<()> {
    let mut crime = Crime::scene()?;
    crime.place(&crime.now)?;
    let original = fs::read_to_string(&crime.config)?;
    let traded = original
        .replace("tacit-a\"", "tacit-X\"")
        .replace("tacit-b\"", "tacit-a\"")
        .replace("tacit-X\"", "tacit-b\"");
    let traded = traded
        .replace("softhsm-a/", "softhsm-X/")
        .replace("softhsm-b/", "softhsm-a/")
        .replace("softhsm-X/", "softhsm-b/");
    ensure!(traded != original, "the configuration names no tokens");
    fs::write(&crime.config, traded)?;
    let mut command = Command::new(bin("hsmd")?);
    command.arg("--config").arg(&crime.config);
    let mut process = Process::start("traded", command, crime.post.dir())?;
    let status = eventually("both custodians are named", || {
        let output = stack::run(
            crime.post.command(&["status", "--output", "json"]).ok()?,
            b"",
        )
        .ok()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let custodians = status["custodians"].as_array()?.clone();
        let bad = custodians
            .iter()
            .filter(|one| one["state"] == "mismatch" || one["state"] == "down")
            .count();
        (bad == 2).then_some(custodians)
    })?;
    ensure!(
        status.iter().any(|one| one["detail"]
            .as_str()
            .is_some_and(|text| text.contains("descriptor") || text.contains("token"))),
        "{status:?}"
    );
    process.signal(nix::sys::signal::Signal::SIGTERM)?;
    process.exit()?;
    drop(process);
    fs::write(&crime.config, original)?;
    drop(crime.post.start()?);
    Ok(())
}

#[test]
fn a_key_of_an_unknown_sealer_is_refused_and_the_same_from_a_pinned_one_is_not()
-> anyhow::Result<()> {
    let stack = Stack::plain()?;
    let outside = tempfile::tempdir()?;
    let path = |name: &str| outside.path().join(name).to_str().unwrap().to_owned();
    let (stranger, trust) = (path("stranger.key"), path("own-trust.json"));
    let key = tests::fixture::key(tests::upstream::Provider::OpenAi);
    // Somebody with a sealer and a trust file of their own making: only the daemon can stop them.
    fs::copy(stack.environment("TACIT_TRUST")?, &trust)?;
    let made = stack.tacit(
        &[
            "--sealer", &stranger, "--trust", &trust, "sealer", "new", "--pin", "stranger",
        ],
        b"",
    )?;
    ensure!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let own = [
        "--sealer", &stranger, "--trust", &trust, "key", "add", "one",
    ];
    let refused = stack.tacit(&[&own, &ADD[..]].concat(), key.as_bytes())?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(1) && text.contains("trust file does not list"),
        "{text}"
    );
    stack.tacit_json(&[&["key", "add", "one"], &ADD[..]].concat(), key.as_bytes())?;
    Ok(())
}

#[test]
fn descriptors_of_other_tokens_are_refused_with_what_differs() -> anyhow::Result<()> {
    let (ours, theirs) = (Stack::plain()?, Stack::plain()?);
    let sealed = tempfile::tempdir()?;
    let sealed = sealed.path().join("sealed");
    let sealed = sealed.to_str().unwrap();
    // A key that was sealed to other tokens under the same names.
    let add = [&["key", "seal", "one"], &ADD[..4]].concat();
    let armor = theirs.tacit(
        &add,
        tests::fixture::key(tests::upstream::Provider::OpenAi).as_bytes(),
    )?;
    ensure!(
        armor.status.success(),
        "{}",
        String::from_utf8_lossy(&armor.stderr)
    );
    fs::write(sealed, &armor.stdout)?;
    let refused = ours.tacit(&["key", "add", "one", "--no-test", "--sealed", sealed], b"")?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        refused.status.code() == Some(1) && text.contains("trust"),
        "{text}"
    );

    // The daemon's own trust file, swapped for that of the other tokens.
    let trust = PathBuf::from(ours.environment("TACIT_TRUST")?);
    let swapped = fs::read(theirs.environment("TACIT_TRUST")?)?;
    let mut post = ours.into_post()?;
    let original = fs::read(&trust)?;
    fs::write(&trust, swapped)?;
    let config = trust
        .parent()
        .and_then(Path::parent)
        .context("a place")?
        .join("hsmd.toml");
    let mut command = Command::new(bin("hsmd")?);
    command.arg("--config").arg(&config);
    let mut process = Process::start("swapped", command, post.dir())?;
    let custodians = eventually("all custodians are named", || {
        let output = stack::run(post.command(&["status", "--output", "json"]).ok()?, b"").ok()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let custodians = status["custodians"].as_array()?.clone();
        custodians
            .iter()
            .all(|one| one["state"] == "mismatch")
            .then_some(custodians)
    })?;
    for one in &custodians {
        let detail = one["detail"].as_str().unwrap_or_default();
        ensure!(
            detail.contains("serial: pinned") && detail.contains("presented"),
            "{detail}"
        );
    }
    process.terminate()?;
    drop(process);
    fs::write(&trust, original)?;
    drop(post.start()?);
    Ok(())
}
