//! The Watch stream: what changes at the daemon changes here, and the daemon hears that it did.
//!
//! A revoked version is dropped before anything else is done, and acknowledged. A successor is fetched beside that, so that no revoke waits
//! behind it; what is in use stands in every acknowledgement, and one is sent whenever that changes. The stream belongs to the session in
//! use: when another takes its place, the watch moves at once. When the stream ends, leases live on for their time and no longer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use custody::KeyId;
use lifecycle::readiness::Task;
use prometheus::IntGauge;
use proto::v1::{
    Ack, CommandResult, KeyInUse, KeyState, Subscribe, WatchRequest, command, watch_request,
    watch_response,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::{Connected, Hsmd, HsmdError, chain};
use crate::keys::Wanted;
use crate::keys::cache::{Cache, Word};

/// Waits between attempts to reach the daemon: doubled from the first to the last, and drawn at random below that, so that a thousand agents
/// do not come back in the same moment.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(5);

/// Messages to the daemon that wait to be sent. It reads them as they come; if it does not, the stream is not worth keeping.
const OUTBOX_MAX: usize = 64;

/// Keys in one snapshot that are looked at: a bound on what a daemon can make us hold.
const SNAPSHOT_MAX: usize = 10_000;

/// What the daemon asks of the agent as a whole.
#[derive(Debug)]
pub enum Control {
    /// Read the configuration again. The answer is a line for the operator.
    Reload(oneshot::Sender<Result<String, String>>),
    /// Make the provider's zero-token call.
    TestKey(String, oneshot::Sender<Result<String, String>>),
}

/// Everything that the watch acts upon.
#[derive(Debug)]
pub struct Watch {
    hsmd: Arc<Hsmd>,
    cache: Cache,
    /// The agent.
    control: mpsc::Sender<Control>,
    /// 1 while the stream is open.
    connected: IntGauge,
    /// Done when the daemon has answered for the first time.
    answered: Option<Task>,
    /// Answers to commands. They outlive the stream that the command came by: a reload may replace its session.
    results: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
}

/// How a command ended.
type Answered = (u64, Result<String, String>);

/// Why a stream ended without a failure.
enum Ended {
    /// The daemon closed it.
    ByDaemon,
    /// Another session took the place of its own.
    Replaced,
}

impl Watch {
    /// A watch that keeps `cache` true to the daemon.
    pub fn new(
        hsmd: Arc<Hsmd>,
        cache: Cache,
        control: mpsc::Sender<Control>,
        connected: IntGauge,
        answered: Task,
    ) -> Self {
        Self {
            hsmd,
            cache,
            control,
            connected,
            answered: Some(answered),
            results: mpsc::channel(OUTBOX_MAX),
        }
    }

    /// Watches for ever; dropped with the agent.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let ended = self.once(&mut backoff).await;
            self.connected.set(0);
            match &ended {
                Ok(Ended::Replaced) => {
                    tracing::debug!("the session was replaced; watching the new one");
                    continue;
                }
                Ok(Ended::ByDaemon) => tracing::info!("hsmd ended the watch; connecting again"),
                Err(error) => {
                    if let Some(task) = &self.answered {
                        task.waiting("hsmd does not answer yet; see the log");
                    }
                    tracing::warn!(
                        fault = error.name(),
                        error = chain(error),
                        "hsmd cannot be watched; revocations wait for the end of leases"
                    );
                }
            }
            tokio::time::sleep(jitter(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }

    async fn once(&mut self, backoff: &mut Duration) -> Result<Ended, HsmdError> {
        let connected = self.hsmd.connected().await?;
        match self.follow(&connected, backoff).await {
            // The daemon closes the stream of a session as soon as it has opened the next one for us.
            Ok(Ended::ByDaemon) if self.hsmd.was_replaced(&connected).await => Ok(Ended::Replaced),
            Ok(Ended::Replaced) => Ok(Ended::Replaced),
            // Whatever ended it, the session may be gone with it.
            Ok(Ended::ByDaemon) => {
                self.hsmd.forget(&connected);
                Ok(Ended::ByDaemon)
            }
            Err(error) => {
                self.hsmd.turn_from(&connected);
                Err(error)
            }
        }
    }

    async fn follow(
        &mut self,
        connected: &Arc<Connected>,
        backoff: &mut Duration,
    ) -> Result<Ended, HsmdError> {
        let (outbox, inbox) = mpsc::channel(OUTBOX_MAX);
        let seen = self.hsmd.seen(connected.socket);
        let subscribe = Subscribe {
            session_id: connected.session_id.to_vec(),
            seen_revision: seen,
        };
        // There is room: the channel is new.
        let _ = outbox.try_send(message(watch_request::Kind::Subscribe(subscribe)));
        let hsmd = Arc::clone(&self.hsmd);
        let mut replaced = std::pin::pin!(hsmd.replaced(connected));
        let mut client = connected.client.clone();
        let mut stream = tokio::select! {
            stream = client.watch(Request::new(ReceiverStream::new(inbox))) => stream?.into_inner(),
            () = &mut replaced => return Ok(Ended::Replaced),
        };
        let mut following = Following {
            hsmd: &self.hsmd,
            cache: &self.cache,
            control: &self.control,
            results: &self.results.0,
            socket: connected.socket,
            outbox,
            revision: seen,
            told: false,
            snapshot: Vec::new(),
            held: self.cache.changes(),
        };
        loop {
            tokio::select! {
                // A stream that is not the session's any more would lose what is said on it; and what the daemon says comes before what we
                // have to say.
                biased;
                () = &mut replaced => return Ok(Ended::Replaced),
                response = stream.message() => {
                    let Some(response) = response? else { return Ok(Ended::ByDaemon) };
                    following.heard(response.kind)?;
                    if following.told && self.connected.get() == 0 {
                        self.connected.set(1);
                        *backoff = BACKOFF_FIRST;
                        if let Some(task) = self.answered.take() {
                            task.ready();
                        }
                    }
                }
                Ok(()) = following.held.changed() => following.acknowledge(),
                Some((id, answer)) = self.results.1.recv() => following.say(result(id, answer)),
            }
        }
    }
}

/// One stream.
struct Following<'a> {
    hsmd: &'a Arc<Hsmd>,
    cache: &'a Cache,
    control: &'a mpsc::Sender<Control>,
    results: &'a mpsc::Sender<Answered>,
    /// Index of the daemon.
    socket: usize,
    outbox: mpsc::Sender<WatchRequest>,
    /// Newest revision acted upon.
    revision: u64,
    /// The snapshot is complete.
    told: bool,
    snapshot: Vec<KeyState>,
    /// Ticks when what is held changes.
    held: watch::Receiver<()>,
}

impl Following<'_> {
    fn heard(&mut self, kind: Option<watch_response::Kind>) -> Result<(), HsmdError> {
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
            Some(watch_response::Kind::KeepAlive(_)) | None => {}
        }
        Ok(())
    }

    fn snapshot_complete(&mut self, revision: u64) -> Result<(), HsmdError> {
        let keys = std::mem::take(&mut self.snapshot);
        let present: HashSet<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
        self.hsmd.not_older(self.socket, self.revision, revision)?;
        self.cache
            .retain((self.socket, revision), |id| present.contains(id.as_str()));
        self.told = true;
        self.change(revision, &keys)
    }

    /// Drops what must go, acknowledges, and begins to fetch successors.
    fn change(&mut self, revision: u64, keys: &[KeyState]) -> Result<(), HsmdError> {
        self.hsmd.not_older(self.socket, self.revision, revision)?;
        self.revision = revision;
        let mut behind = Vec::new();
        for key in keys {
            let Ok(id) = key.key_id.parse::<KeyId>() else {
                return Err(HsmdError::Contract("a key id breaks the rule for key ids"));
            };
            let word = Word {
                source: self.socket,
                revision,
                usable: key.usable,
                revoked: key.revoked_versions.clone(),
            };
            if self.cache.hear(&id, &word) {
                tracing::info!(key = %id, revision, "lease ended by hsmd");
            }
            if key.usable {
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
    fn acknowledge(&mut self) {
        if self.told {
            // Before the list is made: a change after that is told again.
            self.held.mark_unchanged();
            self.say(acknowledgement(self.revision, self.cache));
        }
    }

    /// Gets successors in the background; what is held then is acknowledged as it changes. Bounded: each fetch has a deadline, and one runs
    /// per route.
    fn fetch(&self, behind: Vec<Wanted>) {
        let (cache, revision) = (self.cache.clone(), self.revision);
        tokio::spawn(async move {
            for wanted in behind {
                match cache.prefetch(&wanted).await {
                    Ok(()) => tracing::info!(key = %wanted.key_id, revision, "successor in use"),
                    Err(refusal) => {
                        tracing::warn!(key = %wanted.key_id, code = refusal.code.name(), "successor not there yet; the old lease lives to its end")
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

    fn say(&self, kind: watch_request::Kind) {
        if self.outbox.try_send(message(kind)).is_err() {
            tracing::warn!("hsmd does not read what we acknowledge");
        }
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

fn result(id: u64, answer: Result<String, String>) -> watch_request::Kind {
    let (ok, detail) = match answer {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    watch_request::Kind::Result(CommandResult { id, ok, detail })
}

fn message(kind: watch_request::Kind) -> WatchRequest {
    WatchRequest { kind: Some(kind) }
}

/// Between half of it and all of it.
fn jitter(wait: Duration) -> Duration {
    let mut byte = [0];
    if aws_lc_rs::rand::fill(&mut byte).is_err() {
        return wait;
    }
    wait / 2 + wait / 2 * u32::from(byte[0]) / 255
}
