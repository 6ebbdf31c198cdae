//! One Watch stream: what it says is acted upon in the order in which it comes, and answered.

use std::collections::HashSet;
use std::sync::Arc;

use custody::KeyId;
use proto::v1::{
    Ack, CommandResult, KeyInUse, KeyState, WatchRequest, command, watch_request, watch_response,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::daemon::Daemon;
use super::session::fingerprint;
use super::watch::{Answered, Control};
use super::{Hsmd, HsmdError};
use crate::keys::Wanted;
use crate::keys::cache::{Cache, Word};
use crate::keys::terms::{Digest, TermsError};

/// Keys in one snapshot that are looked at: a bound on what a daemon can make us hold.
const SNAPSHOT_MAX: usize = 10_000;

/// Custodians of one daemon that are counted: as many as a key can have.
const UP_MAX: usize = custody::CUSTODIANS_MAX as usize;

/// One stream.
pub(super) struct Following<'a> {
    pub(super) hsmd: &'a Arc<Hsmd>,
    pub(super) cache: &'a Cache,
    pub(super) control: &'a mpsc::Sender<Control>,
    pub(super) results: &'a mpsc::Sender<Answered>,
    /// Index of the daemon.
    pub(super) source: usize,
    pub(super) outbox: mpsc::Sender<WatchRequest>,
    /// Newest revision acted upon.
    pub(super) revision: u64,
    /// The snapshot is complete.
    pub(super) told: bool,
    pub(super) snapshot: Vec<KeyState>,
    /// Ticks when what is held changes.
    pub(super) held: watch::Receiver<()>,
}

impl Following<'_> {
    pub(super) fn heard(&mut self, kind: Option<watch_response::Kind>) -> Result<(), HsmdError> {
        match kind {
            Some(watch_response::Kind::Snapshot(part)) => {
                self.snapshot.extend(part.keys);
                if self.snapshot.len() > SNAPSHOT_MAX {
                    return Err(HsmdError::Contract("the snapshot is too long"));
                }
                if part.last {
                    self.snapshot_complete(part.revision)?;
                }
            }
            Some(watch_response::Kind::Change(change)) => {
                self.change(change.revision, &change.keys)?;
            }
            Some(watch_response::Kind::Command(command)) => self.command(command.id, command.kind),
            Some(watch_response::Kind::CustodiansUp(now)) => {
                let up = now.fingerprints.iter();
                let trust = self.hsmd.settings().trust;
                let up = up.filter_map(|one| fingerprint(one)).take(UP_MAX);
                let up = up.filter(|one| trust.any(one).is_ok()).collect();
                self.daemon().set_up(up, None);
            }
            Some(watch_response::Kind::KeepAlive(_)) | None => {}
        }
        self.daemon().heard();
        self.hsmd.gauge();
        Ok(())
    }

    fn daemon(&self) -> &Daemon {
        &self.hsmd.daemons[self.source]
    }

    fn snapshot_complete(&mut self, revision: u64) -> Result<(), HsmdError> {
        let keys = std::mem::take(&mut self.snapshot);
        let present: HashSet<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
        self.daemon().not_older(self.revision, revision)?;
        self.cache
            .retain((self.source, revision), |id| present.contains(id.as_str()));
        self.told = true;
        self.change(revision, &keys)
    }

    /// Drops what must go, acknowledges, and begins to fetch what takes its place.
    fn change(&mut self, revision: u64, keys: &[KeyState]) -> Result<(), HsmdError> {
        self.daemon().not_older(self.revision, revision)?;
        self.revision = revision;
        let mut behind = Vec::new();
        let routed = self.hsmd.settings().key_ids;
        for key in keys {
            let Ok(id) = key.key_id.parse::<KeyId>() else {
                return Err(HsmdError::Contract("a key id breaks the rule for key ids"));
            };
            // What no route names is not remembered: a daemon must not be able to fill our memory.
            if !routed.contains(&key.key_id) && !self.cache.knows(&id) {
                continue;
            }
            let word = Word {
                source: self.source,
                revision,
                usable: key.usable,
                revoked: key.revoked_versions.clone(),
                terms: terms_digest(&key.terms_digest)?,
            };
            let ended = self.cache.hear(&id, &word);
            if !ended.is_empty() {
                tracing::info!(key = %id, revision, "lease ended by hsmd");
            }
            if key.usable {
                // What ended because the key is for something else now is leased again at once, so that no request waits for it.
                behind.extend(ended);
                behind.extend(self.cache.behind(&id, key.current_version));
            }
        }
        self.acknowledge();
        if !behind.is_empty() {
            self.fetch(behind);
        }
        Ok(())
    }

    /// Says what was acted upon and what is held. Computed and sent here alone, so that no older list follows a newer one.
    pub(super) fn acknowledge(&mut self) {
        if self.told {
            // Before the list is made: a change after that is told again.
            self.held.mark_unchanged();
            self.say(acknowledgement(self.revision, self.cache));
        }
    }

    /// Gets leases in the background; what is held then is acknowledged as it changes. Bounded: each fetch has a deadline, and one runs
    /// per route.
    fn fetch(&self, behind: Vec<Wanted>) {
        let (cache, revision) = (self.cache.clone(), self.revision);
        tokio::spawn(async move {
            for wanted in behind {
                match cache.prefetch(&wanted).await {
                    Ok(()) => tracing::info!(key = %wanted.key_id, revision, "leased anew"),
                    Err(refusal) => {
                        tracing::warn!(key = %wanted.key_id, code = refusal.code.name(), "not leased anew yet; what is still held lives to its end")
                    }
                }
            }
        });
    }

    fn command(&self, id: u64, kind: Option<command::Kind>) {
        let (answer, answered) = oneshot::channel();
        let control = match kind {
            Some(command::Kind::Reload(_)) => Control::Reload(answer),
            Some(command::Kind::TestKey(test)) => Control::TestKey(test.key_id, answer),
            None => {
                return self.say(result(
                    id,
                    Err("this agent does not know that command".to_owned()),
                ));
            }
        };
        if self.control.try_send(control).is_err() {
            let busy = Err("the agent is busy with another command".to_owned());
            return self.say(result(id, busy));
        }
        let results = self.results.clone();
        tokio::spawn(async move {
            let answer = answered
                .await
                .unwrap_or_else(|_| Err("the agent is stopping".to_owned()));
            // Gone with the watch, when the agent ends.
            let _ = results.send((id, answer)).await;
        });
    }

    pub(super) fn say(&self, kind: watch_request::Kind) {
        if self.outbox.try_send(message(kind)).is_err() {
            tracing::warn!("hsmd does not read what we acknowledge");
        }
    }
}

/// The digest of the terms in force; daemons that know no terms leave it out.
pub(super) fn terms_digest(bytes: &[u8]) -> Result<Option<Digest>, TermsError> {
    match bytes {
        [] => Ok(None),
        digest => digest.try_into().map(Some).map_err(|_| TermsError::Digest),
    }
}

fn acknowledgement(revision: u64, cache: &Cache) -> watch_request::Kind {
    let in_use = cache
        .in_use()
        .into_iter()
        .map(|(key_id, version)| KeyInUse {
            key_id: key_id.to_string(),
            version,
        });
    watch_request::Kind::Ack(Ack {
        revision,
        in_use: in_use.collect(),
    })
}

pub(super) fn result(id: u64, answer: Result<String, String>) -> watch_request::Kind {
    let (ok, detail) = match answer {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    watch_request::Kind::Result(CommandResult { id, ok, detail })
}

pub(super) fn message(kind: watch_request::Kind) -> WatchRequest {
    WatchRequest { kind: Some(kind) }
}
