//! Opening rows: each must open, hold what its area says, and stand under its own name.

use custody::record::Kind;
use custody::stored::{StoredInventory, StoredNumber, StoredRecord};
use custody::storekey::StoreKey;

use super::{INVENTORY, LEASE, RECORD, USED, Vault, changed, macs, record_id};
use crate::store::{Loaded, Row, SealedRow, StoreError};

impl Vault {
    pub(super) fn open(&self, row: &SealedRow) -> Result<(&StoreKey, Vec<u8>), StoreError> {
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

    pub(super) fn open_into(&self, row: &SealedRow, loaded: &mut Loaded) -> Result<(), StoreError> {
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
}
