//! The configuration in force: put in place as a whole, and replaced as a whole when the file is read again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use confine::Confined;
use lifecycle::drain::Trigger;
use rustls::RootCertStore;
use secret::Arena;

use super::BuildError;
use crate::config::{self, Config, KeyRef, Tls};
use crate::hardening;
use crate::keys::cache::Cache;
use crate::keys::fixed::Fixed;
use crate::keys::hsmd::{self, Control, Hsmd, Leases};
use crate::keys::{KeySource, Wanted};
use crate::pipeline::Shared;
use crate::probe;
use crate::route::{Route, Routes, Source};
use crate::targets::{Target, Targets};
use crate::trust_roots;
use crate::upstream::Upstream;
use crate::upstream::address::Reach;

/// What a reload works on.
pub(super) struct Force {
    pub(super) config_path: Option<PathBuf>,
    /// What the process was confined to, if it was.
    pub(super) confined: Option<Confined>,
    pub(super) shared: Arc<Shared>,
    pub(super) arena: Arena,
    pub(super) drain: Trigger,
    pub(super) hsmd: Option<Arc<Hsmd>>,
    pub(super) cache: Cache,
    /// What cannot change without a restart.
    pub(super) fixed: Unchanging,
}

#[derive(Debug, PartialEq)]
pub(super) struct Unchanging {
    name: String,
    listen: SocketAddr,
    /// With the names that the certificate is made out to.
    tls: Option<(Tls, Vec<String>)>,
    admin_listen: SocketAddr,
    hsmd: Vec<PathBuf>,
    hsmd_uids: Vec<Option<u32>>,
    has_store_keys: bool,
    hardening: confine::Settings,
    memory: config::Memory,
}

impl Unchanging {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            name: config.name.clone(),
            listen: config.listen,
            tls: config.tls.clone().map(|tls| (tls, config.hosts.clone())),
            admin_listen: config.admin_listen,
            hsmd: config.hsmd.clone(),
            hsmd_uids: config.hsmd_uids.clone(),
            has_store_keys: config.has_store_keys(),
            hardening: config.hardening.clone(),
            memory: config.memory,
        }
    }
}

impl Force {
    pub(super) async fn control(&mut self, control: Control) {
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
                let found = routes.list.iter().find_map(|route| {
                    let mut targets = route.targets()?.iter();
                    let target = targets.find(|target| target.wanted.key_id.as_str() == key_id)?;
                    Some((Arc::clone(route), Arc::clone(target)))
                });
                tokio::spawn(async move {
                    let line = match found {
                        Some((route, target)) => probe::test_key(&route, &target).await,
                        None => Err("no route of this agent uses the key".to_owned()),
                    };
                    let _ = answer.send(line);
                });
            }
        }
    }

    /// Reads the file again. A bad one changes nothing.
    pub(super) async fn reload(&mut self) -> Result<String, String> {
        const KEPT: &str = "the configuration in force stays";
        let Some(path) = &self.config_path else {
            return Err(format!("there is no file to read; {KEPT}"));
        };
        let config =
            Config::load(path).map_err(|error| format!("{KEPT}; the file has errors: {error}"))?;
        if Unchanging::of(&config) != self.fixed {
            return Err(format!(
                "{KEPT}; name, listen, tls (and with it hosts), admin_listen, hsmd, hsmd_uid, hardening, memory, and the first or last store key need a restart to change"
            ));
        }
        if let Some(confined) = &self.confined {
            let missing = confined.lacks(&hardening::plan(&config, path, None));
            if !missing.is_empty() {
                return Err(format!(
                    "{KEPT}; it needs what this process gave up when it started, so a restart must put it in force: {}",
                    missing.join(", ")
                ));
            }
        }
        match self.put_in_force(config).await {
            Ok(()) => Ok("configuration read again and in force".to_owned()),
            Err(error) => Err(format!("{KEPT}; {}", hsmd::chain(&error))),
        }
    }

    /// Makes everything first, then replaces all of it.
    pub(super) async fn put_in_force(&mut self, config: Config) -> Result<(), BuildError> {
        let settings = if self.hsmd.is_some() {
            Some(config.settings()?)
        } else {
            None
        };
        let system = if config.providers.iter().any(
            |provider| matches!(&provider.source, config::Source::Live(live) if live.origin.tls()),
        ) {
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
                Leases::Kept => {}
                Leases::Changed => self.cache.begin_anew(config.lease.ttl),
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
            api,
            source,
            aliases,
            fallback,
        } = provider;
        let source = match source {
            config::Source::Mock => {
                tracing::warn!(provider = %name, "answers by itself: mode = \"mock\"");
                Source::Mock
            }
            config::Source::Live(live) => self.live(&name, live, system)?,
        };
        Ok(Route {
            name,
            api,
            aliases,
            fallback,
            source,
        })
    }

    fn live(
        &self,
        name: &str,
        live: config::Live,
        system: &RootCertStore,
    ) -> Result<Source, BuildError> {
        let config::Live {
            origin,
            ca_file,
            networks,
            targets,
        } = live;
        let tls = match origin.tls() {
            true => Some(
                trust_roots::client_config(system.clone(), ca_file.as_deref()).map_err(
                    |source| BuildError::Roots {
                        provider: name.to_owned(),
                        source,
                    },
                )?,
            ),
            false => None,
        };
        let upstream =
            Upstream::new(origin.clone(), tls, Reach::of(&origin, networks)).map_err(|_| {
                BuildError::ServerName {
                    provider: name.to_owned(),
                }
            })?;
        let mut list = Vec::with_capacity(targets.len());
        for target in targets {
            let wanted = |key_id| Wanted {
                key_id,
                provider: name.to_owned(),
                origin: origin.clone(),
            };
            let (wanted, keys): (Wanted, Arc<dyn KeySource>) = match target.key {
                KeyRef::Store(id) => (wanted(id), Arc::new(self.cache.clone())),
                KeyRef::Fixed(key, _) => {
                    // A development key has no id of its own; its target's name stands for it in metrics.
                    let wanted = wanted(target.id.parse().expect(
                        "names of routes and targets were checked against the rule for key ids in config",
                    ));
                    tracing::warn!(provider = %name, "key from a file or variable: for development only");
                    let fixed = Fixed::new(&wanted, key, &self.arena)?;
                    (wanted, Arc::new(fixed))
                }
            };
            list.push(Target::new(target.id, target.weight, wanted, keys));
        }
        Ok(Source::Live {
            targets: Targets::new(list),
            upstream: Arc::new(upstream),
        })
    }

    pub(super) fn sweep(&self) {
        let routes = Arc::clone(
            &self
                .shared
                .routes
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for route in &routes.list {
            if let Source::Live { upstream, .. } = &route.source {
                upstream.sweep();
            }
        }
        self.cache.sweep();
        self.shared
            .metrics
            .leases
            .set(i64::try_from(self.cache.in_use().len()).unwrap_or(i64::MAX));
    }
}
