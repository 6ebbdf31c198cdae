//! The daemon's client: sessions and leases over its workload socket, opened straight into the arena.
//!
//! `session` keeps one session with one daemon, `lease` asks for and opens leases in it, `watch` hears what changes, `report` tells how
//! keys were used, and `error` says what a failure means. These rooms alone name generated messages. What the daemon sends is believed only
//! as far as the trust file goes: the sealer's signature, the pinned custodians, and the header that opened decide; the daemon's own fields
//! are compared with them.

mod connect;
mod error;
mod following;
mod lease;
mod report;
mod session;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use custody::Trust;
use secret::Arena;
use tonic::Request;

use super::{KeySource, Leasing, Wanted};
use crate::config;

pub(crate) use error::{HsmdError, chain};
pub use report::report;
pub(crate) use session::Connected;
pub use watch::{Control, Watch};

/// How long one unary call may take. A daemon answers in milliseconds; a hung one must leave time to ask the next.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// What the client is made of.
#[derive(Debug)]
pub struct Hsmd {
    /// This agent's name, or empty.
    name: String,
    /// Random per start.
    instance_id: [u8; 16],
    sockets: Vec<PathBuf>,
    /// A user, besides root and our own, that a daemon may run as.
    daemon_uid: Option<u32>,
    /// The pod's service account token, if daemons are to see one.
    token_file: Option<PathBuf>,
    arena: Arena,
    settings: RwLock<Settings>,
    /// The session in use, one at a time: requests ask in it, and the watch follows it wherever it goes.
    current: tokio::sync::watch::Sender<Option<Arc<Connected>>>,
    /// Held by whoever opens a session; the others wait.
    opening: tokio::sync::Mutex<()>,
    /// Index of the socket that is tried first.
    preferred: AtomicUsize,
    /// Newest store revision seen, by socket. A daemon with an older store is not believed.
    seen: Vec<AtomicU64>,
}

/// What a reload of the configuration may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Pinned custodians and sealers.
    pub trust: Arc<Trust>,
    /// Keys that the routes name.
    pub key_ids: Vec<String>,
    /// What to ask for.
    pub lease: config::Lease,
}

/// What a changed configuration means for leases that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leases {
    /// They go on.
    Kept,
    /// They were granted for another time or opened under another trust file: lease again.
    Changed,
}

impl Hsmd {
    /// A client of the daemons at the configured sockets, tried in order.
    pub fn new(
        config: &config::Config,
        settings: Settings,
        arena: Arena,
        instance_id: [u8; 16],
    ) -> Self {
        Self {
            name: config.name.clone(),
            instance_id,
            seen: config.hsmd.iter().map(|_| AtomicU64::new(0)).collect(),
            sockets: config.hsmd.clone(),
            daemon_uid: config.hsmd_uid,
            token_file: config.token_file.clone(),
            arena,
            settings: RwLock::new(settings),
            current: tokio::sync::watch::Sender::new(None),
            opening: tokio::sync::Mutex::default(),
            preferred: AtomicUsize::new(0),
        }
    }

    /// Takes over a changed configuration. The session goes on unless the daemon must hear of other keys, or other custodians may need
    /// other session keys; then a new one takes its place at once.
    pub async fn change(&self, settings: Settings) -> Leases {
        let before = std::mem::replace(
            &mut *self
                .settings
                .write()
                .unwrap_or_else(PoisonError::into_inner),
            settings.clone(),
        );
        if before.trust != settings.trust || before.key_ids != settings.key_ids {
            self.renew().await;
        }
        if before.trust != settings.trust || before.lease != settings.lease {
            Leases::Changed
        } else {
            Leases::Kept
        }
    }

    fn settings(&self) -> Settings {
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl KeySource for Hsmd {
    fn lease<'a>(&'a self, wanted: &'a Wanted) -> Leasing<'a> {
        Box::pin(async move {
            self.grant(wanted).await.map_err(|error| {
                tracing::warn!(key = %wanted.key_id, fault = error.name(), error = chain(&error), "no lease");
                error.refusal()
            })
        })
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}
