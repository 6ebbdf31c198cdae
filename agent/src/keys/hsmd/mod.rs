//! The daemon's client: sessions and leases over its workload socket, opened straight into the arena.
//!
//! `daemon` and `session` keep one session with each daemon, `gather` asks them for shares and `shares` says which of these belong together,
//! `lease` opens what came, `watch` hears what changes, `report` tells how keys were used, and `error` says what a failure means. These rooms alone name generated messages. What the daemon sends is believed only
//! as far as the trust file goes: the sealer's signature, the pinned custodians, and the header that opened decide; the daemon's own fields
//! are compared with them.

mod connect;
mod daemon;
mod error;
mod following;
mod gather;
mod lease;
mod report;
mod session;
mod shares;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use custody::Trust;
use prometheus::{IntGauge, IntGaugeVec};
use secret::Arena;
use tonic::Request;

use super::{KeySource, Leasing, Wanted};
use crate::config;
use daemon::Daemon;

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
    /// In order of preference.
    daemons: Vec<Daemon>,
    /// The pod's service account token, if daemons are to see one.
    token_file: Option<PathBuf>,
    arena: Arena,
    settings: RwLock<Settings>,
    gauges: Gauges,
}

/// What the client shows of the custodians that it reaches.
#[derive(Clone, Debug)]
pub struct Gauges {
    /// How many answer, over all daemons.
    pub available: IntGauge,
    /// How many of these may fail, by threshold: there is none before a daemon is known.
    pub margin: IntGaugeVec,
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
    /// A client of the daemons at the configured sockets, preferred in that order.
    pub fn new(
        config: &config::Config,
        settings: Settings,
        arena: Arena,
        instance_id: [u8; 16],
        gauges: Gauges,
    ) -> Self {
        let hsmd = Self {
            name: config.name.clone(),
            instance_id,
            daemons: config
                .hsmd
                .iter()
                .zip(&config.hsmd_uids)
                .map(|(path, uid)| Daemon::new(path.clone(), *uid))
                .collect(),
            token_file: config.token_file.clone(),
            arena,
            settings: RwLock::new(settings),
            gauges,
        };
        hsmd.gauge();
        hsmd
    }

    /// How many daemons there are.
    pub fn daemons(&self) -> usize {
        self.daemons.len()
    }

    /// A daemon's name in logs and errors: its socket.
    fn name_of(&self, source: usize) -> String {
        self.daemons[source].path.display().to_string()
    }

    /// Whether leases could be had as far as is known: of one daemon that has all it needs, or of parts that have t custodians together.
    fn suffices(&self) -> bool {
        let mut connected = self.daemons.iter().filter(|one| one.session().is_some());
        connected.any(|one| !one.is_part())
            || self.available() >= usize::from(self.settings().trust.threshold)
    }

    /// Custodians that answer, each counted once however many daemons drive it.
    fn available(&self) -> usize {
        let up: BTreeSet<_> = self.daemons.iter().flat_map(Daemon::up).collect();
        up.len()
    }

    /// Shows how many custodians answer. Called whenever that may have changed.
    fn gauge(&self) {
        let available = i64::try_from(self.available()).unwrap_or(i64::MAX);
        let threshold = self.settings().trust.threshold;
        self.gauges.available.set(available);
        self.gauges
            .margin
            .with_label_values(&[&threshold.to_string()])
            .set(available - i64::from(threshold));
    }

    /// Takes over a changed configuration. The sessions go on unless the daemon must hear of other keys, or other custodians may need
    /// other session keys; then new ones take their places at once.
    pub async fn change(&self, settings: Settings) -> Leases {
        let before = std::mem::replace(
            &mut *self
                .settings
                .write()
                .unwrap_or_else(PoisonError::into_inner),
            settings.clone(),
        );
        if before.trust.threshold != settings.trust.threshold {
            self.gauges.margin.reset();
        }
        if before.trust != settings.trust || before.key_ids != settings.key_ids {
            self.renew().await;
            self.gauge();
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
