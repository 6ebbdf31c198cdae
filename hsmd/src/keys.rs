//! What the security team does with keys: add, rotate, roll back, revoke, destroy. Each is one write of the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use custody::record::Kind;
use custody::sealed::Provenance;
use custody::{SealedKey, Trust};

use crate::agents::Affected;
use crate::audit::{Category, Event};
use crate::clock;
use crate::daemon::Daemon;
use crate::definition::Definition;
use crate::ingest::{Taken, ingest};
use crate::ledger::{Change, View};
use crate::model::{
    Blob, Key, KeyBody, Version, VersionBody, VersionState, encode, share_id, version_id,
};
use crate::refusal::{Code, Refusal};

/// A change that was made.
#[derive(Debug)]
pub struct Done {
    /// What is served now.
    pub view: Arc<View>,
    /// Which key.
    pub key_id: String,
    /// The agents that it affects.
    pub affected: Affected,
    /// Custodians that have not ingested their share.
    pub missing: Vec<String>,
}

pub(crate) fn not_found(key: &str) -> Refusal {
    Refusal::new(
        Code::NotFound,
        format!("there is no key named {key}; tacit key list shows all"),
    )
}

pub(crate) fn find<'a>(view: &'a View, key: &str) -> Result<&'a Key, Refusal> {
    view.keys.0.get(key).ok_or_else(|| not_found(key))
}

/// Parses a submitted key and verifies everything about it that can be verified without a token.
fn believe(sealed: &[u8], trust: &Trust) -> Result<(SealedKey, Provenance), Refusal> {
    let refuse = |text: String| Refusal::new(Code::BadRequest, text);
    let parsed = SealedKey::parse(sealed).map_err(|error| refuse(error.to_string()))?;
    let provenance = parsed
        .verify(trust)
        .map_err(|error| refuse(error.to_string()))?;
    Ok((parsed, provenance))
}

/// The records of a new version and its shares.
fn version_records(
    provenance: &Provenance,
    sealed: SealedKey,
    taken: &Taken,
    reason: &str,
) -> Vec<(Kind, String, Vec<u8>)> {
    let now = clock::unix_seconds();
    let (key, version) = (
        provenance.header().key_id.as_str(),
        provenance.header().version,
    );
    let body = VersionBody {
        header: Blob(sealed.header),
        envelope: Blob(sealed.envelope),
        manifest: Blob(sealed.manifest),
        signature: Blob(sealed.signature.to_vec()),
        pending: taken.pending.clone(),
        state: VersionState::Active,
        reason: reason.to_owned(),
        changed_at: now,
        ingested_at: now,
    };
    let mut records = vec![(Kind::Version, version_id(key, version), encode(&body))];
    records.extend(
        taken
            .shares
            .iter()
            .map(|(x, share)| (Kind::Share, share_id(key, version, *x), encode(share))),
    );
    records
}

/// A version's record in another state.
pub(crate) fn moved(
    key_id: &str,
    number: u32,
    version: &Version,
    next: VersionState,
    reason: &str,
) -> Result<(Kind, String, Vec<u8>), Refusal> {
    let now = version.body.state;
    if !now.may_become(next) {
        let text = format!(
            "version {number} of {key_id} is {}; it cannot become {}",
            now.name(),
            next.name()
        );
        return Err(Refusal::new(Code::Conflict, text));
    }
    let body = VersionBody {
        state: next,
        reason: reason.to_owned(),
        changed_at: clock::unix_seconds(),
        ..version.body.clone()
    };
    Ok((Kind::Version, version_id(key_id, number), encode(&body)))
}

pub(crate) fn key_record(key_id: &str, body: KeyBody, action: &str) -> (Kind, String, Vec<u8>) {
    let body = KeyBody {
        last_action: action.to_owned(),
        last_action_at: clock::unix_seconds(),
        ..body
    };
    (Kind::Key, key_id.to_owned(), encode(&body))
}

/// A change after which agents hold none of these versions any more.
pub(crate) async fn commit_versions(
    daemon: &Daemon,
    event: Event,
    versions: &[u32],
    change: impl FnOnce(&View) -> Result<Change, Refusal> + Send,
) -> Result<(Arc<View>, Affected), Refusal> {
    let key = event.key.clone().unwrap_or_default();
    let (agents, versions) = (Arc::clone(&daemon.agents), versions.to_vec());
    let affected = move |revision| agents.affected(&key, &versions, revision);
    commit(daemon, event, affected, change).await
}

/// Makes the change durable and served, with its audit record before the store's write.
///
/// `affected` is asked before the view is published: an agent that acknowledges at once must still be counted.
pub(crate) async fn commit<T: Send + 'static>(
    daemon: &Daemon,
    event: Event,
    affected: impl FnOnce(u64) -> T + Send + 'static,
    change: impl FnOnce(&View) -> Result<Change, Refusal> + Send,
) -> Result<(Arc<View>, T), Refusal> {
    let ledger = daemon.ledger()?;
    let committed = ledger.commit(change, &daemon.audit, event, affected).await;
    // A store that is in doubt is verified again at once.
    daemon.bell.notify_one();
    committed
}

/// Adds a key with its first version. The same sealed key again is no error: a lost answer can be asked for again.
///
/// # Errors
/// [`Refusal`]; nothing was stored then.
pub async fn add(
    daemon: &Daemon,
    actor: &str,
    sealed: &[u8],
    definition: Definition,
    allow_missing: bool,
) -> Result<Done, Refusal> {
    let (sealed, provenance) = believe(sealed, &daemon.trust()?)?;
    let header = provenance.header();
    let key_id = header.key_id.to_string();
    definition.terms.fit(&header.provider)?;
    let view = daemon.ledger()?.view();
    if let Some(known) = view.keys.0.get(&key_id) {
        if known
            .versions
            .get(&header.version)
            .is_some_and(|version| version.header == *header && !version.body.state.is_revoked())
        {
            let affected = daemon.agents.affected(&key_id, &[], view.revision);
            return Ok(Done {
                view,
                key_id,
                affected,
                missing: Vec::new(),
            });
        }
        if !known.versions.is_empty() {
            return Err(Refusal::new(
                Code::Conflict,
                format!("key {key_id} exists; tacit key rotate {key_id} gives it a new version"),
            ));
        }
    }
    if header.version != 1 {
        return Err(Refusal::new(
            Code::BadRequest,
            format!(
                "a new key starts with version 1, this one was sealed as version {}",
                header.version
            ),
        ));
    }
    let taken = ingest(daemon, &sealed, &provenance, allow_missing).await?;
    let missing = taken.missing.clone();
    let event = Event::new(Category::SecretManagement, "key.add", "ok", actor)
        .key(&key_id)
        .version(1)
        .detail(added(sealed_by(daemon, &provenance), &definition));
    let body = KeyBody {
        provider: header.provider.clone(),
        environments: definition.environments,
        teams: definition.teams,
        description: definition.description,
        created_at: clock::unix_seconds(),
        current: 1,
        last_action: String::new(),
        last_action_at: 0,
        terms: definition.terms,
    };
    let id = key_id.clone();
    let (view, affected) = commit_versions(daemon, event, &[], move |view| {
        if view
            .keys
            .0
            .get(&id)
            .is_some_and(|known| !known.versions.is_empty())
        {
            return Err(Refusal::new(
                Code::Conflict,
                format!("key {id} was added by somebody else just now"),
            ));
        }
        let mut put = version_records(&provenance, sealed, &taken, "added");
        put.push(key_record(&id, body, "added"));
        Ok(Change {
            put,
            remove: Vec::new(),
        })
    })
    .await?;
    Ok(Done {
        view,
        key_id,
        affected,
        missing,
    })
}

/// Who sealed it, and what was said of it.
fn added(sealed_by: String, definition: &Definition) -> String {
    let said = definition.describe();
    if said.is_empty() {
        sealed_by
    } else {
        format!("{sealed_by}; {said}")
    }
}

fn sealed_by(daemon: &Daemon, provenance: &Provenance) -> String {
    let key = provenance.header().sealer;
    let name = daemon
        .trust()
        .ok()
        .and_then(|trust| trust.sealer_name(&key).map(str::to_owned));
    format!("sealed by {}", name.unwrap_or_else(|| key.to_string()))
}

/// Puts a successor version in use; the old one is suspended until it is retired.
///
/// # Errors
/// [`Refusal`]; nothing was changed then.
pub async fn rotate(
    daemon: &Daemon,
    actor: &str,
    sealed: &[u8],
    allow_missing: bool,
) -> Result<Done, Refusal> {
    let (sealed, provenance) = believe(sealed, &daemon.trust()?)?;
    let header = provenance.header().clone();
    let key_id = header.key_id.to_string();
    let successor = |key: &Key| {
        let next = key.versions.keys().next_back().copied().unwrap_or(0) + 1;
        if header.version == next && header.provider == key.body.provider {
            return Ok(());
        }
        let text = if header.version == next {
            format!(
                "key {key_id} belongs to provider {}, the successor was sealed for {}",
                key.body.provider, header.provider
            )
        } else {
            format!(
                "the successor of {key_id} is version {next}, this one was sealed as version {}",
                header.version
            )
        };
        Err(Refusal::new(Code::Conflict, text))
    };
    let view = daemon.ledger()?.view();
    successor(find(&view, &key_id)?)?;
    let taken = ingest(daemon, &sealed, &provenance, allow_missing).await?;
    let missing = taken.missing.clone();
    let old = find(&view, &key_id)?.body.current;
    let event = Event::new(Category::SecretManagement, "key.rotate", "ok", actor)
        .key(&key_id)
        .version(header.version)
        .detail(sealed_by(daemon, &provenance));
    let (view, affected) = commit_versions(daemon, event, &[old], |view| {
        let key = find(view, &key_id)?;
        successor(key)?;
        let mut put = version_records(&provenance, sealed, &taken, "rotated in");
        if let Some((number, version)) = key.active() {
            put.push(moved(
                &key_id,
                number,
                version,
                VersionState::Suspended,
                &format!("superseded by version {}", header.version),
            )?);
        }
        put.push(key_record(
            &key_id,
            KeyBody {
                current: header.version,
                ..key.body.clone()
            },
            "rotated",
        ));
        Ok(Change {
            put,
            remove: Vec::new(),
        })
    })
    .await?;
    Ok(Done {
        view,
        key_id,
        affected,
        missing,
    })
}

/// Puts the version before the one in use back in use.
///
/// # Errors
/// [`Refusal`]; nothing was changed then.
pub async fn rollback(daemon: &Daemon, actor: &str, key_id: &str) -> Result<Done, Refusal> {
    let view = daemon.ledger()?.view();
    let current = find(&view, key_id)?.body.current;
    let event = Event::new(Category::SecretManagement, "key.rollback", "ok", actor)
        .key(key_id)
        .version(current);
    let (view, affected) = commit_versions(daemon, event, &[current], |view| {
        let key = find(view, key_id)?;
        let earlier = key
            .versions
            .range(..key.body.current)
            .rev()
            .find(|(_, version)| version.body.state == VersionState::Suspended);
        let (back, version) = earlier.ok_or_else(|| {
            Refusal::new(
                Code::Conflict,
                format!("key {key_id} has no earlier version that could be used again"),
            )
        })?;
        let mut put = vec![moved(
            key_id,
            *back,
            version,
            VersionState::Active,
            &format!("rolled back from version {}", key.body.current),
        )?];
        if let Some((number, version)) = key.active() {
            put.push(moved(
                key_id,
                number,
                version,
                VersionState::Suspended,
                &format!("rolled back to version {back}"),
            )?);
        }
        put.push(key_record(
            key_id,
            KeyBody {
                current: *back,
                ..key.body.clone()
            },
            "rolled back",
        ));
        Ok(Change {
            put,
            remove: Vec::new(),
        })
    })
    .await?;
    Ok(Done {
        view,
        key_id: key_id.to_owned(),
        affected,
        missing: Vec::new(),
    })
}

/// Versions that a command names: one, or all (0).
fn named<'a>(key: &'a Key, key_id: &str, version: u32) -> Result<Vec<(u32, &'a Version)>, Refusal> {
    if version == 0 {
        return Ok(key
            .versions
            .iter()
            .map(|(number, version)| (*number, version))
            .collect());
    }
    let found = key.versions.get(&version);
    found.map(|found| vec![(version, found)]).ok_or_else(|| {
        Refusal::new(
            Code::NotFound,
            format!("key {key_id} has no version {version}"),
        )
    })
}

/// Ends the use of one version, or of all (0), now and for ever.
///
/// # Errors
/// [`Refusal`]; nothing was changed then. What is revoked already stays so and is no error.
pub async fn revoke(
    daemon: &Daemon,
    actor: &str,
    key_id: &str,
    version: u32,
    reason: &str,
    compromised: bool,
) -> Result<Done, Refusal> {
    let next = if compromised {
        VersionState::Compromised
    } else {
        VersionState::Deactivated
    };
    let view = daemon.ledger()?.view();
    let versions: Vec<u32> = named(find(&view, key_id)?, key_id, version)?
        .into_iter()
        .map(|(number, _)| number)
        .collect();
    let mut event = Event::new(Category::SecretManagement, "key.revoke", "ok", actor)
        .key(key_id)
        .detail(reason);
    event.version = (version != 0).then_some(version);
    let (view, affected) = commit_versions(daemon, event, &versions, |view| {
        let key = find(view, key_id)?;
        let mut put = Vec::new();
        for (number, version) in named(key, key_id, version)? {
            if version.body.state.may_become(next) {
                put.push(moved(key_id, number, version, next, reason)?);
            }
        }
        put.push(key_record(key_id, key.body.clone(), "revoked"));
        Ok(Change {
            put,
            remove: Vec::new(),
        })
    })
    .await?;
    Ok(Done {
        view,
        key_id: key_id.to_owned(),
        affected,
        missing: Vec::new(),
    })
}

/// Deletes the material of one version, or of all (0). Active versions must be revoked first.
///
/// # Errors
/// [`Refusal`]; nothing was changed then.
pub async fn destroy(
    daemon: &Daemon,
    actor: &str,
    key_id: &str,
    version: u32,
    reason: &str,
) -> Result<(Done, Vec<u32>), Refusal> {
    let mut event = Event::new(Category::SecretManagement, "key.destroy", "ok", actor)
        .key(key_id)
        .detail(reason);
    event.version = (version != 0).then_some(version);
    let mut destroyed = Vec::new();
    let (view, affected) = commit_versions(daemon, event, &[], |view| {
        let key = find(view, key_id)?;
        let mut change = Change::default();
        for (number, version) in named(key, key_id, version)? {
            match version.body.state {
                VersionState::Destroyed => continue,
                VersionState::Active => {
                    let text = format!(
                        "version {number} of {key_id} is in use; tacit key revoke {key_id} first"
                    );
                    return Err(Refusal::new(Code::Conflict, text));
                }
                VersionState::PreActive
                | VersionState::Suspended
                | VersionState::Deactivated
                | VersionState::Compromised => {}
            }
            let emptied = VersionBody {
                envelope: Blob::default(),
                manifest: Blob::default(),
                signature: Blob::default(),
                pending: BTreeMap::new(),
                ..version.body.clone()
            };
            let emptied = Version {
                body: emptied,
                header: version.header.clone(),
                shares: BTreeMap::new(),
            };
            change.put.push(moved(
                key_id,
                number,
                &emptied,
                VersionState::Destroyed,
                reason,
            )?);
            change.remove.extend(
                version
                    .shares
                    .keys()
                    .map(|x| (Kind::Share, share_id(key_id, number, *x))),
            );
            destroyed.push(number);
        }
        change
            .put
            .push(key_record(key_id, key.body.clone(), "destroyed"));
        Ok(change)
    })
    .await?;
    Ok((
        Done {
            view,
            key_id: key_id.to_owned(),
            affected,
            missing: Vec::new(),
        },
        destroyed,
    ))
}
