//! The store's rows, sealed and opened: everything that this daemon writes goes through here and rests as ciphertext.
//!
//! A row's name is a keyed hash of what it is, its content says again what it is, and both are bound to its place by the
//! cipher's associated data; so a row that was changed, moved or taken from another store does not open. That is
//! confidentiality and a first sign of tampering: what is *believed* is decided by MACs and inventory, as before
//! ([`crate::believe`]).
//!
//! Writes go under the newest key. While two keys are held (a rotation is under way) rows of both are read.

use std::path::Path;

use custody::record::Kind;
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

    /// Takes the opened keys.
    pub fn unlock(&mut self, mut keys: Vec<StoreKey>) {
        keys.sort_by_key(StoreKey::epoch);
        self.keys = keys;
    }

    /// Makes a key the one that seals, once its parts are durable.
    ///
    /// # Errors
    /// [`StoreError`]; the key is not used then.
    pub fn install(
        &mut self,
        key: StoreKey,
        parts: Vec<(String, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        self.put_parts(key.epoch(), parts)?;
        self.keys.push(key);
        Ok(())
    }

    /// Adds parts of a key that is held: by custodian (hex of its fingerprint).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_parts(
        &mut self,
        epoch: u32,
        parts: Vec<(String, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        let parts = parts.into_iter().map(|(id, part)| (epoch, id, part));
        self.store.write(&Write {
            put_parts: parts.collect(),
            ..Write::default()
        })
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

    fn open(&self, row: &SealedRow) -> Result<(&StoreKey, Vec<u8>), StoreError> {
        if self.keys.is_empty() {
            return Err(StoreError::Sealed);
        }
        let key = self.keys.iter().find(|key| key.epoch() == row.epoch);
        let key = key.ok_or_else(|| changed(&row.area, "is under a key that nobody keeps"))?;
        let content = key
            .open_row(&row.area, &row.name, &row.sealed)
            .map_err(|_| changed(&row.area, "does not open"))?;
        Ok((key, content))
    }

    fn open_into(&self, row: &SealedRow, loaded: &mut Loaded) -> Result<(), StoreError> {
        let (key, content) = self.open(row)?;
        let bad = |error: custody::FormatError| changed(&row.area, error);
        let id = match row.area.as_str() {
            RECORD => {
                let stored = StoredRecord::parse(&content).map_err(bad)?;
                let id = record_id(&stored.kind, &stored.id);
                match Kind::from_name(&stored.kind) {
                    None => loaded.unknown.push((stored.kind, stored.id)),
                    Some(kind) => loaded.rows.push(Row {
                        kind,
                        id: stored.id,
                        record: stored.record,
                        macs: macs(stored.macs),
                    }),
                }
                id
            }
            INVENTORY => {
                let stored = StoredInventory::parse(&content).map_err(bad)?;
                if loaded.inventory.replace(stored.inventory).is_some() {
                    return Err(changed(INVENTORY, "is there twice"));
                }
                loaded.inventory_macs = macs(stored.macs);
                Vec::new()
            }
            USED => {
                let stored = StoredNumber::parse(&content).map_err(bad)?;
                let id = stored.name.clone().into_bytes();
                loaded.last_used.push((stored.name, stored.value));
                id
            }
            LEASE => {
                let longest = StoredNumber::parse(&content).map_err(bad)?.value;
                loaded.lease_max_ms = loaded.lease_max_ms.max(longest);
                Vec::new()
            }
            _ => {
                return Err(changed(
                    &row.area,
                    "is of a kind that this build does not know",
                ));
            }
        };
        if row.name == key.name(&row.area, &id) {
            Ok(())
        } else {
            Err(changed(&row.area, "stands under another name"))
        }
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

    /// Seals at most `limit` rows of older keys under the newest; says how many it were.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of this batch was written then.
    pub fn reseal(&mut self, limit: usize) -> Result<usize, StoreError> {
        let rows = self.store.read_before(self.epoch(), limit)?;
        let mut write = Write::default();
        for row in &rows {
            let (_, content) = self.open(row)?;
            let mut opened = Loaded::default();
            self.open_into(row, &mut opened)?;
            write.remove.push((row.area.clone(), row.name.clone()));
            let id = match (
                opened.rows.pop(),
                opened.unknown.pop(),
                opened.last_used.pop(),
            ) {
                (Some(record), _, _) => record_id(record.kind.name(), &record.id),
                (_, Some((kind, id)), _) => record_id(&kind, &id),
                (_, _, Some((key, _))) => key.into_bytes(),
                (None, None, None) => Vec::new(),
            };
            write.put.push(self.row(&row.area, &id, &content)?);
        }
        if !rows.is_empty() {
            self.store.write(&write)?;
        }
        Ok(rows.len())
    }

    /// Drops all keys but the newest, with their parts; nothing may be sealed under them any more.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::RowChanged`] when rows are left.
    pub fn drop_older_keys(&mut self) -> Result<(), StoreError> {
        let epoch = self.epoch();
        if !self.store.read_before(epoch, 1)?.is_empty() {
            return Err(changed("any", "is still under the older key"));
        }
        self.store.write(&Write {
            drop_parts_before: Some(epoch),
            ..Write::default()
        })?;
        self.keys.retain(|key| key.epoch() == epoch);
        self.store.scrub()
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
