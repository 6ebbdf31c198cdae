//! What Prometheus sees. Labels come from the configuration and from small enums, never from the wire.

use std::sync::Arc;

use hsm::Snapshot;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::custodians::Custodians;
use crate::model::Key;

/// Counters and gauges that the daemon's code touches.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// By key and outcome; keys that do not exist count under the key label `unknown`.
    pub leases: IntCounterVec,
    /// Unix seconds of each key's last reported use.
    pub last_used: GaugeVec,
    /// Seconds since the version in use was sealed.
    pub age: GaugeVec,
    /// Store revision.
    pub revision: IntGauge,
    /// available − t.
    pub margin: IntGauge,
    /// 1 for a daemon that drives some of the custodians only.
    pub part: IntGauge,
    /// From a revoke, or another change that ends leases, to each agent's word that it has acted on it.
    pub acknowledged: Histogram,
    /// Agents with an open stream.
    pub agents: IntGauge,
    /// Connections over the quota.
    pub connections_refused: IntCounter,
    /// Calls refused, by code.
    pub refused: IntCounterVec,
    /// Callers that wanted a session, by outcome: `ok`, or the name of the refusal.
    pub attestations: IntCounterVec,
    /// Times that a provider refused one of our credentials.
    pub credentials_rejected: IntCounterVec,
    /// Times that an answer repeated one of our credentials.
    pub echo_blocked: IntCounterVec,
    /// Tokens that agents reported, by key and kind.
    pub tokens: IntCounterVec,
    /// 1 when the store is believed and served.
    pub store_believed: IntGauge,
    /// Custodians that are up and do not remember the present revision.
    pub tokens_behind: IntGauge,
}

impl Metrics {
    /// Registers everything under `tacit_hsmd_`.
    ///
    /// # Errors
    /// When a name is registered twice.
    pub fn register(
        registry: &Registry,
        custodians: Arc<Custodians>,
    ) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| IntCounter::new(format!("tacit_hsmd_{name}"), help);
        let gauge = |name: &str, help: &str| IntGauge::new(format!("tacit_hsmd_{name}"), help);
        let opts = |name: &str, help: &str| Opts::new(format!("tacit_hsmd_{name}"), help);
        let metrics = Self {
            leases: IntCounterVec::new(
                opts(
                    "leases_total",
                    "Leases by key and outcome; a rise of refusals is a policy or custody problem",
                ),
                &["key", "outcome"],
            )?,
            last_used: GaugeVec::new(
                opts(
                    "key_last_used_timestamp_seconds",
                    "Unix time of the key's last reported use; old means it can go",
                ),
                &["key"],
            )?,
            age: GaugeVec::new(
                opts(
                    "key_age_seconds",
                    "Seconds since the version in use was sealed; rotate when it is old",
                ),
                &["key"],
            )?,
            revision: gauge("store_revision", "Revision of the store; it only rises")?,
            margin: gauge(
                "quorum_margin",
                "Custodians that can serve, less the threshold; below 0 no lease is served, at 0 the next failure is an outage. Of a part, less its own quorum: below 0 nothing can be changed there",
            )?,
            part: gauge(
                "part",
                "1 where other daemons drive the rest of the custodians; agents say then how many may still fail",
            )?,
            // A push over a local socket takes a millisecond; what is slower waits for an agent that is busy, away or gone.
            acknowledged: Histogram::with_opts(
                HistogramOpts::new(
                    "tacit_hsmd_change_acknowledged_seconds",
                    "From a revoke, or another change that ends leases, to each agent's word that it has acted on it; slow: an agent is stuck or away",
                )
                .buckets(vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0]),
            )?,
            agents: gauge("agents_connected", "Agents with an open stream")?,
            connections_refused: counter(
                "connections_refused_total",
                "Connections closed because one user held too many",
            )?,
            refused: IntCounterVec::new(
                opts("refused_total", "Calls refused, by code"),
                &["code"],
            )?,
            attestations: IntCounterVec::new(
                opts(
                    "attestations_total",
                    "Callers that wanted a session, by outcome; each refusal's name is explained in docs/attestation.md",
                ),
                &["outcome"],
            )?,
            credentials_rejected: IntCounterVec::new(
                opts(
                    "credentials_rejected_total",
                    "Times that a provider refused the key: rotate it",
                ),
                &["key"],
            )?,
            echo_blocked: IntCounterVec::new(
                opts(
                    "echo_blocked_total",
                    "Times that a provider's answer repeated the key and was masked or cut: find out why, and rotate it",
                ),
                &["key"],
            )?,
            tokens: IntCounterVec::new(
                opts(
                    "tokens_total",
                    "Tokens that agents reported, as providers counted them; output includes reasoning",
                ),
                &["key", "kind"],
            )?,
            tokens_behind: gauge(
                "tokens_behind",
                "Custodians that are up and do not remember the present revision; until it is 0 again a rollback could go unnoticed",
            )?,
            store_believed: gauge(
                "store_believed",
                "1 when custodians vouch for the whole store; 0 means that nothing is served",
            )?,
        };
        for one in [
            Box::new(metrics.leases.clone()) as Box<dyn Collector>,
            Box::new(metrics.last_used.clone()),
            Box::new(metrics.age.clone()),
            Box::new(metrics.revision.clone()),
            Box::new(metrics.margin.clone()),
            Box::new(metrics.part.clone()),
            Box::new(metrics.acknowledged.clone()),
            Box::new(metrics.agents.clone()),
            Box::new(metrics.connections_refused.clone()),
            Box::new(metrics.refused.clone()),
            Box::new(metrics.attestations.clone()),
            Box::new(metrics.credentials_rejected.clone()),
            Box::new(metrics.echo_blocked.clone()),
            Box::new(metrics.tokens.clone()),
            Box::new(metrics.store_believed.clone()),
            Box::new(metrics.tokens_behind.clone()),
            Box::new(TokenCollector::new(custodians)?),
        ] {
            registry.register(one)?;
        }
        Ok(metrics)
    }

    /// Age and last use of one key.
    pub fn key(&self, id: &str, key: &Key, now: i64) {
        if let Some((_, version)) = key.active() {
            let sealed = i64::try_from(version.header.created_at).unwrap_or(now);
            #[expect(
                clippy::cast_precision_loss,
                reason = "seconds fit a double for 10^8 years"
            )]
            self.age
                .with_label_values(&[id])
                .set((now - sealed).max(0) as f64);
        }
    }
}

/// Reads the token clients' counters when Prometheus asks.
struct TokenCollector {
    custodians: Arc<Custodians>,
    up: IntGaugeVec,
    restarts: IntGaugeVec,
    in_flight: IntGaugeVec,
    calls: IntGaugeVec,
    seconds: GaugeVec,
    errors: IntGaugeVec,
}

impl TokenCollector {
    fn new(custodians: Arc<Custodians>) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("tacit_hsmd_{name}"), help);
        Ok(Self {
            custodians,
            up: IntGaugeVec::new(
                opts(
                    "custodian_up",
                    "1 when the custodian serves with its pinned descriptor",
                ),
                &["custodian"],
            )?,
            restarts: IntGaugeVec::new(
                opts(
                    "custodian_restarts",
                    "How often the token process was replaced since the daemon started",
                ),
                &["custodian"],
            )?,
            in_flight: IntGaugeVec::new(
                opts("custodian_calls_in_flight", "Calls under way"),
                &["custodian"],
            )?,
            calls: IntGaugeVec::new(
                opts("custodian_calls", "Calls since the daemon started, by verb"),
                &["custodian", "verb"],
            )?,
            seconds: GaugeVec::new(
                opts(
                    "custodian_call_seconds",
                    "Time spent in calls since the daemon started, by verb",
                ),
                &["custodian", "verb"],
            )?,
            errors: IntGaugeVec::new(
                opts(
                    "custodian_errors",
                    "Failed calls since the daemon started, by class",
                ),
                &["custodian", "class"],
            )?,
        })
    }

    fn vectors(&self) -> [&dyn Collector; 6] {
        [
            &self.up,
            &self.restarts,
            &self.in_flight,
            &self.calls,
            &self.seconds,
            &self.errors,
        ]
    }

    fn read(&self, snapshot: &Snapshot, usable: bool) {
        let id = snapshot.custodian.as_str();
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.up.with_label_values(&[id]).set(usable.into());
        self.restarts
            .with_label_values(&[id])
            .set(count(snapshot.restarts));
        self.in_flight
            .with_label_values(&[id])
            .set(count(snapshot.in_flight));
        for verb in &snapshot.verbs {
            self.calls
                .with_label_values(&[id, verb.verb])
                .set(count(verb.calls));
            self.seconds
                .with_label_values(&[id, verb.verb])
                .set(verb.total.as_secs_f64());
        }
        for (class, errors) in &snapshot.errors {
            self.errors
                .with_label_values(&[id, class.name()])
                .set(count(*errors));
        }
    }
}

impl Collector for TokenCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.vectors()
            .into_iter()
            .flat_map(Collector::desc)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for one in self.custodians.iter() {
            self.read(&one.client.snapshot(), one.usable());
        }
        self.vectors()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}
