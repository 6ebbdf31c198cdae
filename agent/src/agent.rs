//! The composition: everything is bound before anything serves, and what may change on a reload is put in place as a whole.

mod build;
mod error;
mod force;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::drain::Trigger;
use lifecycle::readiness::Readiness;
use lifecycle::{admin, signals::Reloads};
use prometheus::Registry;
use secret::Arena;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::keys::hsmd::{self, Control, Watch};
use crate::listen::{self, Door, House, RequestIds};

pub use error::BuildError;
use force::Force;

/// How often idle connections and dead leases are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// How long open streams may go on after a stop was asked for: a pod's grace period of 30 s less a margin, since a reset is uglier than a
/// clean close.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

/// The outside world.
pub struct Deps {
    /// Time for leases.
    pub clock: Arc<dyn Clock>,
    /// Begins the end.
    pub drain: Trigger,
    /// Where metrics go.
    pub registry: Registry,
    /// The file that a reload reads again, if there is one.
    pub config_path: Option<PathBuf>,
    /// What the process was confined to, if it was: a reload that needs more is refused.
    pub confined: Option<confine::Confined>,
}

/// A bound agent that does not serve yet.
pub struct Agent {
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    admin_addr: SocketAddr,
    doors: Vec<(TcpListener, Door)>,
    admin: admin::Serving,
    force: Force,
    /// One for each daemon.
    watches: Vec<Watch>,
    control: mpsc::Receiver<Control>,
    ids: Arc<RequestIds>,
    readiness: Readiness,
}

impl Agent {
    /// Where apps connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where apps connect with TLS, if they may.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// Where operators connect.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// What is awaited before requests can succeed.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// The locked memory, for tests that look for copies outside of it.
    pub fn arena(&self) -> &Arena {
        &self.force.arena
    }

    /// Serves until the drain has begun and everything in flight has ended, or its time is up.
    pub async fn serve(self, mut reloads: Reloads) {
        let Self {
            doors,
            admin,
            mut force,
            watches,
            mut control,
            ids,
            ..
        } = self;
        let drain = force.drain.clone();
        let mut background = JoinSet::new();
        for watch in watches {
            background.spawn(watch.run());
        }
        if let Some(hsmd) = &force.hsmd {
            background.spawn(hsmd::report(
                Arc::clone(hsmd),
                Arc::clone(&force.shared.usage),
            ));
        }
        let house = House::new(Arc::clone(&force.shared), ids, drain.watcher());
        for (listener, door) in doors {
            tokio::spawn(listen::accept(listener, door, house.clone()));
        }
        // Would hold up the end.
        drop(house);
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = drain.started() => break,
                Some(()) = reloads.recv() => match force.reload().await {
                    Ok(line) => tracing::info!("{line}"),
                    Err(line) => tracing::error!("{line}"),
                },
                Some(control) = control.recv() => force.control(control).await,
                _ = sweep.tick() => force.sweep(),
            }
        }
        if let Err(cut_off) = drain.finish(DRAIN_TIMEOUT).await {
            tracing::warn!(%cut_off, "drain");
        }
        background.shutdown().await;
        if let Some(hsmd) = &force.hsmd {
            let report = hsmd.report_now(&force.shared.usage);
            // A daemon that is gone must not hold up the end.
            let _ = tokio::time::timeout(Duration::from_secs(1), report).await;
        }
        drop(admin);
    }
}
