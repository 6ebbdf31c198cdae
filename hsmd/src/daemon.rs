//! The composition: what every room of the daemon shares, and the task that tends custodians and store.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use attest::{Facts, ProcessId};
use custody::Trust;
use lifecycle::drain::{Trigger, Watcher};
use lifecycle::readiness::{Condition, Readiness};
use tokio::sync::{Notify, Semaphore, watch};

use crate::agents::Agents;
use crate::attestation::Attestation;
use crate::attestation::witnesses::Witnesses;
use crate::audit::{Audit, Category, Event};
use crate::clock;
use crate::config::Config;
use crate::custodians::{Custodians, Standing};
use crate::ingest;
use crate::ledger::{Ledger, LedgerError, Rollback, View, may_pass};
use crate::metrics::Metrics;
use crate::policy::Caller;
use crate::refusal::{Code, Refusal};
use crate::refused::Refusals;
use crate::rekey;
use crate::store::Vault;

/// How often custodians and keys are looked at even when nothing was heard.
const ROUND: Duration = Duration::from_secs(5);
/// How often each token proves with a real wrap and unwrap that it works. One that fails is replaced by its supervisor.
const SELF_TEST: Duration = Duration::from_secs(30);

/// Where the store stands.
#[derive(Debug, Clone)]
enum Serving {
    /// Waiting for a quorum of custodians.
    Loading(String),
    /// Verified; served.
    Ready(Arc<Ledger>),
    /// Not believed; nothing is served until the daemon is started on a good store.
    Refused(String),
}

/// The daemon's shared state.
pub struct Daemon {
    config: RwLock<Arc<Config>>,
    config_path: PathBuf,
    attestation: RwLock<Arc<Attestation>>,
    /// Witness connections that wait for their sessions.
    pub witnesses: Arc<Witnesses>,
    store: Arc<Mutex<Vault>>,
    serving: RwLock<Serving>,
    /// All custodians.
    pub custodians: Arc<Custodians>,
    /// The audit room.
    pub audit: Audit,
    /// Agents and their sessions.
    pub agents: Arc<Agents>,
    /// Refusals of the last minute.
    pub refusals: Refusals,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// What this process has given up.
    pub hardening: confine::Report,
    /// The view in force; agents' streams follow it.
    pub views: watch::Sender<Arc<View>>,
    /// Unix seconds.
    pub started_at: i64,
    /// Unix milliseconds of last uses, by key; told by agents, not authenticated.
    last_used: Mutex<HashMap<String, u64>>,
    last_used_dirty: Mutex<HashMap<String, u64>>,
    /// Longest life of a lease ever granted, in milliseconds, as the store knows it.
    lease_max_ms: AtomicU64,
    /// One backup at a time: each holds a copy of the store.
    pub backups: Arc<Semaphore>,
    /// One rotation of the store's key at a time.
    pub rekeys: Semaphore,
    /// Rings when something may have changed that the tending task should look at.
    pub bell: Notify,
    /// Ends with the drain: streams watch it.
    pub drain: Trigger,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").finish_non_exhaustive()
    }
}

/// What a daemon is made of.
pub struct Parts {
    /// Its configuration.
    pub config: Config,
    /// Where that came from, for reloads.
    pub config_path: PathBuf,
    /// The opened store.
    pub store: Vault,
    /// The opened audit log.
    pub audit: Audit,
    /// Started custodians.
    pub custodians: Arc<Custodians>,
    /// Registered metrics.
    pub metrics: Metrics,
    /// What the process has given up.
    pub hardening: confine::Report,
    /// The drain.
    pub drain: Trigger,
}

/// Says what `hsmd --check` refuses: the daemon itself starts, since an operator may be in the middle of a change.
pub fn warn_of_shared_uids(config: &Config) {
    for uid in config.shared_uids() {
        tracing::warn!(
            uid,
            "a rule is for a user that apps may run as, too: any of them can have keys; give the agent a user of its own"
        );
    }
}

/// What must hold before the daemon is ready.
#[derive(Debug)]
pub struct Awaited {
    store: Condition,
    quorum: Condition,
}

impl Awaited {
    /// Registers it. Before anybody may ask for readiness: an empty register counts as ready.
    pub fn register(readiness: &Readiness) -> Self {
        let why = "waiting for custodians";
        Self {
            store: readiness.condition("store", why),
            quorum: readiness.condition("quorum", why),
        }
    }
}

impl Daemon {
    /// Puts the parts together; nothing is served before [`Daemon::tend`] has verified the store.
    pub fn new(parts: Parts) -> Arc<Self> {
        let rules = Arc::clone(&parts.config.rules);
        let attestation = Attestation::new(&parts.config.attest, rules, Arc::default());
        Arc::new(Self {
            attestation: RwLock::new(Arc::new(attestation)),
            witnesses: Arc::default(),
            config: RwLock::new(Arc::new(parts.config)),
            config_path: parts.config_path,
            store: Arc::new(Mutex::new(parts.store)),
            serving: RwLock::new(Serving::Loading("waiting for custodians".to_owned())),
            custodians: parts.custodians,
            audit: parts.audit,
            agents: Arc::default(),
            refusals: Refusals::default(),
            lease_max_ms: AtomicU64::new(0),
            metrics: parts.metrics,
            hardening: parts.hardening,
            views: watch::Sender::new(Arc::default()),
            started_at: clock::unix_seconds(),
            last_used: Mutex::default(),
            last_used_dirty: Mutex::default(),
            backups: Arc::new(Semaphore::new(1)),
            rekeys: Semaphore::new(1),
            bell: Notify::new(),
            drain: parts.drain,
        })
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is required of callers, and where that is found out.
    pub fn attestation(&self) -> Arc<Attestation> {
        let attestation = self.attestation.read();
        Arc::clone(&attestation.unwrap_or_else(PoisonError::into_inner))
    }

    /// The caller of whom these facts were proven, by the rules in force now.
    ///
    /// # Errors
    /// [`Code::SessionUnknown`] when more is required now than was proven then, [`Code::PermissionDenied`] when no rule matches.
    pub fn caller(&self, facts: &Arc<Facts>, process: ProcessId) -> Result<Caller, Refusal> {
        let config = self.config();
        let required = &config.rules.requirements.attestors;
        if !required.iter().all(|one| facts.attestors.contains(one)) {
            let text =
                "more must be proven of callers than when the session was opened: open a new one";
            return Err(Refusal::new(Code::SessionUnknown, text));
        }
        let caller = Caller::attested(&config.callers, &config.rules.policy, facts, process);
        caller.ok_or_else(|| {
            let rules = if config.attest.policy.is_some() {
                "no [[caller]] of hsmd.toml and no rule of its policy"
            } else {
                "no [[caller]] of hsmd.toml"
            };
            let text = format!("uid {} is in {rules}", facts.uid);
            Refusal {
                reason: config.attest.policy.is_some().then_some("no_rule"),
                ..Refusal::new(Code::PermissionDenied, text)
            }
        })
    }

    /// The same caller, by the rules in force now.
    ///
    /// # Errors
    /// As [`Daemon::caller`].
    pub fn again(&self, caller: &Caller) -> Result<Caller, Refusal> {
        let process = caller.process.ok_or_else(|| {
            Refusal::new(
                Code::Internal,
                "a caller without a process asks for something",
            )
        })?;
        self.caller(&caller.facts, process)
    }

    /// The trust file as it is on disk now, so that a new pin acts without a restart.
    ///
    /// # Errors
    /// [`Code::Internal`] when it cannot be read.
    pub fn trust(&self) -> Result<Trust, Refusal> {
        let path = self.config().trust_file();
        let refuse = |text: String| {
            Refusal::new(
                Code::Internal,
                format!("the trust file {} {text}", path.display()),
            )
        };
        let bytes =
            std::fs::read(&path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        Trust::parse(&bytes).map_err(|error| refuse(format!("is refused: {error}")))
    }

    /// The verified ledger.
    ///
    /// # Errors
    /// [`Code::HsmUnavailable`] while custodians are awaited, [`Code::StoreRefused`] when the store is not believed.
    pub fn ledger(&self) -> Result<Arc<Ledger>, Refusal> {
        match &*self.serving.read().unwrap_or_else(PoisonError::into_inner) {
            Serving::Ready(ledger) => Ok(Arc::clone(ledger)),
            Serving::Loading(why) => Err(Refusal::new(
                Code::HsmUnavailable,
                format!("the store is not verified yet: {why}"),
            )),
            Serving::Refused(why) => Err(Refusal::new(Code::StoreRefused, why.clone())),
        }
    }

    /// Why nothing is served, if so.
    pub fn trouble(&self) -> Option<String> {
        match &*self.serving.read().unwrap_or_else(PoisonError::into_inner) {
            Serving::Ready(_) => None,
            Serving::Loading(why) | Serving::Refused(why) => Some(why.clone()),
        }
    }

    /// Reads the configuration again: callers, admins and defaults change at once; what needs a restart is said.
    ///
    /// # Errors
    /// The file's own error; the old configuration stays in force.
    pub fn reload(&self) -> anyhow::Result<()> {
        let new = Config::read(&self.config_path)?;
        let old = self.config();
        let fixed = |config: &Config| {
            let custodians: Vec<String> = config
                .custodians
                .iter()
                .map(|one| format!("{one:?}"))
                .collect();
            (
                config.state_dir.clone(),
                config.workload_socket.clone(),
                config.admin_socket.clone(),
                config.admin_listen,
                (config.threshold, config.part),
                custodians,
                config.hardening.clone(),
            )
        };
        if fixed(&old) != fixed(&new) {
            tracing::warn!(
                "state_dir, sockets, listen address, threshold, part, custodians and hardening change with a restart only; the rest is in force now"
            );
        }
        let attestation = Attestation::new(
            &new.attest,
            Arc::clone(&new.rules),
            self.attestation().bearers(),
        );
        warn_of_shared_uids(&new);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        *self
            .attestation
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(attestation);
        // Callers may have lost or won keys.
        self.views.send_modify(|_| {});
        Ok(())
    }

    /// Remembers how long leases may live, before one that may live longer than any before is answered: after a restart
    /// that is how long leases may be out that this daemon does not know of.
    ///
    /// # Errors
    /// [`Code::Internal`] when it could not be noted.
    pub async fn remember_lease(&self, lasts: Duration) -> Result<(), Refusal> {
        let ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        if ms > self.lease_max_ms.load(Ordering::SeqCst) {
            self.ledger()?.note_lease_max(ms).await?;
            self.lease_max_ms.fetch_max(ms, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Gauges that change without an event: the age of keys, what tokens remember.
    fn gauge(&self) {
        let view = self.views.borrow().clone();
        let revision = i64::try_from(view.revision).unwrap_or(i64::MAX);
        self.metrics.revision.set(revision);
        self.metrics.age.reset();
        let now = clock::unix_seconds();
        for (id, key) in &view.keys.0 {
            self.metrics.key(id, key, now);
        }
        let behind = self.ledger().map_or(0, |ledger| ledger.behind().len());
        self.metrics
            .tokens_behind
            .set(i64::try_from(behind).unwrap_or(i64::MAX));
    }

    /// Unix milliseconds of a key's last reported use; 0 when never.
    pub fn last_used(&self, key: &str) -> u64 {
        self.last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .copied()
            .unwrap_or(0)
    }

    /// Notes a key's use as an agent reported it.
    pub fn note_used(&self, key: &str, unix_ms: u64) {
        let at = unix_ms.min(clock::unix_ms());
        let mut all = self
            .last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(key.to_owned()).or_default();
        if at > *known {
            *known = at;
            self.last_used_dirty
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(key.to_owned(), at);
            #[expect(
                clippy::cast_precision_loss,
                reason = "milliseconds fit a double for 10^5 years"
            )]
            self.metrics
                .last_used
                .with_label_values(&[key])
                .set(at as f64 / 1000.0);
        }
    }

    /// Tends custodians and store until the drain begins: pins descriptors, loads the store, notices rollbacks, ingests
    /// shares that were kept for a custodian that was down.
    pub async fn tend(self: Arc<Self>, awaited: Awaited, watcher: Watcher) {
        let mut rings = tokio::task::JoinSet::new();
        for one in self.custodians.iter() {
            let (daemon, mut health) = (Arc::clone(&self), one.client.health());
            rings.spawn(async move {
                while health.changed().await.is_ok() {
                    daemon.bell.notify_one();
                }
            });
        }
        let mut known_up: Vec<String> = Vec::new();
        let mut self_test = tokio::time::interval(SELF_TEST);
        self_test.reset();
        loop {
            self.round(&mut known_up, &awaited).await;
            tokio::select! {
                () = self.bell.notified() => {}
                () = tokio::time::sleep(ROUND) => {}
                _ = self_test.tick() => self.self_test().await,
                _ = watcher.signaled() => break,
            }
        }
        self.flush_last_used().await;
    }

    async fn round(&self, known_up: &mut Vec<String>, awaited: &Awaited) {
        let Awaited { store, quorum } = awaited;
        let up_now = self.examine(known_up).await;
        let came_back = up_now.iter().any(|id| !known_up.contains(id));
        *known_up = up_now;
        self.metrics.margin.set(self.custodians.margin().into());
        self.custodians.note_up();
        if self.custodians.serves() {
            quorum.set_ready();
        } else {
            quorum.set_not_ready(self.custodians.shortage().text);
        }
        self.load_store().await;
        let behind = self
            .ledger()
            .is_ok_and(|ledger| !ledger.behind().is_empty());
        if came_back || behind {
            self.reconcile().await;
        }
        self.gauge();
        self.flush_refusals().await;
        match self.trouble() {
            None => store.set_ready(),
            Some(why) => store.set_not_ready(why),
        }
        self.metrics
            .store_believed
            .set(self.ledger().is_ok().into());
        self.metrics
            .agents
            .set(i64::try_from(self.agents.counts().0).unwrap_or(i64::MAX));
        self.flush_last_used().await;
    }

    /// Compares descriptors of custodians that came up with their pins; returns the ids of all that are up.
    async fn examine(&self, known_up: &[String]) -> Vec<String> {
        let trust = match self.trust() {
            Ok(trust) => trust,
            Err(refusal) => {
                tracing::error!(%refusal, "no custodian is used");
                return Vec::new();
            }
        };
        let mut up = Vec::new();
        for one in self.custodians.all() {
            if !one.client.health().borrow().is_up() {
                continue;
            }
            // A token process that was replaced is looked at again: another token may stand behind it.
            let name = format!("{}#{}", one.id, one.client.snapshot().restarts);
            let fresh = !known_up.contains(&name) || !matches!(one.standing(), Standing::Pinned(_));
            if fresh && let Err(error) = one.examine(&trust).await {
                tracing::warn!(custodian = %one.id, %error, "custodian is not used");
                continue;
            }
            up.push(name);
        }
        up
    }

    async fn self_test(&self) {
        let usable = self.custodians.usable();
        let tests = usable.iter().map(|one| one.client.self_test());
        for (one, result) in usable
            .iter()
            .zip(futures_util::future::join_all(tests).await)
        {
            if let Err(error) = result {
                tracing::warn!(custodian = %one.id, %error, "self-test failed");
            }
        }
    }

    async fn load_store(&self) {
        let (loading, again) = match &*self.serving.read().unwrap_or_else(PoisonError::into_inner) {
            Serving::Loading(_) => (true, false),
            // A write failed and may be durable all the same: what is on disk is verified as if at a start.
            Serving::Ready(ledger) => (ledger.in_doubt(), true),
            Serving::Refused(_) => (false, false),
        };
        if !loading {
            return;
        }
        let (store, custodians) = (Arc::clone(&self.store), Arc::clone(&self.custodians));
        let next =
            match Ledger::load(store, custodians, self.views.clone(), Rollback::Refused).await {
                Ok((ledger, told)) => {
                    for (key, at) in told.last_used {
                        self.note_used(&key, at);
                    }
                    self.lease_max_ms
                        .fetch_max(told.lease_max_ms, Ordering::SeqCst);
                    if !again {
                        self.agents
                            .earlier_leases(Duration::from_millis(told.lease_max_ms));
                    }
                    tracing::info!(
                        revision = ledger.view().revision,
                        keys = ledger.view().keys.0.len(),
                        "store verified"
                    );
                    self.resume_rekey(&ledger).await;
                    Serving::Ready(ledger)
                }
                Err(error) if may_pass(&error) => {
                    let why = error.to_string();
                    if self.trouble().as_ref() != Some(&why) {
                        tracing::warn!(%error, "the store is not verified yet");
                    }
                    Serving::Loading(why)
                }
                Err(error) => self.refuse_store(&error).await,
            };
        *self.serving.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// A rotation of the store's key that a crash interrupted is finished before anything is served.
    async fn resume_rekey(&self, ledger: &Arc<Ledger>) {
        if ledger.keys_held().await < 2 {
            return;
        }
        match rekey::rekey(ledger, &self.audit, "daemon").await {
            Ok(done) => tracing::info!(
                epoch = done.epoch,
                rows = done.rows,
                "the rotation of the store's key is finished"
            ),
            Err(refusal) => {
                tracing::warn!(%refusal, "the rotation of the store's key is not finished; tacit custodian rekey-store goes on with it");
            }
        }
    }

    /// A store that is not believed is said so once, loudly and in the audit log, and nothing is served from it.
    async fn refuse_store(&self, error: &LedgerError) -> Serving {
        tracing::error!(%error, "the store is refused: nothing is served");
        let event = Event::new(Category::System, "store.refuse", "store_refused", "daemon")
            .detail(error.to_string());
        if let Err(refusal) = self.audit.record(event).await {
            tracing::error!(%refusal, "and that could not be audited");
        }
        Serving::Refused(error.to_string())
    }

    /// A custodian came back: does it remember more than we have? Bring it forward, give it the shares kept for it.
    async fn reconcile(&self) {
        let Ok(ledger) = self.ledger() else { return };
        if let Err(error) = ledger.check_rollback().await {
            let refused = self.refuse_store(&error).await;
            *self.serving.write().unwrap_or_else(PoisonError::into_inner) = refused;
            self.views.send_replace(Arc::default());
            return;
        }
        ledger.bring_tokens_forward().await;
        ingest::ingest_pending(self, &ledger).await;
    }

    async fn flush_last_used(&self) {
        let dirty: Vec<(String, u64)> = self
            .last_used_dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain()
            .collect();
        if !dirty.is_empty()
            && let Ok(ledger) = self.ledger()
        {
            ledger.note_last_used(dirty).await;
        }
    }
}
