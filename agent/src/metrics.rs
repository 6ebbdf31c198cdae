//! What the agent counts. Labels come from the configuration or are small enums; nothing from the wire is ever a label, so neither a model's
//! name nor a path is one.

use std::time::Duration;

use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use providers::Usage as Tokens;

use crate::keys::hsmd::Gauges;
use crate::settle::Record;

/// How a request ended, as counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The app went away before the response was complete.
    Canceled,
    /// The provider refused our key.
    CredentialsRejected,
    /// The provider could not be reached, was silent, or broke off.
    Failed,
    /// The response was relayed, whatever its status.
    Ok,
    /// Refused here, before anything was sent.
    Refused,
    /// No lease could be had.
    Unleased,
}

impl Outcome {
    /// Label value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Canceled => "canceled",
            Self::CredentialsRejected => "credentials_rejected",
            Self::Failed => "failed",
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Unleased => "unleased",
        }
    }
}

/// A limit that was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The size of a body that must be read whole.
    Body,
    /// The time that a large body may take.
    BodyPace,
    /// The time that a body may pause.
    BodyPause,
    /// As many connections at one listener as there may be.
    Connections,
    /// The size or the number of fields of a head.
    Head,
    /// The time that a head may take.
    HeadTime,
    /// As many large bodies in memory as there may be.
    LargeBodies,
    /// As many HTTP/2 streams as there may be.
    Streams,
    /// As many WebSockets as there may be.
    Sockets,
    /// A WebSocket message larger than there may be.
    SocketMessage,
}

impl Limit {
    /// Label value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::BodyPace => "body_pace",
            Self::BodyPause => "body_pause",
            Self::Connections => "connections",
            Self::Head => "head",
            Self::HeadTime => "head_time",
            Self::LargeBodies => "large_bodies",
            Self::Streams => "streams",
            Self::Sockets => "sockets",
            Self::SocketMessage => "socket_message",
        }
    }
}

/// How a TLS handshake with an app ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Done.
    Ok,
    /// Broken off by either side.
    Failed,
    /// Not done in time.
    TimedOut,
}

impl Handshake {
    /// Label value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}

/// All metrics of the agent.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    rejected_heads: IntCounterVec,
    tokens: IntCounterVec,
    cost: CounterVec,
    estimated: IntCounterVec,
    echo_hits: IntCounterVec,
    failovers: IntCounterVec,
    limits: IntCounterVec,
    operations: HistogramVec,
    token_usage: HistogramVec,
    handshakes: IntCounterVec,
    /// Time that a request spends in the agent before its head is on its way.
    pub overhead: Histogram,
    /// Connections from apps that are open now.
    pub connections: IntGauge,
    /// WebSockets that are open now.
    pub sockets: IntGauge,
    /// Leases held now.
    pub leases: IntGauge,
    /// 1 while the daemon's Watch stream is open.
    pub hsmd_connected: IntGauge,
    /// Custodians as the agent sees them over all daemons.
    pub custodians: Gauges,
    memory_tier: IntGaugeVec,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "tacit_agent_requests_total",
                "Requests by route, key and how they ended. unleased: look at hsmd; credentials_rejected: rotate the key; failed: the provider or the network",
            ),
            &["provider", "key", "outcome"],
        )?;
        let rejected_heads = IntCounterVec::new(
            Opts::new(
                "tacit_agent_rejected_heads_total",
                "Requests refused before they had a route, by code; not zero: an app speaks odd HTTP, or somebody is trying",
            ),
            &["code"],
        )?;
        let limits = IntCounterVec::new(
            Opts::new(
                "tacit_agent_limits_total",
                "How often a limit was hit, by limit; not zero: an app opens more than it closes, or somebody is trying",
            ),
            &["limit"],
        )?;
        let handshakes = IntCounterVec::new(
            Opts::new(
                "tacit_agent_tls_handshakes_total",
                "TLS handshakes with apps by how they ended. failed: the app does not trust the file tls.ca_file, or read it before the agent's last start",
            ),
            &["outcome"],
        )?;
        let overhead = Histogram::with_opts(
            HistogramOpts::new(
                "tacit_agent_overhead_seconds",
                "From the complete request head to its copy with the key being on the way, without connecting. The slow ones met the HSM: raise lease.ttl",
            )
            // Warm requests take tens of microseconds, a lease a few milliseconds: few buckets tell the two apart.
            .buckets(vec![0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 1.0]),
        )?;
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let key = ["provider", "key"];
        let tokens = counter(
            "tacit_agent_tokens_total",
            "Tokens by kind, as the provider counted them. input, cache_read and cache_write add up to what went in; reasoning is part of output",
            &["provider", "key", "kind"],
        )?;
        let estimated = counter(
            "tacit_agent_estimated_requests_total",
            "Requests whose tokens are an estimate, because the answer broke off or the app went away before the provider had counted",
            &key,
        )?;
        let echo_hits = counter(
            "tacit_agent_echo_hits_total",
            "Times that a provider's answer repeated our key and was masked. Not zero: rotate the key, and look at who answers",
            &key,
        )?;
        let failovers = counter(
            "tacit_agent_failovers_total",
            "Attempts that were followed by another one, by why. credentials: rotate a key; rate, quota: its limits are too small for the load; server: the provider failed; terms: the key is not for what was asked; unleased: look at hsmd; unreachable: the network",
            &["provider", "reason"],
        )?;
        let cost = CounterVec::new(
            Opts::new(
                "tacit_agent_cost_usd_total",
                "Cost in USD where the provider itself reports it (OpenRouter, Perplexity, xAI)",
            ),
            &key,
        )?;
        registry.register(Box::new(cost.clone()))?;
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: Vec<f64>| {
            let histogram =
                HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        // Both with the buckets that the GenAI semantic conventions of OpenTelemetry advise, thinned out.
        let operations = histogram(
            "gen_ai_client_operation_duration_seconds",
            "From the request's head to the end of its answer, by operation",
            &["gen_ai_provider_name", "gen_ai_operation_name"],
            vec![0.08, 0.32, 1.28, 5.12, 20.48, 81.92],
        )?;
        let token_usage = histogram(
            "gen_ai_client_token_usage",
            "Tokens of a request, by operation and type",
            &[
                "gen_ai_provider_name",
                "gen_ai_operation_name",
                "gen_ai_token_type",
            ],
            vec![16.0, 256.0, 4096.0, 65536.0, 1_048_576.0],
        )?;
        let memory_tier = IntGaugeVec::new(
            Opts::new(
                "tacit_agent_key_memory_tier",
                "1 at the kind of memory that keys lie in. memfd_secret: nobody else reads it; locked: root can. A fleet where it differs has kernels that differ",
            ),
            &["tier"],
        )?;
        registry.register(Box::new(memory_tier.clone()))?;
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let metrics = Self {
            connections: gauge(
                "tacit_agent_connections",
                "Connections from apps that are open now; the limit is 1024 at each listener",
            )?,
            sockets: gauge(
                "tacit_agent_websockets",
                "WebSockets that are open now; the limit is 256",
            )?,
            leases: gauge(
                "tacit_agent_leases",
                "Leases held now; zero with lease.ttl = \"0s\"",
            )?,
            hsmd_connected: gauge(
                "tacit_agent_hsmd_connected",
                "Daemons that tell us of revocations as they happen; 0: they wait for the end of the lease",
            )?,
            custodians: Gauges {
                available: gauge(
                    "tacit_agent_custodians_available",
                    "Custodians that answer, over all daemons that this agent reaches; each counts once",
                )?,
                margin: IntGaugeVec::new(
                    Opts::new(
                        "tacit_agent_quorum_margin",
                        "Custodians that answer over all daemons, less the threshold of the trust file; below 0 no lease can be had, at 0 the next failure is an outage",
                    ),
                    &["threshold"],
                )?,
            },
            requests,
            rejected_heads,
            tokens,
            cost,
            estimated,
            echo_hits,
            failovers,
            limits,
            operations,
            token_usage,
            handshakes,
            overhead,
            memory_tier,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.rejected_heads.clone()))?;
        registry.register(Box::new(metrics.limits.clone()))?;
        registry.register(Box::new(metrics.handshakes.clone()))?;
        registry.register(Box::new(metrics.overhead.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.sockets.clone()))?;
        registry.register(Box::new(metrics.leases.clone()))?;
        registry.register(Box::new(metrics.hsmd_connected.clone()))?;
        registry.register(Box::new(metrics.custodians.available.clone()))?;
        registry.register(Box::new(metrics.custodians.margin.clone()))?;
        Ok(metrics)
    }

    /// Says in which kind of memory keys lie.
    pub fn memory_tier(&self, tier: secret::Tier) {
        self.memory_tier.with_label_values(&[tier.name()]).set(1);
    }

    /// Counts a request of a route.
    pub fn request(&self, provider: &str, key: &str, outcome: Outcome) {
        self.requests
            .with_label_values(&[provider, key, outcome.name()])
            .inc();
    }

    /// Counts a limit that was hit.
    pub fn limit(&self, limit: Limit) {
        self.limits.with_label_values(&[limit.name()]).inc();
    }

    /// Counts a TLS handshake with an app.
    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes.with_label_values(&[outcome.name()]).inc();
    }

    /// Counts a request that got no route.
    pub fn rejected_head(&self, code: &str) {
        self.rejected_heads.with_label_values(&[code]).inc();
    }

    /// Counts what an attempt with a lease used.
    pub fn used(&self, provider: &str, key: &str, record: &Record) {
        let Tokens {
            input,
            output,
            cache_read,
            cache_write,
            reasoning,
            cost_picousd,
            ..
        } = &record.tokens;
        for (kind, count) in [
            ("input", input),
            ("output", output),
            ("cache_read", cache_read),
            ("cache_write", cache_write),
            ("reasoning", reasoning),
        ] {
            // Zero is not missing: a kind that the provider speaks of has its series.
            if let Some(count) = count {
                self.tokens
                    .with_label_values(&[provider, key, kind])
                    .inc_by(*count);
            }
        }
        if let Some(cost) = cost_picousd {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a float is what the exposition format has"
            )]
            let usd = *cost as f64 / 1e12;
            self.cost.with_label_values(&[provider, key]).inc_by(usd);
        }
        if record.estimated {
            self.estimated.with_label_values(&[provider, key]).inc();
        }
        if record.echo_hits > 0 {
            self.echo_hits
                .with_label_values(&[provider, key])
                .inc_by(u64::from(record.echo_hits));
        }
    }

    /// Observes an operation under its GenAI names.
    pub fn operation(&self, provider: &str, operation: &str, took: Duration, tokens: &Tokens) {
        self.operations
            .with_label_values(&[provider, operation])
            .observe(took.as_secs_f64());
        let input = tokens
            .input
            .map(|input| input + tokens.cache_read.unwrap_or(0) + tokens.cache_write.unwrap_or(0));
        for (kind, count) in [("input", input), ("output", tokens.output)] {
            if let Some(count) = count {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a float is what a histogram takes"
                )]
                self.token_usage
                    .with_label_values(&[provider, operation, kind])
                    .observe(count as f64);
            }
        }
    }

    /// Counts an attempt that is followed by another.
    pub fn failover(&self, provider: &str, reason: &str) {
        self.failovers.with_label_values(&[provider, reason]).inc();
    }
}
