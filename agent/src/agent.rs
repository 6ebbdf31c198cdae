//! The composition: everything is bound before anything serves, and what may change on a reload is put in place as a whole.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use custody::Trust;
use lifecycle::drain::Trigger;
use lifecycle::readiness::Readiness;
use lifecycle::{admin, signals::Reloads};
use prometheus::Registry;
use rustls::RootCertStore;
use secret::Arena;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::{Config, KeyRef};
use crate::keys::cache::Cache;
use crate::keys::fixed::Fixed;
use crate::keys::hsmd::{self, Control, Hsmd, Settings, Terms, Watch};
use crate::keys::{KeySource, Wanted};
use crate::listen::{self, RequestIds};
use crate::metrics::Metrics;
use crate::pipeline::Shared;
use crate::probe;
use crate::route::{Route, Routes};
use crate::trust_roots::{self, RootsError};
use crate::upstream::Upstream;
use crate::usage::Usage;

/// The arena: two versions of a few keys need a kilobyte; with `ttl = "0s"` every request in flight holds one. Small enough for the
/// RLIMIT_MEMLOCK of 8 MiB that systemd and containers give.
const ARENA_BYTES: usize = 256 * 1024;

/// What is tried where only little may be locked (64 KiB was the kernel's default before 5.16).
const ARENA_SMALL_BYTES: usize = 32 * 1024;

/// How often idle connections and dead leases are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Commands from the daemon that wait.
const CONTROL_MAX: usize = 8;

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
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no trust file.
    #[error(
        "there is no trust file at {path}: copy the custodians.json that `hsmd init --config FILE` printed fingerprints of, compare them (`tacit trust show --trust {path}`), then start again"
    )]
    NoTrust {
        /// Where it should be.
        path: PathBuf,
    },
    /// The trust file cannot be used.
    #[error("the trust file {path} cannot be used: {rule}")]
    Trust {
        /// Which file.
        path: PathBuf,
        /// Why.
        rule: String,
    },
    /// No memory could be locked for keys.
    #[error("cannot set up the memory that keys live in")]
    Arena(#[from] secret::ArenaError),
    /// A route's TLS cannot be set up.
    #[error("providers.{provider}")]
    Roots {
        /// Which route.
        provider: String,
        /// Why.
        #[source]
        source: RootsError,
    },
    /// A route's host cannot be a TLS name.
    #[error("providers.{provider}.base_url: its host cannot be a TLS server name")]
    ServerName {
        /// Which route.
        provider: String,
    },
    /// An address is taken.
    #[error("cannot listen on {addr}; is another process there? Set `listen`")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The admin endpoints cannot be had.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// A metric cannot be registered.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// No randomness for names.
    #[error("the system gives no randomness")]
    Random,
}

impl BuildError {
    /// Whether the configuration or its surroundings are at fault (exit 78), not this moment (exit 1).
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::NoTrust { .. }
            | Self::Trust { .. }
            | Self::Roots { .. }
            | Self::ServerName { .. } => true,
            Self::Arena(_)
            | Self::Bind { .. }
            | Self::Admin(_)
            | Self::Metrics(_)
            | Self::Random => false,
        }
    }
}

/// A bound agent that does not serve yet.
pub struct Agent {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    listener: TcpListener,
    admin: admin::Serving,
    parts: Parts,
    watch: Option<Watch>,
    control: mpsc::Receiver<Control>,
    ids: Arc<RequestIds>,
    readiness: Readiness,
}

/// What a reload works on.
struct Parts {
    config_path: Option<PathBuf>,
    shared: Arc<Shared>,
    arena: Arena,
    drain: Trigger,
    hsmd: Option<Arc<Hsmd>>,
    cache: Cache,
    /// What cannot change without a restart.
    fixed: Unchanging,
}

#[derive(Debug, PartialEq)]
struct Unchanging {
    name: String,
    listen: SocketAddr,
    admin_listen: SocketAddr,
    hsmd: Vec<PathBuf>,
    hsmd_uid: Option<u32>,
    has_store_keys: bool,
}

impl Unchanging {
    fn of(config: &Config) -> Self {
        Self {
            name: config.name.clone(),
            listen: config.listen,
            admin_listen: config.admin_listen,
            hsmd: config.hsmd.clone(),
            hsmd_uid: config.hsmd_uid,
            has_store_keys: config.has_store_keys(),
        }
    }
}

impl Config {
    /// Whether any route's key is in the daemon's store.
    pub fn has_store_keys(&self) -> bool {
        self.providers
            .iter()
            .any(|provider| matches!(provider.key, KeyRef::Store(_)))
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

    fn settings(&self) -> Result<Settings, BuildError> {
        let key_ids: BTreeSet<String> = self
            .providers
            .iter()
            .filter_map(|provider| match &provider.key {
                KeyRef::Store(id) => Some(id.to_string()),
                KeyRef::Fixed(_) => None,
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
        } = deps;
        let arena = arena()?;
        let mut instance_id = [0; 16];
        aws_lc_rs::rand::fill(&mut instance_id).map_err(|_| BuildError::Random)?;
        let metrics = Metrics::register(&registry)?;
        let readiness = Readiness::new(&drain);
        let (control_in, control) = mpsc::channel(CONTROL_MAX);

        let settings = if self.has_store_keys() {
            Some(self.settings()?)
        } else {
            None
        };
        let hsmd = settings
            .map(|settings| Arc::new(Hsmd::new(&self, settings, arena.clone(), instance_id)));
        let source: Arc<dyn KeySource> = match &hsmd {
            Some(hsmd) => Arc::clone(hsmd) as _,
            None => Arc::new(NoDaemon),
        };
        let cache = Cache::new(source, clock, self.lease.ttl);
        let watch = hsmd.as_ref().map(|hsmd| {
            Watch::new(
                Arc::clone(hsmd),
                cache.clone(),
                control_in,
                metrics.hsmd_connected.clone(),
                readiness.task("hsmd"),
            )
        });
        let bind = |addr| move |source| BuildError::Bind { addr, source };
        let (listener, addr) = listen::bind(self.listen).await.map_err(bind(self.listen))?;
        let admin = admin::bind(self.admin_listen).await?.spawn(
            "tacit_agent",
            readiness.clone(),
            registry,
        )?;

        let shared = Shared {
            routes: RwLock::default(),
            hosts: RwLock::new(Arc::from([])),
            metrics,
            usage: Arc::new(Usage::default()),
        };
        let mut parts = Parts {
            config_path,
            shared: Arc::new(shared),
            arena,
            drain,
            hsmd,
            cache,
            fixed: Unchanging::of(&self),
        };
        parts.put_in_force(self).await?;
        let [a, b, c, d, e, f, ..] = instance_id;
        Ok(Agent {
            addr,
            admin_addr: admin.addr(),
            listener,
            admin,
            parts,
            watch,
            control,
            ids: Arc::new(RequestIds::new([a, b, c, d, e, f])),
            readiness,
        })
    }
}

fn arena() -> Result<Arena, BuildError> {
    let arena = Arena::new(ARENA_BYTES).or_else(|_| Arena::new(ARENA_SMALL_BYTES))?;
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

impl Agent {
    /// Where apps connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
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
        &self.parts.arena
    }

    /// Serves until the drain has begun and everything in flight has ended, or its time is up.
    pub async fn serve(self, mut reloads: Reloads) {
        let Self {
            listener,
            admin,
            mut parts,
            watch,
            mut control,
            ids,
            ..
        } = self;
        let drain = parts.drain.clone();
        let mut background = JoinSet::new();
        if let (Some(watch), Some(hsmd)) = (watch, &parts.hsmd) {
            background.spawn(watch.run());
            background.spawn(hsmd::report(
                Arc::clone(hsmd),
                Arc::clone(&parts.shared.usage),
            ));
        }
        tokio::spawn(listen::accept(
            listener,
            Arc::clone(&parts.shared),
            ids,
            drain.watcher(),
        ));
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = drain.started() => break,
                Some(()) = reloads.recv() => match parts.reload().await {
                    Ok(line) => tracing::info!("{line}"),
                    Err(line) => tracing::error!("{line}"),
                },
                Some(control) = control.recv() => parts.control(control).await,
                _ = sweep.tick() => parts.sweep(),
            }
        }
        if let Err(cut_off) = drain.finish(DRAIN_TIMEOUT).await {
            tracing::warn!(%cut_off, "drain");
        }
        background.shutdown().await;
        if let Some(hsmd) = &parts.hsmd {
            let report = hsmd.report_now(&parts.shared.usage);
            // A daemon that is gone must not hold up the end.
            let _ = tokio::time::timeout(Duration::from_secs(1), report).await;
        }
        drop(admin);
    }
}

impl Parts {
    async fn control(&mut self, control: Control) {
        match control {
            Control::Reload(answer) => {
                // Nobody waits any more: the daemon ended the stream.
                let _ = answer.send(self.reload().await);
            }
            Control::TestKey(key_id, answer) => {
                let routes = Arc::clone(
                    &self
                        .shared
                        .routes
                        .read()
                        .unwrap_or_else(PoisonError::into_inner),
                );
                let route = routes
                    .list
                    .iter()
                    .find(|route| route.wanted.key_id.as_str() == key_id)
                    .cloned();
                tokio::spawn(async move {
                    let line = match route {
                        Some(route) => probe::test_key(&route).await,
                        None => Err("no route of this agent uses the key".to_owned()),
                    };
                    let _ = answer.send(line);
                });
            }
        }
    }

    /// Reads the file again. A bad one changes nothing.
    async fn reload(&mut self) -> Result<String, String> {
        const KEPT: &str = "the configuration in force stays";
        let Some(path) = &self.config_path else {
            return Err(format!("there is no file to read; {KEPT}"));
        };
        let config =
            Config::load(path).map_err(|error| format!("{KEPT}; the file has errors: {error}"))?;
        if Unchanging::of(&config) != self.fixed {
            return Err(format!(
                "{KEPT}; name, listen, admin_listen, hsmd, hsmd_uid, and the first or last store key need a restart to change"
            ));
        }
        match self.put_in_force(config).await {
            Ok(()) => Ok("configuration read again and in force".to_owned()),
            Err(error) => Err(format!("{KEPT}; {}", hsmd::chain(&error))),
        }
    }

    /// Makes everything first, then replaces all of it.
    async fn put_in_force(&mut self, config: Config) -> Result<(), BuildError> {
        let settings = if self.hsmd.is_some() {
            Some(config.settings()?)
        } else {
            None
        };
        let system = if config
            .providers
            .iter()
            .any(|provider| provider.origin.tls())
        {
            trust_roots::system()
        } else {
            RootCertStore::empty()
        };
        let mut list = Vec::new();
        for provider in config.providers {
            list.push(Arc::new(self.route(provider, &system)?));
        }
        if let (Some(hsmd), Some(settings)) = (&self.hsmd, settings) {
            match hsmd.change(settings).await {
                Terms::Kept => {}
                Terms::Changed => self.cache.begin_anew(config.lease.ttl),
            }
        }
        *self
            .shared
            .hosts
            .write()
            .unwrap_or_else(PoisonError::into_inner) = config.hosts.into();
        *self
            .shared
            .routes
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(Routes { list });
        Ok(())
    }

    fn route(
        &self,
        provider: crate::config::Provider,
        system: &RootCertStore,
    ) -> Result<Route, BuildError> {
        let crate::config::Provider {
            name,
            family,
            key,
            origin,
            ca_file,
        } = provider;
        let tls = match origin.tls() {
            true => Some(
                trust_roots::client_config(system.clone(), ca_file.as_deref()).map_err(
                    |source| BuildError::Roots {
                        provider: name.clone(),
                        source,
                    },
                )?,
            ),
            false => None,
        };
        let upstream = Upstream::new(origin.clone(), tls).map_err(|_| BuildError::ServerName {
            provider: name.clone(),
        })?;
        let wanted = |key_id| Wanted {
            key_id,
            provider: name.clone(),
            origin,
        };
        let (wanted, keys): (Wanted, Arc<dyn KeySource>) = match key {
            KeyRef::Store(id) => (wanted(id), Arc::new(self.cache.clone())),
            KeyRef::Fixed(key) => {
                // A development key has no id of its own; its route's name stands for it in metrics.
                let wanted = wanted(
                    name.parse()
                        .expect("the name was checked against the rule for key ids in config"),
                );
                tracing::warn!(provider = %name, "key from a file or variable: for development only");
                let fixed = Fixed::new(&wanted, key, &self.arena)?;
                (wanted, Arc::new(fixed))
            }
        };
        Ok(Route {
            name,
            family,
            wanted,
            keys,
            upstream: Arc::new(upstream),
        })
    }

    fn sweep(&self) {
        let routes = Arc::clone(
            &self
                .shared
                .routes
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        );
        routes.list.iter().for_each(|route| route.upstream.sweep());
        self.cache.sweep();
        self.shared
            .metrics
            .leases
            .set(i64::try_from(self.cache.in_use().len()).unwrap_or(i64::MAX));
    }
}
