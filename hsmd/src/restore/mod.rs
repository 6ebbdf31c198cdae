//! `hsmd restore`: a backup becomes the state of this machine, by a ceremony.
//!
//! It takes t of the tokens that the backup names, and an acceptance signed by a pinned sealer that says which backup and
//! what tokens remembered. Tokens never go back: the restored content becomes a *new* revision above everything that any of
//! them remembers, with every version that any of them has revoked revoked, and the tokens learn that revision as they learn
//! any other. So their protection against rollback holds during a restore as before and after it, and agents, which refuse
//! older revisions, need not know.
//!
//! Order: prepare a whole state beside the old one; audit; the new revision in the prepared store; tokens; the prepared store
//! takes the old one's place. Killed anywhere, the same command goes on from there; before tokens know, it can be abandoned.

mod file;
mod stage;
mod start;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail, ensure};
use custody::Trust;
use custody::backup::{Acceptance, Accepted, BackupManifest, TokenEntry};
use custody::record::Kind;
use tokio::sync::watch;

use crate::audit::{Audit, Category, Event};
use crate::clock;
use crate::custodians::Custodians;
use crate::init::write_atomically;
use crate::keys;
use crate::ledger::{Change, Ledger, Rollback, View};
use crate::model::VersionState;
use crate::refusal::Refusal;
use crate::store::{Sqlite, Vault};

pub use file::BackupFile;
pub use stage::{Stage, abandon, is_begun};
pub use start::{Options, run};

/// What a token remembers: revision, digest, and what it has revoked.
type Remembered = Vec<(custody::Fingerprint, hsm::client::State)>;

/// Moments of a restore, for tests that end it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what was just made durable")]
pub enum Step {
    Prepared,
    AuditPlaced,
    AcceptanceAudited,
    Committing,
    Committed,
    StorePlaced,
}

/// A restore that may be made: enough tokens answer.
pub struct Restore {
    state: PathBuf,
    custodians: Arc<Custodians>,
    trust: Trust,
    retention_days: u32,
    backup: BackupFile,
    remembered: Remembered,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The revision of the backup.
    pub from: u64,
    /// The revision in force.
    pub revision: u64,
    /// Versions that tokens had revoked since the backup.
    pub revoked: Vec<(String, u32)>,
    /// The machine's own audit log was kept.
    pub own_audit: bool,
}

/// What a restore would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// To be signed by a sealer.
    pub acceptance: Acceptance,
    /// The latest revision that a token remembers.
    pub remembered: u64,
    /// Keys in the backup.
    pub keys: usize,
    /// Versions that would be revoked, because tokens have revoked them since.
    pub revoked: Vec<(String, u32)>,
}

impl std::fmt::Debug for Restore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restore").finish_non_exhaustive()
    }
}

/// Refuses by name when fewer than t of the tokens that the backup names answer.
fn enough_tokens(manifest: &BackupManifest, custodians: &Custodians) -> anyhow::Result<()> {
    let present = |token: &&TokenEntry| {
        let found = custodians.by_fingerprint(&token.fingerprint);
        found.is_some_and(|one| one.usable())
    };
    let missing: Vec<String> = manifest
        .tokens
        .iter()
        .filter(|token| !present(token))
        .map(|token| {
            format!(
                "{} (serial {}, label {})",
                token.id, token.serial, token.label
            )
        })
        .collect();
    let needed = usize::from(manifest.threshold.max(custodians.threshold));
    let found = manifest.tokens.len() - missing.len();
    ensure!(
        found >= needed,
        "tokens_missing: {found} of the tokens that this backup names answer, {needed} are needed; missing: {}. \
         Bring them back: nothing in a backup opens without them. If they are lost for good, so are the keys whose \
         shares they hold, unless emergency shares of those keys were made; this version restores from tokens alone",
        missing.join("; ")
    );
    Ok(())
}

impl Restore {
    /// Looks whether enough tokens answer, and what they remember.
    ///
    /// # Errors
    /// Too few do.
    pub async fn new(
        state: &Path,
        backup: BackupFile,
        custodians: Arc<Custodians>,
        trust: Trust,
        retention_days: u32,
    ) -> anyhow::Result<Self> {
        enough_tokens(&backup.manifest, &custodians)?;
        let mut remembered: Remembered = Vec::new();
        for (one, told) in custodians.states().await {
            let told = told
                .with_context(|| format!("custodian {} does not say what it remembers", one.id))?;
            if let Some(fingerprint) = one.fingerprint() {
                remembered.push((fingerprint, told));
            }
        }
        remembered.sort_by_key(|(fingerprint, _)| *fingerprint.as_bytes());
        Ok(Self {
            state: state.to_owned(),
            custodians,
            trust,
            retention_days,
            backup,
            remembered,
        })
    }

    /// The backup.
    pub fn manifest(&self) -> &BackupManifest {
        &self.backup.manifest
    }

    fn acceptance(&self) -> Acceptance {
        let tell = |(fingerprint, told): &(custody::Fingerprint, hsm::client::State)| {
            (*fingerprint, told.revision, told.digest)
        };
        Acceptance {
            backup: self.backup.manifest.hash(),
            revision: self.backup.manifest.revision,
            remembered: self.remembered.iter().map(tell).collect(),
            made_at: u64::try_from(clock::unix_seconds()).unwrap_or(0),
        }
    }

    /// The store at this path, verified by t custodians; that tokens remember a later one is no obstacle.
    async fn load(&self, store: &Path) -> anyhow::Result<Arc<Ledger>> {
        let store = Vault::new(Box::new(Sqlite::open(store)?));
        let (store, views) = (Arc::new(Mutex::new(store)), watch::Sender::default());
        let custodians = Arc::clone(&self.custodians);
        let loaded = Ledger::load(store, custodians, views, Rollback::Accepted).await;
        let (ledger, _) = loaded.context("the store in the backup is not believed")?;
        Ok(ledger)
    }

    /// Versions that a token has revoked and this view has not.
    fn to_revoke(&self, view: &View) -> BTreeSet<(String, u32)> {
        let versions = view.keys.0.iter().flat_map(|(id, key)| {
            let alive = key
                .versions
                .iter()
                .filter(|(_, version)| !version.body.state.is_revoked());
            alive.map(move |(number, _)| (id.clone(), *number))
        });
        let gone = |(id, version): &(String, u32)| {
            let mut told = self.remembered.iter();
            told.any(|(_, told)| told.revoked.contains(id, *version))
        };
        versions.filter(gone).collect()
    }

    /// What it would do: the store inside is opened and verified with the tokens, on a copy; nothing is changed.
    ///
    /// # Errors
    /// The store inside is not believed.
    pub async fn plan(&mut self) -> anyhow::Result<Plan> {
        let stage = Stage::look(&self.state, &mut self.backup)?;
        let looked = self.load(&stage.store()).await.map(|ledger| {
            let view = ledger.view();
            (view.keys.0.len(), self.to_revoke(&view), view.revision)
        });
        stage.discard()?;
        let (keys, revoked, revision) = looked?;
        ensure!(
            revision == self.backup.manifest.revision,
            "the store inside is at revision {revision}, the manifest says {}",
            self.backup.manifest.revision
        );
        let revisions = self.remembered.iter().map(|(_, told)| told.revision);
        Ok(Plan {
            acceptance: self.acceptance(),
            remembered: revisions.max().unwrap_or(0),
            keys,
            revoked: revoked.into_iter().collect(),
        })
    }

    /// The sealer who accepted exactly this, now.
    fn accepted_by(&self, accepted: &Accepted) -> anyhow::Result<String> {
        let name = accepted.by(&self.trust).context(
            "acceptance_refused: it is not signed by a sealer of the trust file, or was changed",
        )?;
        let (given, now) = (&accepted.acceptance, self.acceptance());
        ensure!(
            (given.backup, given.revision) == (now.backup, now.revision),
            "acceptance_refused: it is for another backup"
        );
        let known = |one: &(custody::Fingerprint, u64, [u8; 32])| given.remembered.contains(one);
        ensure!(
            now.remembered.iter().all(known),
            "acceptance_refused: the tokens remember something else than when it was written; look again with --dry-run and have the new order signed"
        );
        Ok(name.to_owned())
    }

    /// Restores, or goes on with a restore that was begun. `reached` is told each step once it is durable.
    ///
    /// # Errors
    /// What keeps it; the same call goes on from there.
    pub async fn apply(
        &mut self,
        accepted: Option<&Accepted>,
        actor: &str,
        reached: &mut (dyn FnMut(Step) -> anyhow::Result<()> + Send),
    ) -> anyhow::Result<Restored> {
        let begun = is_begun(&self.state);
        let by = match accepted {
            Some(accepted) if !self.is_past_acceptance(begun) => Some(self.accepted_by(accepted)?),
            _ => None,
        };
        ensure!(
            by.is_some() || self.is_past_acceptance(begun),
            "acceptance_missing: a restore takes an order signed by a sealer: hsmd restore --dry-run --order FILE, then tacit backup accept FILE"
        );
        let stage = Stage::prepare(&self.state, &mut self.backup)?;
        reached(Step::Prepared)?;
        let pins = self.state.join("custodians.json");
        write_atomically(&pins, self.trust.to_json().as_bytes())?;
        let own_audit = stage.place_audit()?;
        reached(Step::AuditPlaced)?;
        let audit = Audit::open(&self.state.join("audit"), self.retention_days)
            .context("cannot open the audit log")?;
        let manifest = hex::encode(self.backup.manifest.hash());
        let event = |outcome| Event::new(Category::Ceremony, "backup.restore", outcome, actor);
        if let Some(by) = &by {
            let told: Vec<String> = self
                .remembered
                .iter()
                .map(|(_, told)| told.revision.to_string())
                .collect();
            let detail = format!(
                "manifest {manifest} of revision {}, accepted by sealer {by}; tokens remember {}",
                self.backup.manifest.revision,
                told.join(", ")
            );
            audit
                .record(event("accepted").detail(detail))
                .await
                .map_err(said)?;
        }
        reached(Step::AcceptanceAudited)?;
        stage.commit()?;
        reached(Step::Committing)?;
        let committed = if stage.store().exists() {
            Some(
                self.commit(
                    &stage,
                    &audit,
                    event("ok").detail(format!("manifest {manifest}")),
                )
                .await?,
            )
        } else {
            None
        };
        reached(Step::Committed)?;
        stage.place_store()?;
        reached(Step::StorePlaced)?;
        let (revision, revoked) = committed.unwrap_or_else(|| {
            let revisions = self.remembered.iter().map(|(_, told)| told.revision);
            (revisions.max().unwrap_or(0), BTreeSet::new())
        });
        audit
            .record(event("finished").detail(format!("manifest {manifest}")))
            .await
            .map_err(said)?;
        stage.discard()?;
        Ok(Restored {
            from: self.backup.manifest.revision,
            revision,
            revoked: revoked.into_iter().collect(),
            own_audit,
        })
    }

    /// Whether an earlier run came past the acceptance with this backup: tokens may have moved on by its own doing.
    fn is_past_acceptance(&self, begun: bool) -> bool {
        begun && stage::committing_with(&self.state, &hex::encode(self.backup.manifest.hash()))
    }

    /// The prepared store at a revision above everything that tokens remember, known to the tokens.
    async fn commit(
        &self,
        stage: &Stage,
        audit: &Audit,
        event: Event,
    ) -> anyhow::Result<(u64, BTreeSet<(String, u32)>)> {
        let ledger = self.load(&stage.store()).await?;
        let (from, revoked) = (ledger.view().revision, self.to_revoke(&ledger.view()));
        // Committed by a run that was killed afterwards? Then the tokens are only brought forward.
        if from <= self.backup.manifest.revision {
            let change = |view: &View| revocations(view, &revoked);
            ledger
                .commit(change, audit, event, |_| ())
                .await
                .map_err(said)?;
        } else {
            ledger.bring_tokens_forward().await;
        }
        let behind = ledger.behind();
        let know = self.custodians.usable().len().saturating_sub(behind.len());
        if know < usize::from(self.custodians.threshold) {
            bail!(
                "the tokens {} did not learn the new revision; repeat the command",
                behind.join(", ")
            );
        }
        Ok((ledger.view().revision, revoked))
    }
}

fn said(refusal: Refusal) -> anyhow::Error {
    anyhow::Error::new(refusal)
}

/// Versions that tokens have revoked stay revoked.
fn revocations(view: &View, revoked: &BTreeSet<(String, u32)>) -> Result<Change, Refusal> {
    let reason = "revoked before the restore, as the tokens remember";
    let mut change = Change::default();
    let mut touched = BTreeSet::new();
    for (id, number) in revoked {
        let key = keys::find(view, id)?;
        let Some(version) = key.versions.get(number) else {
            continue;
        };
        let next = VersionState::Deactivated;
        change
            .put
            .push(keys::moved(id, *number, version, next, reason)?);
        touched.insert(id);
    }
    for id in touched {
        let body = keys::find(view, id)?.body.clone();
        let record = keys::key_record(id, body, "restored");
        debug_assert_eq!(record.0, Kind::Key);
        change.put.push(record);
    }
    Ok(change)
}
