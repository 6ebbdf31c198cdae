//! The Watch stream: what changes at the daemon changes here, and the daemon hears that it did.
//!
//! A revoked version is dropped before anything else is done, and acknowledged. A successor is fetched beside that, so that no revoke waits
//! behind it; what is in use stands in every acknowledgement, and one is sent whenever that changes. Each daemon is watched, whoever granted
//! what is held: one that revokes is enough. The stream belongs to the daemon's session in use: when another takes its place, the watch moves
//! at once. When the stream ends, leases live on for their time and no longer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifecycle::readiness::Task;
use prometheus::IntGauge;
use proto::v1::{Subscribe, watch_request};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::following::{Following, message, result};
use super::{Connected, Hsmd, HsmdError, chain};
use crate::keys::cache::Cache;

/// Waits between attempts to reach the daemon: doubled from the first to the last, and drawn at random below that, so that a thousand agents
/// do not come back in the same moment.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(5);

/// Messages to the daemon that wait to be sent. It reads them as they come; if it does not, the stream is not worth keeping.
const OUTBOX_MAX: usize = 64;

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
    /// Index of the daemon.
    source: usize,
    cache: Cache,
    /// The agent.
    control: mpsc::Sender<Control>,
    stream: Counted,
    /// Done when leases can be had for the first time.
    answered: Answering,
    /// Answers to commands. They outlive the stream that the command came by: a reload may replace its session.
    results: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
}

/// The readiness that all watches wait for together.
type Answering = Arc<Mutex<Option<Task>>>;

/// How a command ended.
pub(super) type Answered = (u64, Result<String, String>);

/// How many streams are open, and whether ours is counted among them.
#[derive(Debug)]
struct Counted {
    all: IntGauge,
    open: bool,
}

impl Counted {
    fn set(&mut self, open: bool) {
        match (self.open, open) {
            (false, true) => self.all.inc(),
            (true, false) => self.all.dec(),
            _ => {}
        }
        self.open = open;
    }
}

/// Why a stream ended without a failure.
enum Ended {
    /// The daemon closed it.
    ByDaemon,
    /// Another session took the place of its own.
    Replaced,
}

impl Watch {
    /// One watch for each daemon; together they keep `cache` true to all of them.
    pub fn all(
        hsmd: &Arc<Hsmd>,
        cache: &Cache,
        control: &mpsc::Sender<Control>,
        connected: &IntGauge,
        answered: Task,
    ) -> Vec<Self> {
        let answered: Answering = Arc::new(Mutex::new(Some(answered)));
        let watch = |source| Self {
            hsmd: Arc::clone(hsmd),
            source,
            cache: cache.clone(),
            control: control.clone(),
            stream: Counted {
                all: connected.clone(),
                open: false,
            },
            answered: Arc::clone(&answered),
            results: mpsc::channel(OUTBOX_MAX),
        };
        (0..hsmd.daemons()).map(watch).collect()
    }

    /// Watches for ever; dropped with the agent.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let ended = self.once(&mut backoff).await;
            self.stream.set(false);
            match &ended {
                Ok(Ended::Replaced) => {
                    tracing::debug!("the session was replaced; watching the new one");
                    continue;
                }
                Ok(Ended::ByDaemon) => tracing::info!("hsmd ended the watch; connecting again"),
                Err(error) => {
                    if let Some(task) = &*self.answering() {
                        task.waiting("hsmd does not answer yet; see the log");
                    }
                    tracing::warn!(
                        daemon = %self.hsmd.name_of(self.source),
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

    fn answering(&self) -> MutexGuard<'_, Option<Task>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot is there: with it, leases may be had.
    fn ready(&self) {
        if !self.hsmd.suffices() {
            if let Some(task) = &*self.answering() {
                task.waiting("too few custodians answer yet over all daemons; see the log");
            }
        } else if let Some(task) = self.answering().take() {
            task.ready();
        }
    }

    async fn once(&mut self, backoff: &mut Duration) -> Result<Ended, HsmdError> {
        let connected = self.hsmd.connected(self.source).await?;
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
                self.hsmd.forget(&connected);
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
        let daemon = &self.hsmd.daemons[self.source];
        let seen = daemon.seen();
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
            source: self.source,
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
                    if following.told {
                        *backoff = BACKOFF_FIRST;
                        self.stream.set(true);
                        self.ready();
                    }
                }
                Ok(()) = following.held.changed() => following.acknowledge(),
                Some((id, answer)) = self.results.1.recv() => following.say(result(id, answer)),
            }
        }
    }
}

/// Between half of it and all of it.
fn jitter(wait: Duration) -> Duration {
    let mut byte = [0];
    if aws_lc_rs::rand::fill(&mut byte).is_err() {
        return wait;
    }
    wait / 2 + wait / 2 * u32::from(byte[0]) / 255
}
