//! The embedded store: one SQLite file, one writer, every commit synced. It knows names that say nothing and ciphertext;
//! the tables of schema 1 held rows in clear and are read so that they can be sealed.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use custody::record::Kind;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use super::{Loaded, Mac, Resting, Row, SealedRow, Store, StoreError, Write};

/// Schema that this build writes; `PRAGMA user_version`.
const SCHEMA: i64 = 2;
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
", "
    CREATE TABLE key_part (
        epoch INTEGER NOT NULL, custodian TEXT NOT NULL, wrapped BLOB NOT NULL, PRIMARY KEY (epoch, custodian)
    ) STRICT;
    CREATE TABLE sealed (
        area TEXT NOT NULL, name BLOB NOT NULL, epoch INTEGER NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (area, name)
    ) STRICT;
    CREATE INDEX sealed_epoch ON sealed (epoch);
"];

/// The tables of schema 1, children first.
const PLAIN: [&str; 6] = [
    "record_mac",
    "record",
    "inventory_mac",
    "inventory",
    "last_used",
    "lease_max",
];

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

    fn read_plain(&self) -> rusqlite::Result<Loaded> {
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

    fn read_resting(&self) -> rusqlite::Result<Resting> {
        let mut query = self
            .connection
            .prepare("SELECT wrapped FROM key_part ORDER BY epoch, custodian")?;
        let parts = query
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut query = self
            .connection
            .prepare("SELECT area, name, epoch, sealed FROM sealed ORDER BY area, name")?;
        let rows = query.query_map([], sealed)?.collect::<Result<_, _>>()?;
        Ok(Resting {
            parts,
            rows,
            plain: self.read_plain()?,
        })
    }

    fn write_all(&mut self, write: &Write) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        if write.drop_plain {
            for table in PLAIN {
                transaction.execute(&format!("DELETE FROM {table}"), [])?;
            }
        }
        {
            let mut remove =
                transaction.prepare_cached("DELETE FROM sealed WHERE area = ?1 AND name = ?2")?;
            for (area, name) in &write.remove {
                remove.execute(params![area, name])?;
            }
            let mut put = transaction.prepare_cached(
                "INSERT OR REPLACE INTO sealed (area, name, epoch, sealed) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for row in &write.put {
                put.execute(params![row.area, row.name, row.epoch, row.sealed])?;
            }
            let mut part = transaction.prepare_cached(
                "INSERT OR REPLACE INTO key_part (epoch, custodian, wrapped) VALUES (?1, ?2, ?3)",
            )?;
            for (epoch, custodian, wrapped) in &write.put_parts {
                part.execute(params![epoch, custodian, wrapped])?;
            }
        }
        if let Some(epoch) = write.drop_parts_before {
            transaction.execute("DELETE FROM key_part WHERE epoch < ?1", params![epoch])?;
        }
        transaction.commit()
    }
}

fn sealed(row: &rusqlite::Row<'_>) -> rusqlite::Result<SealedRow> {
    Ok(SealedRow {
        area: row.get(0)?,
        name: row.get(1)?,
        epoch: row.get(2)?,
        sealed: row.get(3)?,
    })
}

fn mac(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Mac> {
    Ok(Mac {
        custodian: row.get(at)?,
        mac: row.get(at + 1)?,
    })
}

impl Store for Sqlite {
    fn read(&mut self) -> Result<Resting, StoreError> {
        self.read_resting()
            .map_err(|error| self.named("read", &error))
    }

    fn read_before(&mut self, epoch: u32, limit: usize) -> Result<Vec<SealedRow>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = || {
            let mut query = self.connection.prepare_cached(
                "SELECT area, name, epoch, sealed FROM sealed WHERE epoch < ?1 LIMIT ?2",
            )?;
            let rows = query.query_map(params![epoch, limit], sealed)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        rows().map_err(|error| self.named("read", &error))
    }

    fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        self.write_all(write)
            .map_err(|error| self.named("write", &error))
    }

    fn snapshot(&mut self, to: &Path) -> Result<(), StoreError> {
        let failed = |detail: String| StoreError::Io {
            operation: "copy",
            path: to.to_owned(),
            detail,
        };
        // Empty and ours before SQLite writes to it: otherwise the umask would decide who reads it.
        OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(to)
            .map_err(|error| failed(error.to_string()))?;
        let name = to
            .to_str()
            .ok_or_else(|| failed("its path is not text".to_owned()))?;
        self.connection
            .execute("VACUUM INTO ?1", params![name])
            .map(|_| ())
            .map_err(|error| self.named("copy", &error))
    }

    fn scrub(&mut self) -> Result<(), StoreError> {
        // The journal keeps old pages until it is reset; secure_delete cleans the main file alone.
        let result = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        result.map_err(|error| self.named("checkpoint", &error))
    }
}
