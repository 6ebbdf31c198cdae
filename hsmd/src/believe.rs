//! Whether a store is to be believed: its inventory by a quorum of custodians, its records by the inventory.
//!
//! Reads and asks; changes nothing. What is not believed gets the name of what is wrong with it.

use std::collections::BTreeMap;

use custody::record::{Entry, Inventory, Kind, Record};
use custody::sha256;

use crate::custodians::Custodians;
use crate::ledger::{LedgerError, Rollback};
use crate::store::{Loaded, Row};

/// Compares with what tokens remember; says how many answered.
pub(crate) async fn not_older(
    revision: u64,
    digest: &[u8; 32],
    custodians: &Custodians,
) -> Result<usize, LedgerError> {
    let mut answered = 0;
    for (one, state) in custodians.states().await {
        let Ok(state) = state else { continue };
        answered += 1;
        if state.revision > revision {
            return Err(LedgerError::StoreOlder {
                found: revision,
                custodian: one.id.clone(),
                remembered: state.revision,
            });
        }
        if state.revision == revision && revision > 0 && state.digest != *digest {
            let text = format!(
                "custodian {} remembers other records at revision {revision}; restore the store from a backup",
                one.id
            );
            return Err(LedgerError::InventoryEdited(text));
        }
    }
    Ok(answered)
}

/// [`not_older`] with a quorum of tokens: fewer must not be enough to bring an old store back.
async fn not_older_by_quorum(
    revision: u64,
    digest: &[u8; 32],
    custodians: &Custodians,
    rollback: Rollback,
) -> Result<(), LedgerError> {
    let answered = match rollback {
        Rollback::Refused => not_older(revision, digest, custodians).await?,
        // They are still asked: what t of them remember decides what the next write is above.
        Rollback::Accepted => answering(custodians).await,
    };
    if answered >= usize::from(custodians.quorum()) {
        return Ok(());
    }
    let text = format!(
        "only {answered} tokens say which store they remember, {} are needed",
        custodians.quorum()
    );
    Err(LedgerError::NotVouched(text))
}

/// How many tokens say what they remember.
async fn answering(custodians: &Custodians) -> usize {
    let states = custodians.states().await;
    states.iter().filter(|(_, state)| state.is_ok()).count()
}

pub(crate) async fn believe_inventory(
    loaded: &Loaded,
    custodians: &Custodians,
    rollback: Rollback,
) -> Result<Inventory, LedgerError> {
    let Some(encoded) = &loaded.inventory else {
        not_older_by_quorum(0, &[0; 32], custodians, rollback).await?;
        return match loaded.rows.first() {
            None => Ok(Inventory::default()),
            Some(row) => Err(LedgerError::RecordExtra {
                kind: row.kind.name(),
                id: row.id.clone(),
                revision: 0,
            }),
        };
    };
    let edited = |text: String| LedgerError::InventoryEdited(text);
    let inventory = Inventory::parse(encoded)
        .map_err(|error| edited(format!("{error}; restore the store from a backup")))?;
    let (confirmed, denied) = custodians.verify(encoded, &loaded.inventory_macs).await;
    if denied > 0 {
        let text = format!(
            "{denied} custodians deny having written revision {}; restore the store from a backup",
            inventory.revision
        );
        return Err(edited(text));
    }
    not_older_by_quorum(
        inventory.revision,
        &inventory.digest(),
        custodians,
        rollback,
    )
    .await?;
    // Fewer MACs could be the work of a stolen token and somebody who writes the database.
    if confirmed < usize::from(custodians.quorum()) {
        let written: Vec<&str> = loaded
            .inventory_macs
            .iter()
            .map(|mac| mac.custodian.as_str())
            .collect();
        let text = format!(
            "not vouched: {confirmed} custodians that are up have vouched for revision {}, {} are needed; bring back those of: {}",
            inventory.revision,
            custodians.quorum(),
            written.join(", ")
        );
        return Err(LedgerError::NotVouched(text));
    }
    Ok(inventory)
}

pub(crate) async fn believe_records(
    loaded: &Loaded,
    inventory: &Inventory,
    custodians: &Custodians,
) -> Result<BTreeMap<(Kind, String), Record>, LedgerError> {
    let revision = inventory.revision;
    let mut records = BTreeMap::new();
    for row in &loaded.rows {
        let (kind, id) = (row.kind, row.id.clone());
        let Some(entry) = inventory.find(kind, &id) else {
            return Err(LedgerError::RecordExtra {
                kind: kind.name(),
                id,
                revision,
            });
        };
        if sha256(&row.record) != entry.hash {
            return Err(diagnose(row, entry, revision, custodians).await);
        }
        let edited = || LedgerError::RecordEdited {
            kind: kind.name(),
            id: id.clone(),
            revision,
        };
        let record = Record::parse(&row.record).map_err(|_| edited())?;
        if (record.kind, &record.id) != (kind, &id) {
            return Err(edited());
        }
        records.insert((kind, id), record);
    }
    match inventory
        .entries
        .iter()
        .find(|entry| !records.contains_key(&(entry.kind, entry.id.clone())))
    {
        None => Ok(records),
        Some(entry) => Err(LedgerError::RecordMissing {
            kind: entry.kind.name(),
            id: entry.id.clone(),
            revision,
        }),
    }
}

/// The record is not the one of the inventory: which of the ways is it? A record that custodians wrote is swapped or
/// older; any other was edited.
async fn diagnose(row: &Row, entry: &Entry, revision: u64, custodians: &Custodians) -> LedgerError {
    let (kind, id) = (row.kind.name(), row.id.clone());
    let Ok(record) = Record::parse(&row.record) else {
        return LedgerError::RecordEdited { kind, id, revision };
    };
    let (confirmed, denied) = custodians.verify(&row.record, &row.macs).await;
    if (record.kind, record.id.as_str()) != (row.kind, row.id.as_str()) {
        return LedgerError::RecordSwapped {
            kind,
            id,
            found: format!("{} {}", record.kind.name(), record.id),
            revision,
        };
    }
    if confirmed > 0 && denied == 0 && record.revision < entry.revision {
        return LedgerError::RecordOlder {
            kind,
            id,
            found: record.revision,
            expected: entry.revision,
            revision,
        };
    }
    LedgerError::RecordEdited { kind, id, revision }
}
