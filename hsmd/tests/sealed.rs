//! The store at rest: ciphertext, opened by t tokens, re-keyed without a moment at which a crash would lose it.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use common::{TEAM, Tokens, audit, event, file, ids, key, load, open, vault};
use hsmd::ledger::{Ledger, LedgerError};
use hsmd::rekey;
use hsmd::store::{Loaded, Resting, SealedRow, Sqlite, Store, StoreError, Write};
use rusqlite::{Connection, params};

const PLANTED: &str = "planted description that no thief may read";

async fn add(ledger: &Arc<Ledger>, dir: &Path, id: &str) {
    ledger
        .commit(|_| Ok(key(id, PLANTED)), &audit(dir), event(), |_| ())
        .await
        .unwrap();
}

/// Whether any file of the store holds these bytes: the database itself, its journal, whatever else SQLite leaves.
fn rests(dir: &Path, needle: &str) -> bool {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut seen = 0;
    let mut found = false;
    for entry in files.filter(|entry| entry.file_name().to_string_lossy().contains(".sqlite")) {
        let bytes = std::fs::read(entry.path()).unwrap();
        seen += 1;
        found |= bytes
            .windows(needle.len())
            .any(|at| at == needle.as_bytes());
    }
    assert!(seen > 0, "no file of a store in {}", dir.display());
    found
}

/// The same content as a version that sealed nothing would have left it.
fn write_plain(path: &Path, loaded: &Loaded) {
    let database = Connection::open(path).unwrap();
    database
        .execute_batch(
            "PRAGMA journal_mode = WAL;
            CREATE TABLE inventory (one INTEGER PRIMARY KEY CHECK (one = 1), encoded BLOB NOT NULL) STRICT;
            CREATE TABLE inventory_mac (custodian TEXT PRIMARY KEY, mac BLOB NOT NULL) STRICT;
            CREATE TABLE record (kind TEXT NOT NULL, id TEXT NOT NULL, encoded BLOB NOT NULL, PRIMARY KEY (kind, id)) STRICT;
            CREATE TABLE record_mac (
                kind TEXT NOT NULL, id TEXT NOT NULL, custodian TEXT NOT NULL, mac BLOB NOT NULL,
                PRIMARY KEY (kind, id, custodian),
                FOREIGN KEY (kind, id) REFERENCES record (kind, id) ON DELETE CASCADE
            ) STRICT;
            CREATE TABLE last_used (key_id TEXT PRIMARY KEY, unix_ms INTEGER NOT NULL) STRICT;
            CREATE TABLE lease_max (one INTEGER PRIMARY KEY CHECK (one = 1), ms INTEGER NOT NULL) STRICT;
            PRAGMA application_id = 1413563220; PRAGMA user_version = 1;
            INSERT INTO lease_max VALUES (1, 60000); INSERT INTO last_used VALUES ('one', 5);",
        )
        .unwrap();
    for row in &loaded.rows {
        let put = "INSERT INTO record VALUES (?1, ?2, ?3)";
        let at = params![row.kind.name(), row.id, row.record];
        database.execute(put, at).unwrap();
        for mac in &row.macs {
            let put = "INSERT INTO record_mac VALUES (?1, ?2, ?3, ?4)";
            let at = params![row.kind.name(), row.id, mac.custodian, mac.mac];
            database.execute(put, at).unwrap();
        }
    }
    let inventory = loaded.inventory.as_ref().unwrap();
    let put = "INSERT INTO inventory VALUES (1, ?1)";
    database.execute(put, params![inventory]).unwrap();
    for mac in &loaded.inventory_macs {
        let put = "INSERT INTO inventory_mac VALUES (?1, ?2)";
        database
            .execute(put, params![mac.custodian, mac.mac])
            .unwrap();
    }
}

fn content(store: &Arc<std::sync::Mutex<hsmd::store::Vault>>) -> Loaded {
    store
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .load()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_database_shows_no_definition_and_one_of_an_older_version_is_sealed_by_the_first_write()
 {
    let dir = tempfile::tempdir().unwrap();
    let custodians = Tokens::up(dir.path(), 3).await.all().await;
    let store = open(dir.path());
    let ledger = load(Arc::clone(&store), &custodians).await.unwrap();
    for id in ["planted-key-one", "planted-key-two"] {
        add(&ledger, dir.path(), id).await;
    }
    ledger
        .note_last_used(vec![("planted-key-one".into(), 7)])
        .await;
    for needle in [PLANTED, TEAM, "planted-key-one"] {
        assert!(!rests(dir.path(), needle), "{needle} rests in clear");
    }
    let (loaded, revision) = (content(&store), ledger.view().revision);
    drop((ledger, store));

    // The positive control is the older version itself: the same content, in clear.
    let old = tempfile::tempdir().unwrap();
    write_plain(&file(old.path()), &loaded);
    for needle in [PLANTED, TEAM, "planted-key-one"] {
        assert!(rests(old.path(), needle), "the search finds what is there");
    }
    let ledger = load(open(old.path()), &custodians).await.unwrap();
    assert_eq!(ledger.view().revision, revision);
    for needle in [PLANTED, TEAM, "planted-key-one"] {
        assert!(!rests(old.path(), needle), "{needle} was left in clear");
    }
    add(&ledger, old.path(), "three").await;
    drop(ledger);
    let store = open(old.path());
    let ledger = load(Arc::clone(&store), &custodians).await.unwrap();
    assert_eq!(
        ids(&ledger),
        ["planted-key-one", "planted-key-two", "three"]
    );
    let loaded = content(&store);
    assert_eq!(loaded.lease_max_ms, 60_000);
    assert_eq!(loaded.last_used, [("one".to_owned(), 5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn t_tokens_open_it_fewer_wait_and_one_that_comes_later_gets_its_part() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Tokens::up(dir.path(), 3).await;
    let ledger = load(open(dir.path()), &tokens.only(&[0, 1]).await)
        .await
        .unwrap();
    add(&ledger, dir.path(), "one").await;
    drop(ledger);
    // The third was not there when the key was dealt: with one of the others it cannot open it yet.
    let locked = load(open(dir.path()), &tokens.only(&[1, 2]).await).await;
    assert!(matches!(locked, Err(LedgerError::Locked(_))), "{locked:?}");
    drop(load(open(dir.path()), &tokens.all().await).await.unwrap());
    for pair in [[0, 1], [1, 2], [0, 2]] {
        let ledger = load(open(dir.path()), &tokens.only(&pair).await)
            .await
            .unwrap();
        assert_eq!(ids(&ledger), ["one"], "{pair:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_moved_or_taken_away_is_named_and_the_untouched_store_opens() {
    let dir = tempfile::tempdir().unwrap();
    let custodians = Tokens::up(dir.path(), 3).await.all().await;
    let ledger = load(open(dir.path()), &custodians).await.unwrap();
    for id in ["one", "two"] {
        add(&ledger, dir.path(), id).await;
    }
    drop(ledger);
    let copy = dir.path().join("copy");
    std::fs::copy(file(dir.path()), &copy).unwrap();
    let crimes = [
        (
            "row_changed",
            "UPDATE sealed SET sealed = (SELECT sealed FROM sealed WHERE area = 'inventory') WHERE area = 'record'",
        ),
        (
            "row_changed",
            "UPDATE sealed SET name = zeroblob(32) WHERE rowid = (SELECT min(rowid) FROM sealed WHERE area = 'record')",
        ),
        (
            "row_changed",
            "UPDATE sealed SET area = 'used' WHERE rowid = (SELECT min(rowid) FROM sealed WHERE area = 'record')",
        ),
        (
            "store_key_edited",
            "UPDATE sealed SET epoch = 7 WHERE area = 'record'",
        ),
        (
            "record_missing",
            "DELETE FROM sealed WHERE rowid = (SELECT min(rowid) FROM sealed WHERE area = 'record')",
        ),
        ("store_key_edited", "DELETE FROM key_part"),
        (
            "store_key_edited",
            "UPDATE key_part SET wrapped = (SELECT max(wrapped) FROM key_part)",
        ),
        (
            "row_changed",
            "INSERT INTO record VALUES ('key', 'three', x'00')",
        ),
    ];
    for (name, crime) in crimes {
        std::fs::copy(&copy, file(dir.path())).unwrap();
        let database = Connection::open(file(dir.path())).unwrap();
        assert!(database.execute(crime, []).unwrap() > 0, "{crime}");
        drop(database);
        let before = std::fs::read(file(dir.path())).unwrap();
        let refused = load(open(dir.path()), &custodians).await;
        let text = refused.map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(name), "{crime}: {text}");
        assert_eq!(std::fs::read(file(dir.path())).unwrap().len(), before.len());
    }
    // One part of three is no obstacle, and is made anew.
    std::fs::copy(&copy, file(dir.path())).unwrap();
    let database = Connection::open(file(dir.path())).unwrap();
    let one = "DELETE FROM key_part WHERE rowid = (SELECT min(rowid) FROM key_part)";
    assert_eq!(database.execute(one, []).unwrap(), 1);
    drop(database);
    drop(load(open(dir.path()), &custodians).await.unwrap());
    let parts = "SELECT count(*) FROM key_part";
    let database = Connection::open(file(dir.path())).unwrap();
    let count: i64 = database.query_row(parts, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 3);
}

/// A store whose process dies at the write after the last one that is left: nothing of it reaches the disk.
struct Dying {
    inner: Sqlite,
    left: Arc<AtomicUsize>,
}

impl Dying {
    fn step(&self) -> Result<(), StoreError> {
        let alive = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        alive.map(|_| ()).map_err(|_| StoreError::Io {
            operation: "write",
            path: "killed".into(),
            detail: "killed here".to_owned(),
        })
    }
}

impl Store for Dying {
    fn read(&mut self) -> Result<Resting, StoreError> {
        self.inner.read()
    }
    fn read_before(&mut self, epoch: u32, limit: usize) -> Result<Vec<SealedRow>, StoreError> {
        self.inner.read_before(epoch, limit)
    }
    fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        self.step()?;
        self.inner.write(write)
    }
    fn snapshot(&mut self, to: &Path) -> Result<(), StoreError> {
        self.inner.snapshot(to)
    }
    fn scrub(&mut self) -> Result<(), StoreError> {
        self.step()?;
        self.inner.scrub()
    }
}

fn epochs(dir: &Path) -> (Vec<i64>, Vec<i64>) {
    let database = Connection::open(file(dir)).unwrap();
    let column = |query: &str| -> Vec<i64> {
        let mut query = database.prepare(query).unwrap();
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    (
        column("SELECT DISTINCT epoch FROM sealed ORDER BY epoch"),
        column("SELECT DISTINCT epoch FROM key_part ORDER BY epoch"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_killed_at_any_step_opens_and_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let custodians = Tokens::up(dir.path(), 3).await.all().await;
    let ledger = load(open(dir.path()), &custodians).await.unwrap();
    for id in 0..6 {
        add(&ledger, dir.path(), &format!("key-{id}")).await;
    }
    let known = ids(&ledger);
    drop(ledger);
    let audit = audit(dir.path());
    let (mut killed, mut between) = (0, 0);
    for steps in 0.. {
        let before = epochs(dir.path());
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let dying = Dying {
            inner: Sqlite::open(&file(dir.path())).unwrap(),
            left: Arc::clone(&left),
        };
        let ledger = load(vault(Box::new(dying)), &custodians).await.unwrap();
        left.store(steps, Ordering::SeqCst);
        let done = rekey::rekey(&ledger, &audit, "test").await;
        drop(ledger);
        // What is there now opens, whatever was reached; and the same call finishes it.
        between += usize::from(epochs(dir.path()).1.len() == 2);
        let ledger = load(open(dir.path()), &custodians).await.unwrap();
        assert_eq!(ids(&ledger), known, "killed after {steps} writes");
        match done {
            Ok(done) => {
                assert!(!done.resumed && done.rows > 0, "{done:?}");
                break;
            }
            Err(_) => killed += 1,
        }
        let resumed = rekey::rekey(&ledger, &audit, "test").await.unwrap();
        drop(ledger);
        let newest = i64::from(resumed.epoch);
        assert!(newest > before.1[0], "a new key is in force");
        assert_eq!(
            epochs(dir.path()),
            (vec![newest], vec![newest]),
            "after {steps} writes"
        );
    }
    assert!(
        killed >= 4 && between >= 3,
        "{killed} kills, {between} between two keys"
    );

    // A copy from before, whose key may be known, is older than what the tokens remember.
    let copy = dir.path().join("copy");
    std::fs::copy(file(dir.path()), &copy).unwrap();
    let ledger = load(open(dir.path()), &custodians).await.unwrap();
    rekey::rekey(&ledger, &audit, "test").await.unwrap();
    drop(ledger);
    std::fs::copy(&copy, file(dir.path())).unwrap();
    let refused = load(open(dir.path()), &custodians).await;
    assert!(
        matches!(refused, Err(LedgerError::StoreOlder { .. })),
        "{refused:?}"
    );
}
