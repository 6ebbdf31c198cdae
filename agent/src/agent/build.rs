//! From a configuration to an agent: everything is bound before anything serves.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use custody::Trust;
use lifecycle::admin;
use lifecycle::readiness::Readiness;
use secret::{Arena, Tier};
use tokio::sync::mpsc;

use super::force::{Force, Unchanging};
use super::{Agent, BuildError, Deps};
use crate::body::Spool;
use crate::config::{self, Config, KeyRef, Memory, Provider};
use crate::keys::cache::Cache;
use crate::keys::hsmd::{Hsmd, Settings, Watch};
use crate::keys::{KeySource, Wanted};
use crate::listen::{self, Authority, Door, RequestIds, Tls};
use crate::metrics::Metrics;
use crate::pipeline::Shared;
use crate::usage::Usage;
use crate::ws::Sockets;

/// The arena: two versions of a few keys need a kilobyte; with `ttl = "0s"` every request in flight holds one. Small enough for the
/// RLIMIT_MEMLOCK of 8 MiB that systemd and containers give.
const ARENA_BYTES: usize = 256 * 1024;

/// What is tried where only little may be locked (64 KiB was the kernel's default before 5.16).
const ARENA_SMALL_BYTES: usize = 32 * 1024;

/// Commands from the daemon that wait.
const CONTROL_MAX: usize = 8;

impl Config {
    /// Whether any route's key is in the daemon's store.
    pub fn has_store_keys(&self) -> bool {
        self.providers
            .iter()
            .flat_map(Provider::keys)
            .any(|key| matches!(key, KeyRef::Store(_)))
    }

    /// Reads the trust file.
    ///
    /// # Errors
    /// [`BuildError::NoTrust`] or [`BuildError::Trust`].
    pub fn trust(&self) -> Result<Trust, BuildError> {
        let path = &self.custodians;
        let refuse = |rule: String| BuildError::Trust {
            path: path.clone(),
            rule,
        };
        let bytes = std::fs::read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => BuildError::NoTrust { path: path.clone() },
            kind => refuse(kind.to_string()),
        })?;
        Trust::parse(&bytes).map_err(|error| refuse(error.to_string()))
    }

    pub(super) fn settings(&self) -> Result<Settings, BuildError> {
        let key_ids: BTreeSet<String> = self
            .providers
            .iter()
            .flat_map(Provider::keys)
            .filter_map(|key| match key {
                KeyRef::Store(id) => Some(id.to_string()),
                KeyRef::Fixed(_, _) => None,
            })
            .collect();
        Ok(Settings {
            trust: Arc::new(self.trust()?),
            key_ids: key_ids.into_iter().collect(),
            lease: self.lease,
        })
    }

    /// Binds everything.
    ///
    /// # Errors
    /// [`BuildError`] names what cannot be had.
    pub async fn build(self, deps: Deps) -> Result<Agent, BuildError> {
        let Deps {
            clock,
            drain,
            registry,
            config_path,
            confined,
        } = deps;
        let arena = arena(&self.memory)?;
        let mut instance_id = [0; 16];
        aws_lc_rs::rand::fill(&mut instance_id).map_err(|_| BuildError::Random)?;
        let metrics = Metrics::register(&registry)?;
        metrics.memory_tier(arena.tier());
        let readiness = Readiness::new(&drain);
        let (control_in, control) = mpsc::channel(CONTROL_MAX);

        let settings = if self.has_store_keys() {
            Some(self.settings()?)
        } else {
            None
        };
        let hsmd = settings.map(|settings| {
            let gauges = metrics.custodians.clone();
            let hsmd = Hsmd::new(&self, settings, arena.clone(), instance_id, gauges);
            Arc::new(hsmd)
        });
        let source: Arc<dyn KeySource> = match &hsmd {
            Some(hsmd) => Arc::clone(hsmd) as _,
            None => Arc::new(NoDaemon),
        };
        let cache = Cache::new(source, clock, self.lease.ttl);
        let watches = hsmd.as_ref().map(|hsmd| {
            let answered = readiness.task("hsmd");
            let connected = &metrics.hsmd_connected;
            Watch::all(hsmd, &cache, &control_in, connected, answered)
        });
        let bind = |addr| move |source| BuildError::Bind { addr, source };
        let (listener, addr) = listen::bind(self.listen).await.map_err(bind(self.listen))?;
        let tls = match &self.tls {
            Some(tls) => Some((
                tls,
                listen::bind(tls.listen).await.map_err(bind(tls.listen))?,
            )),
            None => None,
        };
        let admin = admin::bind(self.admin_listen).await?.spawn(
            "tacit_agent",
            readiness.clone(),
            registry,
        )?;

        let mut doors = vec![(listener, Door::Plain)];
        let mut tls_addr = None;
        if let Some((tls, (listener, addr))) = tls {
            doors.push((listener, Door::Tls(self.certify(tls)?)));
            tls_addr = Some(addr);
        }
        let spool = Spool::default();
        let shared = Shared {
            routes: RwLock::default(),
            hosts: RwLock::new(Arc::from([])),
            sockets: Sockets::new(&metrics, &spool),
            metrics,
            usage: Arc::new(Usage::default()),
            spool,
        };
        let mut force = Force {
            config_path,
            confined,
            shared: Arc::new(shared),
            arena,
            drain,
            hsmd,
            cache,
            fixed: Unchanging::of(&self),
        };
        force.put_in_force(self).await?;
        let [a, b, c, d, e, f, ..] = instance_id;
        Ok(Agent {
            addr,
            tls_addr,
            admin_addr: admin.addr(),
            doors,
            admin,
            force,
            watches: watches.unwrap_or_default(),
            control,
            ids: Arc::new(RequestIds::new([a, b, c, d, e, f])),
            readiness,
        })
    }
}

impl Config {
    /// An authority of this process, and its certificate where apps find it.
    fn certify(&self, tls: &config::Tls) -> Result<Tls, BuildError> {
        let authority = Authority::new(&self.hosts, SystemTime::now())?;
        listen::publish(&tls.ca_file, authority.pem()).map_err(|source| BuildError::CaFile {
            path: tls.ca_file.clone(),
            source,
        })?;
        Ok(Tls::new(authority)?)
    }
}

/// The best tier that will do, large if that may be locked: what is lacking is told of the last one tried.
fn arena(memory: &Memory) -> Result<Arena, BuildError> {
    let mut last = None;
    let sizes = [ARENA_BYTES, ARENA_SMALL_BYTES];
    let tries = sizes.into_iter().flat_map(|bytes| {
        let tiers = memory.tiers().into_iter();
        tiers.map(move |tier| (tier, bytes))
    });
    let mut made = None;
    for (tier, bytes) in tries {
        match Arena::at(tier, bytes) {
            Ok(arena) => {
                made = Some(arena);
                break;
            }
            Err(error) => last = Some(error),
        }
    }
    let arena = match (made, last) {
        (Some(arena), _) => arena,
        (None, Some(source)) if memory.require == Tier::MemfdSecret => {
            return Err(BuildError::Tier { source });
        }
        (None, Some(source)) => return Err(source.into()),
        (None, None) => unreachable!("the configuration leaves at least one tier"),
    };
    tracing::info!(
        tier = arena.tier().name(),
        bytes = arena.range().len(),
        "memory for keys"
    );
    Ok(arena)
}

/// Stands where no route needs a daemon.
struct NoDaemon;

impl KeySource for NoDaemon {
    fn lease<'a>(&'a self, _: &'a Wanted) -> crate::keys::Leasing<'a> {
        use crate::respond::{Code, Refusal};
        Box::pin(std::future::ready(Err(Refusal::new(
            Code::HsmUnavailable,
            "no hsmd is configured",
        ))))
    }
}
