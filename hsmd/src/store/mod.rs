//! Durable truth: rows that nobody here believes until [`crate::ledger`] has checked them.
//!
//! Two floors. [`Store`] keeps opaque rows: a name that says nothing, and ciphertext; the seam is small (read everything,
//! write one change), so that PostgreSQL can stand behind it later with the same conformance suite. [`Vault`] above it
//! seals and opens them under the store's key, which custodians keep ([`crate::unlock`]).

mod sqlite;
mod vault;

use std::path::{Path, PathBuf};

use custody::record::Kind;
pub use sqlite::Sqlite;
pub use vault::{Lock, Vault};

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
#[derive(Debug, Default, Clone)]
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
    /// A sealed row does not open, or holds something else than its place says.
    #[error(
        "row_changed: a sealed row of the store ({area}) {detail}: it was changed, moved or removed outside this daemon; restore the store from a backup"
    )]
    RowChanged {
        /// Which kind of row.
        area: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The rows are sealed and no key was given.
    #[error("the store is sealed and its key is not open")]
    Sealed,
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

/// A row as it rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRow {
    /// Which of the few kinds of content, as [`Vault`] names them.
    pub area: String,
    /// Says nothing of what it names; unique within its area.
    pub name: Vec<u8>,
    /// The number of the key that it is sealed under.
    pub epoch: u32,
    /// Ciphertext.
    pub sealed: Vec<u8>,
}

/// Everything as it rests.
#[derive(Debug, Default)]
pub struct Resting {
    /// Wrapped parts of the store's keys.
    pub parts: Vec<Vec<u8>>,
    /// Sealed rows.
    pub rows: Vec<SealedRow>,
    /// Rows in clear, from a version that did not seal them.
    pub plain: Loaded,
}

/// One write: all of it or nothing. Removals come first.
#[derive(Debug, Default)]
pub struct Write {
    /// Rows to remove, by area and name.
    pub remove: Vec<(String, Vec<u8>)>,
    /// Rows to add or replace.
    pub put: Vec<SealedRow>,
    /// Parts of keys to add or replace: epoch, custodian (hex of its fingerprint), the wrapped part.
    pub put_parts: Vec<(u32, String, Vec<u8>)>,
    /// Parts of all keys before this epoch go.
    pub drop_parts_before: Option<u32>,
    /// All rows in clear go.
    pub drop_plain: bool,
}

/// A store of opaque rows.
pub trait Store: Send {
    /// Reads everything.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read(&mut self) -> Result<Resting, StoreError>;

    /// Reads at most `limit` rows that are sealed under a key before `epoch`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read_before(&mut self, epoch: u32, limit: usize) -> Result<Vec<SealedRow>, StoreError>;

    /// Writes durably: when this returns, a crash loses nothing of it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of it was written then.
    fn write(&mut self, write: &Write) -> Result<(), StoreError>;

    /// A consistent copy of everything as it rests, in a new file of mode 0600.
    ///
    /// # Errors
    /// [`StoreError`].
    fn snapshot(&mut self, to: &Path) -> Result<(), StoreError>;

    /// Overwrites what removed rows left behind in the journal.
    ///
    /// # Errors
    /// [`StoreError`].
    fn scrub(&mut self) -> Result<(), StoreError>;
}
