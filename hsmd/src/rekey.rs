//! `tacit custodian rekey-store`: a new key for the store, its rows re-sealed, the old key dropped last.
//!
//! Every step is one durable write, so that a crash between any two leaves a store that opens: both keys are kept until no
//! row is under the old one, and a daemon that starts in between goes on by itself. The store's revision is raised, so that
//! a copy from before, whose key may be known, is older than what the tokens remember.

use std::sync::Arc;

use crate::audit::{Audit, Category, Event};
use crate::ledger::{Change, Ledger};
use crate::refusal::Refusal;
use crate::unlock;

/// Rows re-sealed in one write: some milliseconds of the store's one writer, so that leases and changes get in between.
const BATCH: usize = 256;

/// What a rotation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rekeyed {
    /// The number of the key in force.
    pub epoch: u32,
    /// Rows re-sealed by this call.
    pub rows: u64,
    /// The store's revision.
    pub revision: u64,
    /// A rotation that an earlier call had begun was finished, and no other begun.
    pub resumed: bool,
}

/// Makes and deals a new key, or goes on with a rotation that was begun, and finishes it.
///
/// # Errors
/// [`Refusal`]; what was done stays, and the same call goes on from there.
pub async fn rekey(ledger: &Arc<Ledger>, audit: &Audit, actor: &str) -> Result<Rekeyed, Refusal> {
    let resumed = ledger.keys_held().await > 1;
    let event = |outcome| Event::new(Category::Ceremony, "store.rekey", outcome, actor);
    if !resumed {
        let next = ledger.epoch().await + 1;
        let begun = event("begun").detail(format!("key {next} is made and dealt"));
        audit.record(begun).await?;
        ledger
            .install(unlock::create(next, ledger.custodians()).await?)
            .await?;
    }
    let epoch = ledger.epoch().await;
    let in_force = event("ok").detail(format!("key {epoch} seals from here on"));
    // Also when it is resumed: whether the call before came as far as this is not known.
    let (view, ()) = ledger
        .commit(|_| Ok(Change::default()), audit, in_force, |_| ())
        .await?;
    let rows = finish(ledger).await?;
    let done = event("finished").revision(view.revision);
    let done = done.detail(format!("{rows} rows re-sealed, older keys are gone"));
    audit.record(done).await?;
    Ok(Rekeyed {
        epoch,
        rows,
        revision: view.revision,
        resumed,
    })
}

/// Re-seals what is left under older keys and drops these; nothing to do is no error.
///
/// # Errors
/// [`Refusal`]; the next call goes on.
async fn finish(ledger: &Ledger) -> Result<u64, Refusal> {
    let mut rows = 0;
    loop {
        let done = ledger.reseal(BATCH).await?;
        rows += u64::try_from(done).unwrap_or(u64::MAX);
        if done < BATCH {
            break;
        }
    }
    ledger.drop_older_keys().await?;
    Ok(rows)
}
