//! The vault's keys: taken, made the one that seals, replaced by the next one row by row, dropped last.

use custody::storekey::StoreKey;

use super::{Vault, changed, record_id};
use crate::store::{Loaded, StoreError, Write};

impl Vault {
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
}
