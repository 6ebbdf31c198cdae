//! The ledger and the store's key: opened at load, made when there is none, handed to custodians that came later, rotated.

use std::sync::{Arc, Mutex};

use super::{Ledger, LedgerError, internal, with_store};
use crate::custodians::Custodians;
use crate::refusal::{Code, Refusal};
use crate::store::Vault;
use crate::unlock;

/// Opens the store's keys, if it has any and they are not open yet.
pub(super) async fn open(
    store: &Arc<Mutex<Vault>>,
    custodians: &Custodians,
) -> Result<(), LedgerError> {
    if with_store(store, |store| Ok(store.is_open())).await? {
        return Ok(());
    }
    let lock = with_store(store, Vault::lock).await?;
    let keys = unlock::open(&lock, custodians).await?;
    Ok(with_store(store, move |store| {
        store.unlock(keys);
        Ok(())
    })
    .await?)
}

/// Makes the first key of a store that has none, and seals what an older version left in clear.
pub(super) async fn seal(
    store: &Arc<Mutex<Vault>>,
    custodians: &Custodians,
) -> Result<(), LedgerError> {
    if !with_store(store, |store| Ok(store.is_open())).await? {
        let (key, parts) = unlock::create(1, custodians)
            .await
            .map_err(LedgerError::Custodians)?;
        with_store(store, move |store| store.install(key, parts)).await?;
    }
    Ok(with_store(store, Vault::seal_plain).await?)
}

/// More writes than a token can have seen without the others: a token that does not answer during a restore must not
/// remember a later revision when it comes back. Revisions are compared and never counted.
const UNHEARD: u64 = 1 << 16;

/// Above everything that any token remembers.
pub(super) async fn remembered(custodians: &Custodians) -> u64 {
    let states = custodians.states().await;
    let heard: Vec<u64> = states
        .iter()
        .filter_map(|(_, state)| Some(state.as_ref().ok()?.revision))
        .collect();
    let latest = heard.iter().max().copied().unwrap_or(0);
    if heard.len() == custodians.all().len() {
        latest
    } else {
        latest.saturating_add(UNHEARD)
    }
}

impl Ledger {
    /// Gives custodians that hold no part of the store's key one.
    pub(super) async fn cover(&self) -> Result<(), LedgerError> {
        let lock = with_store(&self.store, Vault::lock).await?;
        let Some((epoch, parts)) = unlock::cover(&lock, &self.custodians).await? else {
            return Ok(());
        };
        with_store(&self.store, move |store| store.put_parts(epoch, parts)).await?;
        tracing::info!(
            epoch,
            "every custodian that is up holds a part of the store's key"
        );
        Ok(())
    }

    /// How many keys of the store are held: two while a rotation is under way.
    pub async fn keys_held(&self) -> usize {
        with_store(&self.store, |store| Ok(store.keys()))
            .await
            .unwrap_or(0)
    }

    /// The number of the key that seals.
    pub async fn epoch(&self) -> u32 {
        with_store(&self.store, |store| Ok(store.epoch()))
            .await
            .unwrap_or(0)
    }

    /// Makes a new key the one that seals.
    ///
    /// # Errors
    /// [`Code::Internal`]; the key is not used then.
    pub async fn install(&self, (key, parts): unlock::Dealt) -> Result<(), Refusal> {
        with_store(&self.store, move |store| store.install(key, parts))
            .await
            .map_err(internal)
    }

    /// Seals at most `limit` rows of older keys under the newest; says how many it were.
    ///
    /// # Errors
    /// [`Code::Internal`]; nothing of this batch was written then.
    pub async fn reseal(&self, limit: usize) -> Result<usize, Refusal> {
        with_store(&self.store, move |store| store.reseal(limit))
            .await
            .map_err(internal)
    }

    /// Drops all keys but the newest, once no row is under them.
    ///
    /// # Errors
    /// [`Code::Internal`].
    pub async fn drop_older_keys(&self) -> Result<(), Refusal> {
        with_store(&self.store, Vault::drop_older_keys)
            .await
            .map_err(internal)
    }

    /// Copies the store as it rests, at one revision: which, its inventory's digest, and the number of the key it is under.
    ///
    /// # Errors
    /// [`Refusal`]; the copy may be there in part.
    pub async fn snapshot(&self, to: std::path::PathBuf) -> Result<(u64, [u8; 32], u32), Refusal> {
        let base = self.writer.lock().await;
        if self.in_doubt() {
            let text = "the store is being verified again after a failed write; repeat the command";
            return Err(Refusal::new(Code::HsmUnavailable, text));
        }
        let copied = with_store(&self.store, move |store| {
            store.snapshot(&to)?;
            Ok(store.epoch())
        });
        let epoch = copied.await.map_err(internal)?;
        Ok((base.inventory.revision, base.inventory.digest(), epoch))
    }
}
