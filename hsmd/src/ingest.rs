//! Shares on their way into the tokens: at once when a key is added, later for a custodian that was down.

use std::collections::BTreeMap;
use std::time::Duration;

use custody::SealedKey;
use custody::record::Kind;
use custody::sealed::Provenance;
use futures_util::future::join_all;
use hsm::client::{Ingest, Ingested};
use hsm::{ErrorClass, HsmError};

use crate::audit::{Category, Event};
use crate::daemon::Daemon;
use crate::keys::{commit_versions, find, not_found};
use crate::ledger::{Change, Ledger};
use crate::model::{Blob, ShareBody, Version, encode, share_id, version_id};
use crate::refusal::{Code, Refusal};

/// How long a key waits for custodians that are starting: a token process takes a fraction of it.
const SETTLE: Duration = Duration::from_secs(5);

/// Shares as the tokens took them in, and those kept for later.
pub(crate) struct Taken {
    pub(crate) shares: BTreeMap<u8, ShareBody>,
    pub(crate) pending: BTreeMap<u8, Blob>,
    pub(crate) missing: Vec<String>,
}

/// Hands each custodian its share. One that refuses its share decides; one that is down is missing.
pub(crate) async fn ingest(
    daemon: &Daemon,
    sealed: &SealedKey,
    provenance: &Provenance,
    allow_missing: bool,
) -> Result<Taken, Refusal> {
    daemon.custodians.settled(SETTLE).await;
    let header = provenance.header();
    let trust = daemon.trust()?;
    // A custodian of another daemon is not missing: its share goes there with the same sealed key.
    let own = header
        .custodians
        .iter()
        .filter(|one| !daemon.custodians.is_elsewhere(&trust, one));
    if own.clone().next().is_none() {
        let text = "none of the key's custodians is driven by this daemon: add it to those that drive them";
        return Err(Refusal::new(Code::BadRequest, text));
    }
    let each = own.map(|fingerprint| {
        let x = header.index_of(fingerprint).unwrap_or(0);
        let name = trust.any(fingerprint).map_or_else(
            |_| format!("{fingerprint:?}"),
            |descriptor| descriptor.id.to_string(),
        );
        let check = provenance.manifest().entries[usize::from(x) - 1].check;
        async move {
            let Some(one) = daemon.custodians.by_fingerprint(fingerprint) else {
                return (x, name, None);
            };
            let request = Ingest {
                header: &sealed.header,
                compartment: &header.provider,
                sealed: &sealed.shares[usize::from(x) - 1],
                check: &check,
            };
            (x, name, Some(one.client.ingest(request).await))
        }
    });
    let mut taken = Taken {
        shares: BTreeMap::new(),
        pending: BTreeMap::new(),
        missing: Vec::new(),
    };
    for (x, name, result) in join_all(each).await {
        match result {
            Some(Ok(ingested)) => {
                taken.shares.insert(x, share_body(&name, ingested));
            }
            Some(Err(error)) if decides(&error) => {
                return Err(Refusal::new(
                    Code::BadRequest,
                    format!("custodian {name} refuses its share: {}", error.text),
                ));
            }
            Some(Err(_)) | None => {
                taken
                    .pending
                    .insert(x, Blob(sealed.shares[usize::from(x) - 1].clone()));
                taken.missing.push(name);
            }
        }
    }
    let needed = if daemon.custodians.part {
        1
    } else {
        usize::from(header.threshold)
    };
    if taken.shares.len() < needed {
        return Err(daemon.custodians.shortage());
    }
    if !taken.missing.is_empty() && !allow_missing {
        let text = format!(
            "custodians {} are down; bring them back, or repeat with --allow-missing: their shares are kept and ingested later",
            taken.missing.join(", ")
        );
        return Err(Refusal::new(Code::HsmUnavailable, text));
    }
    Ok(taken)
}

/// Whether an error is about the share, not about the custodian.
fn decides(error: &HsmError) -> bool {
    matches!(
        error.class,
        ErrorClass::BadPoint
            | ErrorClass::BadRecord
            | ErrorClass::BadRequest
            | ErrorClass::CheckMismatch
            | ErrorClass::Revoked
            | ErrorClass::Poisoned
    )
}

fn share_body(custodian: &str, ingested: Ingested) -> ShareBody {
    ShareBody {
        custodian: custodian.to_owned(),
        identity: Blob(ingested.identity),
        wrapped: Blob(ingested.wrapped),
        mac: Blob(ingested.mac.to_vec()),
    }
}

/// Gives custodians that came back the shares that were kept for them. Failures stay pending and are said.
pub async fn ingest_pending(daemon: &Daemon, ledger: &Ledger) {
    let view = ledger.view();
    // Collected first: a closure of this iterator held across the await would make the future unspawnable.
    let mut waiting = Vec::new();
    for (id, key) in &view.keys.0 {
        let pending = key
            .versions
            .iter()
            .filter(|(_, version)| !version.body.pending.is_empty());
        waiting.extend(pending.map(|(number, version)| (id, *number, version)));
    }
    for (id, number, version) in waiting {
        if let Err(refusal) = ingest_kept(daemon, id, number, version).await {
            tracing::warn!(key = %id, version = number, %refusal, "a kept share is not ingested yet");
        }
    }
}

async fn ingest_kept(
    daemon: &Daemon,
    key_id: &str,
    number: u32,
    version: &Version,
) -> Result<(), Refusal> {
    let manifest = custody::Manifest::parse(&version.body.manifest.0)
        .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    let mut taken = BTreeMap::new();
    for (x, sealed) in &version.body.pending {
        let index = usize::from(*x).saturating_sub(1);
        let (Some(fingerprint), Some(entry)) = (
            version.header.custodians.get(index),
            manifest.entries.get(index),
        ) else {
            continue;
        };
        let Some(one) = daemon.custodians.by_fingerprint(fingerprint) else {
            continue;
        };
        let request = Ingest {
            header: &version.body.header.0,
            compartment: &version.header.provider,
            sealed: &sealed.0,
            check: &entry.check,
        };
        let ingested = one.client.ingest(request).await?;
        taken.insert(*x, share_body(&one.id, ingested));
    }
    if taken.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = taken
        .values()
        .map(|share| share.custodian.as_str())
        .collect();
    let detail = format!("share kept for custodian {}", names.join(", "));
    let event = Event::new(Category::SecretManagement, "share.ingest", "ok", "daemon")
        .key(key_id)
        .version(number)
        .detail(detail);
    commit_versions(daemon, event, &[], |view| {
        let version = find(view, key_id)?
            .versions
            .get(&number)
            .ok_or_else(|| not_found(key_id))?;
        let mut body = version.body.clone();
        body.pending.retain(|x, _| !taken.contains_key(x));
        let mut put = vec![(Kind::Version, version_id(key_id, number), encode(&body))];
        put.extend(
            taken
                .iter()
                .map(|(x, share)| (Kind::Share, share_id(key_id, number, *x), encode(share))),
        );
        Ok(Change {
            put,
            remove: Vec::new(),
        })
    })
    .await
    .map(|_| ())
}
