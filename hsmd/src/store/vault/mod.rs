//! The store's rows, sealed and opened: everything that this daemon writes goes through here and rests as ciphertext.
//!
//! A row's name is a keyed hash of what it is, its content says again what it is, and both are bound to its place by the
//! cipher's associated data; so a row that was changed, moved or taken from another store does not open. That is
//! confidentiality and a first sign of tampering: what is *believed* is decided by MACs and inventory, as before
//! ([`crate::believe`]).
//!
//! Writes go under the newest key. While two keys are held (a rotation is under way) rows of both are read.

mod keys;
mod opening;

use std::path::Path;

use custody::stored::{StoredInventory, StoredNumber, StoredRecord, Vouched};
use custody::storekey::StoreKey;

use crate::random::KernelRandom;

use super::{Batch, Loaded, Mac, Row, SealedRow, Store, StoreError, Write};

/// Records.
const RECORD: &str = "record";
/// The inventory: one row.
const INVENTORY: &str = "inventory";
/// When keys were last used.
const USED: &str = "used";
/// Longest life of a lease: one row.
const LEASE: &str = "lease";
/// All of them; anything else is not ours.
const AREAS: [&str; 4] = [RECORD, INVENTORY, USED, LEASE];

/// The store and its keys.
pub struct Vault {
    store: Box<dyn Store>,
    /// By rising epoch; the last one seals. Empty until [`Vault::unlock`].
    keys: Vec<StoreKey>,
    /// What is vouched for now, so that another MAC can be added to it.
    inventory: Option<StoredInventory>,
    /// Rows in clear that wait to be sealed.
    plain: Option<Loaded>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// What must be known to open it.
#[derive(Debug, Default)]
pub struct Lock {
    /// Wrapped parts of its keys.
    pub parts: Vec<Vec<u8>>,
    /// Epochs that rows are sealed under.
    pub epochs: Vec<u32>,
}

fn record_id(kind: &str, id: &str) -> Vec<u8> {
    [kind.as_bytes(), b"\0", id.as_bytes()].concat()
}

fn vouched(macs: &[Mac]) -> Vec<Vouched> {
    let pair = |mac: &Mac| (mac.custodian.clone(), mac.mac);
    macs.iter().map(pair).collect()
}

fn macs(vouched: Vec<Vouched>) -> Vec<Mac> {
    let mac = |(custodian, mac)| Mac { custodian, mac };
    vouched.into_iter().map(mac).collect()
}

fn changed(area: &str, detail: impl std::fmt::Display) -> StoreError {
    StoreError::RowChanged {
        area: area.to_owned(),
        detail: detail.to_string(),
    }
}

impl Vault {
    /// Over this store; nothing is read yet.
    pub fn new(store: Box<dyn Store>) -> Self {
        Self {
            store,
            keys: Vec::new(),
            inventory: None,
            plain: None,
        }
    }

    /// What it takes to open it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn lock(&mut self) -> Result<Lock, StoreError> {
        let resting = self.store.read()?;
        let mut epochs: Vec<u32> = resting.rows.iter().map(|row| row.epoch).collect();
        epochs.sort_unstable();
        epochs.dedup();
        Ok(Lock {
            parts: resting.parts,
            epochs,
        })
    }

    /// Whether a key is held.
    pub fn is_open(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The key that seals, by number; 0 when there is none.
    pub fn epoch(&self) -> u32 {
        self.keys.last().map_or(0, StoreKey::epoch)
    }

    /// Reads and opens everything.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::RowChanged`] when a row does not open.
    pub fn load(&mut self) -> Result<Loaded, StoreError> {
        let resting = self.store.read()?;
        let sealed = !resting.rows.is_empty();
        let plain = resting.plain.inventory.is_some() || !resting.plain.rows.is_empty();
        if sealed && plain {
            return Err(changed("plain", "stands beside sealed ones"));
        }
        if !sealed {
            self.inventory = None;
            let others = !resting.plain.last_used.is_empty() || resting.plain.lease_max_ms > 0;
            self.plain = (plain || others).then(|| resting.plain.clone());
            return Ok(resting.plain);
        }
        let mut loaded = Loaded::default();
        for row in &resting.rows {
            self.open_into(row, &mut loaded)?;
        }
        self.inventory = loaded.inventory.clone().map(|inventory| StoredInventory {
            inventory,
            macs: vouched(&loaded.inventory_macs),
        });
        let order = |row: &Row| (row.kind, row.id.clone());
        loaded.rows.sort_by_key(order);
        Ok(loaded)
    }

    fn key(&self) -> Result<&StoreKey, StoreError> {
        self.keys.last().ok_or(StoreError::Sealed)
    }

    /// A row under the newest key.
    fn row(&self, area: &str, id: &[u8], content: &[u8]) -> Result<SealedRow, StoreError> {
        debug_assert!(AREAS.contains(&area));
        let key = self.key()?;
        let name = key.name(area, id);
        Ok(SealedRow {
            area: area.to_owned(),
            sealed: key.seal_row(area, &name, content, &mut KernelRandom),
            epoch: key.epoch(),
            name: name.to_vec(),
        })
    }

    /// Where a row may stand: its names under every key that is held.
    fn places(&self, area: &str, id: &[u8]) -> Vec<(String, Vec<u8>)> {
        let place = |key: &StoreKey| (area.to_owned(), key.name(area, id).to_vec());
        self.keys.iter().map(place).collect()
    }

    /// Its names under the older keys alone: what a row under the newest one replaces.
    fn older_places(&self, area: &str, id: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut places = self.places(area, id);
        places.pop();
        places
    }

    fn put(
        &self,
        write: &mut Write,
        area: &str,
        id: &[u8],
        content: &[u8],
    ) -> Result<(), StoreError> {
        write.remove.extend(self.older_places(area, id));
        write.put.push(self.row(area, id, content)?);
        Ok(())
    }

    fn put_record(&self, write: &mut Write, row: &Row) -> Result<(), StoreError> {
        let stored = StoredRecord {
            kind: row.kind.name().to_owned(),
            id: row.id.clone(),
            record: row.record.clone(),
            macs: vouched(&row.macs),
        };
        let id = record_id(&stored.kind, &stored.id);
        self.put(write, RECORD, &id, &stored.encode())
    }

    fn put_number(
        &self,
        write: &mut Write,
        area: &str,
        name: &str,
        value: u64,
    ) -> Result<(), StoreError> {
        let stored = StoredNumber {
            name: name.to_owned(),
            value,
        };
        self.put(write, area, name.as_bytes(), &stored.encode())
    }

    /// The write that seals all of this, in one.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] when no key is held.
    pub fn sealing(&self, loaded: &Loaded) -> Result<Write, StoreError> {
        let mut write = Write {
            drop_plain: true,
            ..Write::default()
        };
        for row in &loaded.rows {
            self.put_record(&mut write, row)?;
        }
        if let Some(inventory) = &loaded.inventory {
            let stored = StoredInventory {
                inventory: inventory.clone(),
                macs: vouched(&loaded.inventory_macs),
            };
            self.put(&mut write, INVENTORY, b"", &stored.encode())?;
        }
        for (key, at) in &loaded.last_used {
            self.put_number(&mut write, USED, key, *at)?;
        }
        if loaded.lease_max_ms > 0 {
            self.put_number(&mut write, LEASE, "", loaded.lease_max_ms)?;
        }
        Ok(write)
    }

    /// What a write needs before its own rows: those of an older version, sealed. Nothing is ever written in clear.
    fn begin(&self) -> Result<Write, StoreError> {
        match &self.plain {
            None => Ok(Write::default()),
            Some(plain) => self.sealing(plain),
        }
    }

    fn finish(&mut self, write: &Write) -> Result<(), StoreError> {
        self.store.write(write)?;
        if write.drop_plain {
            self.plain = None;
            tracing::info!("the store of an older version is sealed now");
            // Before anything else is written: the journal still has the pages in clear.
            self.store.scrub()?;
        }
        Ok(())
    }

    /// Seals what an older version left in clear, if anything.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn seal_plain(&mut self) -> Result<(), StoreError> {
        if self.plain.is_none() {
            return Ok(());
        }
        let write = self.begin()?;
        self.inventory = self.plain.as_ref().and_then(|plain| {
            Some(StoredInventory {
                inventory: plain.inventory.clone()?,
                macs: vouched(&plain.inventory_macs),
            })
        });
        self.finish(&write)
    }

    /// Writes one batch durably.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the batch was written then.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let mut write = self.begin()?;
        for (kind, id) in &batch.remove {
            let places = self.places(RECORD, &record_id(kind.name(), id));
            write.put.retain(|row| {
                !places
                    .iter()
                    .any(|(area, name)| *area == row.area && *name == row.name)
            });
            write.remove.extend(places);
        }
        for row in &batch.put {
            self.put_record(&mut write, row)?;
        }
        let inventory = StoredInventory {
            inventory: batch.inventory.clone(),
            macs: vouched(&batch.inventory_macs),
        };
        self.put(&mut write, INVENTORY, b"", &inventory.encode())?;
        self.finish(&write)?;
        self.inventory = Some(inventory);
        Ok(())
    }

    /// Adds MACs over the inventory as it is: a custodian that was down when it was written vouches for it now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn vouch(&mut self, macs: &[Mac]) -> Result<(), StoreError> {
        self.seal_plain()?;
        let Some(mut inventory) = self.inventory.clone() else {
            return Ok(());
        };
        for mac in macs {
            inventory.macs.retain(|(id, _)| *id != mac.custodian);
            inventory.macs.push((mac.custodian.clone(), mac.mac));
        }
        inventory.macs.sort();
        let mut write = Write::default();
        self.put(&mut write, INVENTORY, b"", &inventory.encode())?;
        self.store.write(&write)?;
        self.inventory = Some(inventory);
        Ok(())
    }

    /// Notes the longest life of a lease ever granted, before such a lease is answered.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn note_lease_max(&mut self, lease_max_ms: u64) -> Result<(), StoreError> {
        let mut write = self.begin()?;
        self.put_number(&mut write, LEASE, "", lease_max_ms)?;
        self.finish(&write)
    }

    /// Notes when keys were last used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn note_last_used(&mut self, used: &[(String, u64)]) -> Result<(), StoreError> {
        let mut write = self.begin()?;
        for (key, at) in used {
            self.put_number(&mut write, USED, key, *at)?;
        }
        self.finish(&write)
    }

    /// How many keys are held: two while a rotation is under way.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// A consistent copy of everything as it rests, in a new file of mode 0600.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn snapshot(&mut self, to: &Path) -> Result<(), StoreError> {
        self.store.snapshot(to)
    }

    /// Overwrites what removed rows left behind in the journal, after material was destroyed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn scrub(&mut self) -> Result<(), StoreError> {
        self.store.scrub()
    }
}
