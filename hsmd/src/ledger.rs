//! The one door to the store: nothing is served that custodians did not authenticate, nothing is written without them.
//!
//! Each administrative write raises the store's revision. Its inventory (every record by hash) is MACed by all custodians
//! that are up, and its digest and the set of revoked versions are kept on the tokens. Order of a write: audit, store,
//! tokens, memory, answer. A crash between store and tokens leaves a store that is *newer* than the tokens remember, which
//! is believed by its MACs and brought forward; an *older* one is a rollback, is named so, and serves nothing.

mod keys;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use custody::record::{Inventory, Kind, Record};
use tokio::sync::{OwnedMutexGuard, watch};

use crate::audit::{Audit, Event};
use crate::believe::{believe_inventory, believe_records, not_older};
use crate::custodians::Custodians;
use crate::model::{Keys, ModelError};
use crate::refusal::{Code, Refusal};
use crate::store::{Batch, Row, StoreError, Vault};

/// Why a store is not believed. Nothing is served then, and nothing is changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content of a record was changed.
    #[error(
        "record_edited: the {kind} record {id} was changed outside this daemon; restore the store from a backup of revision {revision}"
    )]
    RecordEdited {
        /// Kind of the record.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The revision that the tokens remember.
        revision: u64,
    },
    /// A record stands in another one's place.
    #[error(
        "record_swapped: the {kind} record {id} holds the record of {found}; restore the store from a backup of revision {revision}"
    )]
    RecordSwapped {
        /// Kind of the row.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Whose record it is.
        found: String,
        /// The revision that the tokens remember.
        revision: u64,
    },
    /// A record was put back to an earlier state.
    #[error(
        "record_older: the {kind} record {id} is from revision {found}, the inventory says {expected}; restore the store from a backup of revision {revision}"
    )]
    RecordOlder {
        /// Kind of the record.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Its own revision.
        found: u64,
        /// The revision in the inventory.
        expected: u64,
        /// The revision that the tokens remember.
        revision: u64,
    },
    /// A record is gone.
    #[error(
        "record_missing: the {kind} record {id} was deleted outside this daemon; restore the store from a backup of revision {revision}"
    )]
    RecordMissing {
        /// Kind of the record.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The revision that the tokens remember.
        revision: u64,
    },
    /// A record that this revision does not have.
    #[error(
        "record_extra: the {kind} record {id} does not belong to revision {revision}; it was added outside this daemon"
    )]
    RecordExtra {
        /// Kind of the record.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The revision of the store.
        revision: u64,
    },
    /// The inventory was changed.
    #[error("inventory_edited: {0}")]
    InventoryEdited(String),
    /// Fewer than t custodians that are up vouch for the inventory; others may come back.
    #[error("{0}")]
    NotVouched(String),
    /// The tokens remember a later revision.
    #[error(
        "store_older: this store is at revision {found}, custodian {custodian} remembers {remembered}: it was rolled back; restore the newest backup"
    )]
    StoreOlder {
        /// The store's revision.
        found: u64,
        /// Who remembers.
        custodian: String,
        /// What it remembers.
        remembered: u64,
    },
    /// Too few custodians answer to open the store's key; others may come back.
    #[error("store_locked: {0}")]
    Locked(String),
    /// The parts of the store's key were changed.
    #[error(
        "store_key_edited: {0}; it was changed outside this daemon: restore the store from a backup"
    )]
    KeyEdited(String),
    /// Authentic, but written by a newer build.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Too few custodians to believe anything.
    #[error("{}", .0.text)]
    Custodians(Refusal),
}

/// What is served: one consistent view at one revision.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The store's revision.
    pub revision: u64,
    /// All keys.
    pub keys: Keys,
}

/// One change of the store.
#[derive(Debug, Default)]
pub struct Change {
    /// Records to write; their revision is filled in.
    pub put: Vec<(Kind, String, Vec<u8>)>,
    /// Records to remove.
    pub remove: Vec<(Kind, String)>,
}

/// Verified records and the way to change them.
pub struct Ledger {
    store: Arc<Mutex<Vault>>,
    custodians: Arc<Custodians>,
    /// What is served; everybody follows it here, so that views come in the order of their revisions.
    views: watch::Sender<Arc<View>>,
    /// A write failed and nobody knows whether it is durable: nothing more is written before the store was read again.
    in_doubt: AtomicBool,
    /// Custodians that are up and do not remember the present revision.
    behind: Mutex<Vec<String>>,
    /// One writer at a time; holds what the next write starts from.
    writer: Arc<tokio::sync::Mutex<Base>>,
}

/// What the store tells beside its records; not authenticated.
#[derive(Debug, Default)]
pub struct Told {
    /// Unix milliseconds of each key's last reported use.
    pub last_used: Vec<(String, u64)>,
    /// Longest life of a lease ever granted, grace included, in milliseconds.
    pub lease_max_ms: u64,
}

/// What is asked of a store before it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollback {
    /// That no token remembers a later one.
    Refused,
    /// Nothing: an operator accepted that it is older. The next write is above everything that tokens remember.
    Accepted,
}

#[derive(Debug, Default)]
struct Base {
    inventory: Inventory,
    /// The next revision is above this one.
    floor: u64,
    records: BTreeMap<(Kind, String), Record>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger")
            .field("revision", &self.view().revision)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// Loads the store and verifies all of it with at least t custodians.
    ///
    /// # Errors
    /// [`LedgerError`], one variant per way in which a store can be wrong.
    pub async fn load(
        store: Arc<Mutex<Vault>>,
        custodians: Arc<Custodians>,
        views: watch::Sender<Arc<View>>,
        rollback: Rollback,
    ) -> Result<(Arc<Self>, Told), LedgerError> {
        if custodians.margin() < 0 {
            return Err(LedgerError::Custodians(custodians.shortage()));
        }
        keys::open(&store, &custodians).await?;
        let loaded = with_store(&store, Vault::load).await?;
        let inventory = believe_inventory(&loaded, &custodians, rollback).await?;
        let records = believe_records(&loaded, &inventory, &custodians).await?;
        let keys = Keys::from_records(records.values())?;
        if let Some((kind, id)) = loaded.unknown.first() {
            return Err(LedgerError::Model(ModelError {
                kind: "unknown",
                id: format!("{kind} {id}"),
                rule: "is of a kind that this build does not know",
            }));
        }
        // Only a store that is believed is written to.
        keys::seal(&store, &custodians).await?;
        views.send_replace(Arc::new(View {
            revision: inventory.revision,
            keys,
        }));
        let floor = match rollback {
            Rollback::Refused => 0,
            Rollback::Accepted => keys::remembered(&custodians).await,
        };
        let base = Base {
            floor: floor.max(inventory.revision),
            inventory,
            records,
        };
        let ledger = Arc::new(Self {
            store,
            custodians,
            views,
            in_doubt: AtomicBool::new(false),
            behind: Mutex::default(),
            writer: Arc::new(tokio::sync::Mutex::new(base)),
        });
        if rollback == Rollback::Refused {
            ledger.bring_tokens_forward().await;
        }
        let told = Told {
            last_used: loaded.last_used,
            lease_max_ms: loaded.lease_max_ms,
        };
        Ok((ledger, told))
    }

    /// The custodians that vouch for it.
    pub fn custodians(&self) -> &Custodians {
        &self.custodians
    }

    /// What is served now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Whether a write failed in a way that leaves open whether it is durable.
    pub fn in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::SeqCst)
    }

    /// Custodians that are up and do not remember the present revision: rollback protection waits for them.
    pub fn behind(&self) -> Vec<String> {
        self.behind
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Writes one change durably and serves it: see the order in this file's head.
    ///
    /// The event is made durable, with the new revision, before anything is written. From there on the work runs in a task
    /// of its own: dropped between the store's write and memory's, it would leave the next write with a stale start.
    ///
    /// `before` is called with the new revision when the change is durable and nobody has heard of it yet.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed then, except that a failed write of *tokens* after the commit is reported and
    /// brought forward later.
    pub async fn commit<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&View) -> Result<Change, Refusal> + Send,
        audit: &Audit,
        event: Event,
        before: impl FnOnce(u64) -> T + Send + 'static,
    ) -> Result<(Arc<View>, T), Refusal> {
        let base = Arc::clone(&self.writer).lock_owned().await;
        if self.in_doubt() {
            let text = "the store is being verified again after a failed write; repeat the command";
            return Err(Refusal::new(Code::HsmUnavailable, text));
        }
        let change = change(&self.view())?;
        let revision = base.inventory.revision.max(base.floor) + 1;
        let (batch, next) = self.prepare(&base, change, revision).await?;
        let keys = Keys::from_records(next.records.values())
            .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        let view = Arc::new(View { revision, keys });
        let (ledger, audit) = (Arc::clone(self), audit.clone());
        let writing = tokio::spawn(async move {
            audit.record(event.revision(revision)).await?;
            ledger.write(base, batch, next, view, before).await
        });
        writing.await.unwrap_or_else(|error| {
            let text = format!("the write ended unexpectedly: {error}");
            Err(Refusal::new(Code::Internal, text))
        })
    }

    /// Store, memory, tokens: in this order, so that a revoked version is not leased any more while tokens are told.
    async fn write<T>(
        &self,
        mut base: OwnedMutexGuard<Base>,
        batch: Batch,
        next: Base,
        view: Arc<View>,
        before: impl FnOnce(u64) -> T,
    ) -> Result<(Arc<View>, T), Refusal> {
        let removed = !batch.remove.is_empty();
        if let Err(error) = with_store(&self.store, move |store| store.commit(&batch)).await {
            // A full disk and a lock are refused before anything is written; of anything else nobody knows.
            let certain = matches!(error, StoreError::Full { .. } | StoreError::Locked { .. });
            self.in_doubt.store(!certain, Ordering::SeqCst);
            return Err(Refusal::new(Code::Internal, error.to_string()));
        }
        *base = next;
        let told = before(view.revision);
        self.views.send_replace(Arc::clone(&view));
        // The change stands whatever becomes of the journal; the next write tries to overwrite it again.
        if removed && let Err(error) = with_store(&self.store, Vault::scrub).await {
            tracing::warn!(%error, "deleted material may still lie in the store's journal");
        }
        self.write_tokens(&base.inventory, &view).await;
        Ok((view, told))
    }

    async fn prepare(
        &self,
        base: &Base,
        change: Change,
        revision: u64,
    ) -> Result<(Batch, Base), Refusal> {
        let mut inventory = Inventory {
            revision,
            entries: base.inventory.entries.clone(),
        };
        let mut records = base.records.clone();
        let mut batch = Batch {
            remove: change.remove,
            ..Batch::default()
        };
        for (kind, id) in &batch.remove {
            inventory.remove(*kind, id);
            records.remove(&(*kind, id.clone()));
        }
        for (kind, id, body) in change.put {
            let record = Record {
                kind,
                id,
                revision,
                body,
            };
            let encoded = record.encode();
            let macs = self.custodians.mac(&encoded).await?;
            inventory.put(&record);
            batch.put.push(Row {
                kind,
                id: record.id.clone(),
                record: encoded,
                macs,
            });
            records.insert((kind, record.id.clone()), record);
        }
        batch.inventory = inventory.encode();
        batch.inventory_macs = self.custodians.mac(&batch.inventory).await?;
        let floor = revision;
        Ok((
            batch,
            Base {
                inventory,
                floor,
                records,
            },
        ))
    }

    /// Has every usable custodian remember this revision. A failure here is not the operator's: the store is durable and
    /// authentic, and the token is brought forward when it is back.
    async fn write_tokens(&self, inventory: &Inventory, view: &View) {
        let (digest, revoked) = (inventory.digest(), view.keys.revoked());
        let usable = self.custodians.usable();
        let writes = usable.iter().map(|one| {
            one.client
                .write_state(inventory.revision, &digest, &revoked)
        });
        let mut behind = Vec::new();
        for (one, result) in usable
            .iter()
            .zip(futures_util::future::join_all(writes).await)
        {
            if let Err(error) = result {
                tracing::warn!(custodian = %one.id, revision = inventory.revision, %error, "token does not remember this revision yet");
                behind.push(one.id.clone());
            }
        }
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = behind;
    }

    /// Brings every usable token to the current revision; called at load and whenever a custodian comes back.
    pub async fn bring_tokens_forward(&self) {
        let base = self.writer.lock().await;
        if base.inventory.revision > 0 {
            let view = self.view();
            self.write_tokens(&base.inventory, &view).await;
            self.vouch(&base.inventory).await;
        }
        if let Err(error) = self.cover().await {
            tracing::warn!(%error, "a custodian holds no part of the store's key yet");
        }
    }

    /// Has custodians that were down when the inventory was written vouch for it, so that a later start with them
    /// believes it.
    async fn vouch(&self, inventory: &Inventory) {
        let Ok(macs) = self.custodians.mac(&inventory.encode()).await else {
            return;
        };
        if let Err(error) = with_store(&self.store, move |store| store.vouch(&macs)).await {
            tracing::warn!(%error, "cannot note which custodians vouch for the store");
        }
    }

    /// Notes the longest life of a lease, before one of that life is answered.
    ///
    /// # Errors
    /// [`Code::Internal`] when it could not be noted.
    pub async fn note_lease_max(&self, lease_max_ms: u64) -> Result<(), Refusal> {
        with_store(&self.store, move |store| store.note_lease_max(lease_max_ms))
            .await
            .map_err(internal)
    }

    /// Whether a custodian that came back remembers a later revision than this store has.
    ///
    /// # Errors
    /// [`LedgerError::StoreOlder`].
    pub async fn check_rollback(&self) -> Result<(), LedgerError> {
        let base = self.writer.lock().await;
        not_older(
            base.inventory.revision,
            &base.inventory.digest(),
            &self.custodians,
        )
        .await
        .map(|_| ())
    }

    /// Notes last uses for people; not authenticated.
    pub async fn note_last_used(&self, used: Vec<(String, u64)>) {
        if let Err(error) = with_store(&self.store, move |store| store.note_last_used(&used)).await
        {
            tracing::warn!(%error, "cannot note when keys were last used");
        }
    }
}

fn internal(error: StoreError) -> Refusal {
    Refusal::new(Code::Internal, error.to_string())
}

/// Runs blocking store work off the runtime.
async fn with_store<T: Send + 'static>(
    store: &Arc<Mutex<Vault>>,
    work: impl FnOnce(&mut Vault) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let store = Arc::clone(store);
    let done = tokio::task::spawn_blocking(move || {
        work(&mut store.lock().unwrap_or_else(PoisonError::into_inner))
    });
    done.await
        .expect("store work does not panic: it returns its errors")
}

/// Whether an error of a load can pass by itself (custodians still coming up).
pub fn may_pass(error: &LedgerError) -> bool {
    matches!(
        error,
        LedgerError::Custodians(_) | LedgerError::NotVouched(_) | LedgerError::Locked(_)
    )
}
