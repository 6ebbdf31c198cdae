//! Durable truth: rows that nobody here believes until [`crate::ledger`] has checked them.
//!
//! The seam is small (load everything, commit one batch), so that PostgreSQL can stand behind it later with the same
//! conformance suite.

mod sqlite;

use std::path::PathBuf;

use custody::record::Kind;
pub use sqlite::Sqlite;

/// One custodian's MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mac {
    /// Whose.
    pub custodian: String,
    /// HMAC-SHA-256.
    pub mac: [u8; 32],
}

/// One stored record with its MACs; its identity here is a claim until the record inside agrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Kind claimed by the row.
    pub kind: Kind,
    /// Id claimed by the row.
    pub id: String,
    /// The encoded record.
    pub record: Vec<u8>,
    /// MACs by the custodians that were up when it was written.
    pub macs: Vec<Mac>,
}

/// Everything in the store.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The encoded inventory; `None` in a new store.
    pub inventory: Option<Vec<u8>>,
    /// MACs over it.
    pub inventory_macs: Vec<Mac>,
    /// All rows.
    pub rows: Vec<Row>,
    /// Unix milliseconds of each key's last reported use. Not authenticated: a convenience for people.
    pub last_used: Vec<(String, u64)>,
    /// Longest life of a lease ever granted, grace included, in milliseconds.
    pub lease_max_ms: u64,
    /// Rows of kinds that this build does not know: kind and id.
    pub unknown: Vec<(String, String)>,
}

/// One administrative write: all of it or nothing.
#[derive(Debug, Default)]
pub struct Batch {
    /// The inventory after the write.
    pub inventory: Vec<u8>,
    /// MACs over it.
    pub inventory_macs: Vec<Mac>,
    /// Rows to add or replace.
    pub put: Vec<Row>,
    /// Rows to remove.
    pub remove: Vec<(Kind, String)>,
}

/// Why the store failed. Nothing is ever deleted or recreated because of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file is no database of ours, or a damaged one.
    #[error(
        "{path} is not a usable Tacit store ({detail}); nothing was changed: restore it from a backup, or move it away to start empty"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        detail: String,
    },
    /// Written by a newer build.
    #[error(
        "{path} has schema {found}, this build knows {known}: it was written by a newer hsmd; install that version again"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Another daemon has it open.
    #[error("{path} is in use by another hsmd; stop that one first")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("no space left for {path}: nothing was written; free space, then repeat the command")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Any other failure of a read or write.
    #[error("cannot {operation} the store {path}: {detail}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        detail: String,
    },
}

/// A store of rows.
pub trait Store: Send {
    /// Reads everything.
    ///
    /// # Errors
    /// [`StoreError`].
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Writes one batch durably: when this returns, a crash loses nothing of it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the batch was written then.
    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError>;

    /// Adds MACs over the inventory as it is: a custodian that was down when it was written vouches for it now.
    ///
    /// # Errors
    /// [`StoreError`].
    fn vouch(&mut self, macs: &[Mac]) -> Result<(), StoreError>;

    /// Notes the longest life of a lease ever granted, before such a lease is answered.
    ///
    /// # Errors
    /// [`StoreError`].
    fn note_lease_max(&mut self, lease_max_ms: u64) -> Result<(), StoreError>;

    /// Notes when a key was last used.
    ///
    /// # Errors
    /// [`StoreError`].
    fn note_last_used(&mut self, used: &[(String, u64)]) -> Result<(), StoreError>;

    /// Overwrites what deleted rows left behind in the journal, after material was destroyed.
    ///
    /// # Errors
    /// [`StoreError`].
    fn scrub(&mut self) -> Result<(), StoreError>;
}
