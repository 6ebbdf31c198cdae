//! The Watch stream: what changes at the daemon changes here, and the daemon hears that it did.
//!
//! A revoked version is dropped before anything else is done, and acknowledged. A successor is fetched beside that, so that no revoke waits
//! behind it; what is in use stands in every acknowledgement. When the stream ends, leases live on for their time and no longer.

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
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::{Connected, Hsmd, HsmdError, chain};
use crate::keys::Wanted;
use crate::keys::cache::Cache;

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
    /// The client.
    pub hsmd: Arc<Hsmd>,
    /// Where leases are dropped and renewed.
    pub cache: Arc<std::sync::RwLock<Cache>>,
    /// The agent.
    pub control: mpsc::Sender<Control>,
    /// 1 while the stream is open.
    pub connected: IntGauge,
    /// Done when the daemon has answered for the first time.
    pub answered: Option<Task>,
}

impl Watch {
    /// Watches for ever; dropped with the agent.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let ended = self.once(&mut backoff).await;
            self.connected.set(0);
            match &ended {
                Ok(()) => tracing::info!("hsmd ended the watch; connecting again"),
                Err(error) => {
                    if let Some(task) = &self.answered {
                        task.waiting("hsmd does not answer yet; see the log");
                    }
                    tracing::warn!(
                        error = chain(error),
                        "hsmd cannot be watched; revocations wait for the end of leases"
                    );
                }
            }
            tokio::time::sleep(jitter(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }

    async fn once(&mut self, backoff: &mut Duration) -> Result<(), HsmdError> {
        let connected = self.hsmd.connected().await?;
        let ended = self.follow(&connected, backoff).await;
        // Whatever ended it, the session may be gone with it.
        self.hsmd.forget(&connected, ended.is_err()).await;
        ended
    }

    async fn follow(
        &mut self,
        connected: &Arc<Connected>,
        backoff: &mut Duration,
    ) -> Result<(), HsmdError> {
        let (outbox, inbox) = mpsc::channel(OUTBOX_MAX);
        let seen = self.hsmd.seen[connected.socket].load(std::sync::atomic::Ordering::SeqCst);
        let subscribe = Subscribe {
            session_id: connected.session_id.to_vec(),
            seen_revision: seen,
        };
        // There is room: the channel is new.
        let _ = outbox.try_send(message(watch_request::Kind::Subscribe(subscribe)));
        let mut stream = connected
            .client
            .clone()
            .watch(Request::new(ReceiverStream::new(inbox)))
            .await?
            .into_inner();
        let mut following = Following {
            watch: self,
            connected: Arc::clone(connected),
            outbox,
            revision: 0,
            snapshot: Vec::new(),
        };
        while let Some(response) = stream.message().await? {
            match response.kind {
                Some(watch_response::Kind::Snapshot(part)) => {
                    following.snapshot.extend(part.keys);
                    if following.snapshot.len() > SNAPSHOT_MAX {
                        return Err(HsmdError::Contract("the snapshot is too long"));
                    }
                    if part.last {
                        following.snapshot_complete(part.revision)?;
                        *backoff = BACKOFF_FIRST;
                    }
                }
                Some(watch_response::Kind::Change(change)) => {
                    following.change(change.revision, &change.keys)?
                }
                Some(watch_response::Kind::Command(command)) => {
                    following.command(command.id, command.kind)
                }
                Some(watch_response::Kind::KeepAlive(_)) | None => {}
            }
        }
        Ok(())
    }

    fn cache(&self) -> Cache {
        self.cache
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

/// One stream.
struct Following<'a> {
    watch: &'a mut Watch,
    connected: Arc<Connected>,
    outbox: mpsc::Sender<WatchRequest>,
    /// Newest revision acted upon.
    revision: u64,
    snapshot: Vec<KeyState>,
}

impl Following<'_> {
    fn snapshot_complete(&mut self, revision: u64) -> Result<(), HsmdError> {
        let keys = std::mem::take(&mut self.snapshot);
        let present: HashSet<&str> = keys.iter().map(|key| key.key_id.as_str()).collect();
        self.watch
            .cache()
            .retain((self.connected.socket, revision), |id| {
                present.contains(id.as_str())
            });
        self.change(revision, &keys)?;
        self.watch.connected.set(1);
        if let Some(task) = self.watch.answered.take() {
            task.ready();
        }
        Ok(())
    }

    /// Drops what must go, acknowledges, and begins to fetch successors.
    fn change(&mut self, revision: u64, keys: &[KeyState]) -> Result<(), HsmdError> {
        self.watch.hsmd.not_older(self.connected.socket, revision)?;
        self.revision = self.revision.max(revision);
        let cache = self.watch.cache();
        let mut behind = Vec::new();
        for key in keys {
            let Ok(id) = key.key_id.parse::<KeyId>() else {
                return Err(HsmdError::Contract("a key id breaks the rule for key ids"));
            };
            let ended = cache.end(&id, (self.connected.socket, revision), |version| {
                !key.usable || key.revoked_versions.contains(&version)
            });
            if ended {
                tracing::info!(key = %id, revision, "lease ended by hsmd");
            }
            if key.usable {
                behind.extend(cache.behind(&id, key.current_version));
            }
        }
        self.acknowledge(&cache);
        if !behind.is_empty() {
            self.fetch(cache, behind);
        }
        Ok(())
    }

    fn acknowledge(&self, cache: &Cache) {
        send(&self.outbox, acknowledgement(self.revision, cache));
    }

    /// Gets successors in the background and acknowledges again. Bounded: each fetch has a deadline, and one runs per route.
    fn fetch(&self, cache: Cache, behind: Vec<Wanted>) {
        let (outbox, revision) = (self.outbox.clone(), self.revision);
        tokio::spawn(async move {
            for wanted in behind {
                match cache.prefetch(&wanted).await {
                    Ok(()) => tracing::info!(key = %wanted.key_id, revision, "successor in use"),
                    Err(refusal) => {
                        tracing::warn!(key = %wanted.key_id, code = refusal.code.name(), "successor not there yet; the old lease lives to its end")
                    }
                }
            }
            send(&outbox, acknowledgement(revision, &cache));
        });
    }

    fn command(&self, id: u64, kind: Option<command::Kind>) {
        let (answer, answered) = oneshot::channel();
        let control = match kind {
            Some(command::Kind::Reload(_)) => Control::Reload(answer),
            Some(command::Kind::TestKey(test)) => Control::TestKey(test.key_id, answer),
            None => {
                return self.result(id, Err("this agent does not know that command".to_owned()));
            }
        };
        if self.watch.control.try_send(control).is_err() {
            return self.result(id, Err("the agent is busy with another command".to_owned()));
        }
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            let answer = answered
                .await
                .unwrap_or_else(|_| Err("the agent is stopping".to_owned()));
            send(&outbox, result(id, answer));
        });
    }

    fn result(&self, id: u64, answer: Result<String, String>) {
        send(&self.outbox, result(id, answer));
    }
}

fn send(outbox: &mpsc::Sender<WatchRequest>, kind: watch_request::Kind) {
    if outbox.try_send(message(kind)).is_err() {
        tracing::warn!("hsmd does not read what we acknowledge");
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
