//! The embedded store: one SQLite file, one writer, every commit synced.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use custody::record::Kind;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use super::{Batch, Loaded, Mac, Row, Store, StoreError};

/// Schema that this build writes; `PRAGMA user_version`.
const SCHEMA: i64 = 1;
/// "TACT": tells our file from any other SQLite database.
const APPLICATION_ID: i64 = 0x5441_4354;

/// Steps from one schema to the next; each runs in the transaction that raises `user_version`.
const MIGRATIONS: &[&str] = &["
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
"];

/// A store in one file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    connection: Connection,
}

impl Sqlite {
    /// Opens or creates the file (mode 0600) and migrates it to this build's schema.
    ///
    /// # Errors
    /// [`StoreError`]; the file is left as it was.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let unusable = |detail: String| StoreError::Unusable {
            path: path.to_owned(),
            detail,
        };
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| unusable(error.to_string()))?;
        let connection = Connection::open(path).map_err(|error| unusable(error.to_string()))?;
        let mut store = Self {
            path: path.to_owned(),
            connection,
        };
        store
            .configure()
            .map_err(|error| store.named("open", &error))?;
        store.migrate()?;
        Ok(store)
    }

    fn configure(&self) -> rusqlite::Result<()> {
        let set = &self.connection;
        set.busy_timeout(std::time::Duration::from_millis(200))?;
        // Exclusive: no other process reads or writes through SQLite while we run, and there is no -shm file.
        set.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        set.pragma_update(None, "journal_mode", "WAL")?;
        // A commit that was acknowledged survives a power loss.
        set.pragma_update(None, "synchronous", "FULL")?;
        // Deleted envelopes are overwritten, not just unlinked.
        set.pragma_update(None, "secure_delete", "ON")?;
        // The process has given up /tmp, and rows belong nowhere but here.
        set.pragma_update(None, "temp_store", "MEMORY")?;
        set.pragma_update(None, "foreign_keys", "ON")?;
        set.pragma_update(None, "trusted_schema", "OFF")?;
        set.pragma_update(None, "cell_size_check", "ON")?;
        // Takes the exclusive lock now, so that a second daemon fails at start and not at its first write.
        set.execute_batch("BEGIN EXCLUSIVE; COMMIT;")
    }

    fn migrate(&mut self) -> Result<(), StoreError> {
        let pragma = |store: &Self, name| {
            store
                .connection
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .map_err(|error| store.named("read", &error))
        };
        let found = pragma(self, "user_version")?;
        let application = pragma(self, "application_id")?;
        let unusable = |detail: &str| StoreError::Unusable {
            path: self.path.clone(),
            detail: detail.to_owned(),
        };
        if found > SCHEMA {
            return Err(StoreError::Newer {
                path: self.path.clone(),
                found,
                known: SCHEMA,
            });
        }
        if found > 0 {
            if application != APPLICATION_ID {
                return Err(unusable("it is another program's database"));
            }
            self.integrity()?;
        } else {
            let tables: i64 = self
                .connection
                .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
                .map_err(|error| self.named("read", &error))?;
            if tables != 0 {
                return Err(unusable("it is another program's database"));
            }
        }
        self.apply_migrations(found)
            .map_err(|error| self.named("migrate", &error))
    }

    fn apply_migrations(&mut self, found: i64) -> rusqlite::Result<()> {
        for (at, step) in (1i64..).zip(MIGRATIONS).skip_while(|(at, _)| *at <= found) {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", at)?;
            transaction.commit()?;
        }
        Ok(())
    }

    fn integrity(&self) -> Result<(), StoreError> {
        let result: String = self
            .connection
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(|error| self.named("check", &error))?;
        if result == "ok" {
            Ok(())
        } else {
            Err(StoreError::Unusable {
                path: self.path.clone(),
                detail: result,
            })
        }
    }

    /// One mapping from SQLite's errors to ours.
    fn named(&self, operation: &'static str, error: &rusqlite::Error) -> StoreError {
        let path = self.path.clone();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Unusable {
                path,
                detail: error.to_string(),
            },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::Locked { path }
            }
            Some(ErrorCode::DiskFull) => StoreError::Full { path },
            _ => StoreError::Io {
                operation,
                path,
                detail: error.to_string(),
            },
        }
    }

    fn read(&self) -> rusqlite::Result<Loaded> {
        let mut loaded = Loaded::default();
        let mut query = self.connection.prepare("SELECT encoded FROM inventory")?;
        loaded.inventory = query.query_map([], |row| row.get(0))?.next().transpose()?;
        let mut query = self
            .connection
            .prepare("SELECT custodian, mac FROM inventory_mac ORDER BY custodian")?;
        loaded.inventory_macs = query
            .query_map([], |row| mac(row, 0))?
            .collect::<Result<_, _>>()?;
        let mut query = self
            .connection
            .prepare("SELECT kind, id, encoded FROM record ORDER BY kind, id")?;
        let rows = query.query_map([], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get(2)?,
            ))
        })?;
        let mut macs = self.connection.prepare(
            "SELECT custodian, mac FROM record_mac WHERE kind = ?1 AND id = ?2 ORDER BY custodian",
        )?;
        for row in rows {
            let (kind, id, record) = row?;
            let Some(known) = Kind::from_name(&kind) else {
                loaded.unknown.push((kind, id));
                continue;
            };
            let macs = macs
                .query_map(params![kind, id], |row| mac(row, 0))?
                .collect::<Result<_, _>>()?;
            loaded.rows.push(Row {
                kind: known,
                id,
                record,
                macs,
            });
        }
        let mut query = self
            .connection
            .prepare("SELECT key_id, unix_ms FROM last_used")?;
        let used = query.query_map([], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.try_into().unwrap_or(0)))
        })?;
        loaded.last_used = used.collect::<Result<_, _>>()?;
        let mut query = self.connection.prepare("SELECT ms FROM lease_max")?;
        let longest: Option<i64> = query.query_map([], |row| row.get(0))?.next().transpose()?;
        loaded.lease_max_ms = longest.and_then(|ms| ms.try_into().ok()).unwrap_or(0);
        Ok(loaded)
    }

    fn write(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (kind, id) in &batch.remove {
            transaction.execute(
                "DELETE FROM record WHERE kind = ?1 AND id = ?2",
                params![kind.name(), id],
            )?;
        }
        for row in &batch.put {
            let (kind, id) = (row.kind.name(), &row.id);
            transaction.execute(
                "DELETE FROM record WHERE kind = ?1 AND id = ?2",
                params![kind, id],
            )?;
            transaction.execute(
                "INSERT INTO record (kind, id, encoded) VALUES (?1, ?2, ?3)",
                params![kind, id, row.record],
            )?;
            for mac in &row.macs {
                transaction.execute(
                    "INSERT INTO record_mac (kind, id, custodian, mac) VALUES (?1, ?2, ?3, ?4)",
                    params![kind, id, mac.custodian, mac.mac],
                )?;
            }
        }
        transaction.execute(
            "INSERT OR REPLACE INTO inventory (one, encoded) VALUES (1, ?1)",
            params![batch.inventory],
        )?;
        transaction.execute("DELETE FROM inventory_mac", [])?;
        for mac in &batch.inventory_macs {
            transaction.execute(
                "INSERT INTO inventory_mac (custodian, mac) VALUES (?1, ?2)",
                params![mac.custodian, mac.mac],
            )?;
        }
        transaction.commit()
    }
}

fn mac(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Mac> {
    Ok(Mac {
        custodian: row.get(at)?,
        mac: row.get(at + 1)?,
    })
}

impl Store for Sqlite {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.read().map_err(|error| self.named("read", &error))
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.write(batch)
            .map_err(|error| self.named("write", &error))
    }

    fn vouch(&mut self, macs: &[Mac]) -> Result<(), StoreError> {
        let result = macs.iter().try_for_each(|mac| {
            self.connection
                .execute(
                    "INSERT OR REPLACE INTO inventory_mac (custodian, mac) VALUES (?1, ?2)",
                    params![mac.custodian, mac.mac],
                )
                .map(|_| ())
        });
        result.map_err(|error| self.named("write", &error))
    }

    fn note_lease_max(&mut self, lease_max_ms: u64) -> Result<(), StoreError> {
        let ms = i64::try_from(lease_max_ms).unwrap_or(i64::MAX);
        let put = "INSERT OR REPLACE INTO lease_max (one, ms) VALUES (1, ?1)";
        let result = self.connection.execute(put, params![ms]);
        result
            .map(|_| ())
            .map_err(|error| self.named("write", &error))
    }

    fn note_last_used(&mut self, used: &[(String, u64)]) -> Result<(), StoreError> {
        let result = used.iter().try_for_each(|(key, at)| {
            let at = i64::try_from(*at).unwrap_or(i64::MAX);
            self.connection
                .execute(
                    "INSERT OR REPLACE INTO last_used (key_id, unix_ms) VALUES (?1, ?2)",
                    params![key, at],
                )
                .map(|_| ())
        });
        result.map_err(|error| self.named("write", &error))
    }

    fn scrub(&mut self) -> Result<(), StoreError> {
        // The journal keeps old pages until it is reset; secure_delete cleans the main file alone.
        let result = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        result.map_err(|error| self.named("checkpoint", &error))
    }
}
