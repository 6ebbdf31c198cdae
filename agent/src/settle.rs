//! The end of an attempt: what was used is written down once, for metrics and for the daemon's report, from one record, so that the two
//! cannot disagree.

use std::sync::Arc;
use std::time::Duration;

use providers::{Metered, Permission};

use crate::keys::Lease;
use crate::metrics::{Metrics, Outcome};
use crate::sieve::Settled;
use crate::usage::{Origin, Tokens, Usage};

/// Bodies beyond this are pictures or sound for the most part, whose bytes say nothing of tokens.
const TEXT_MAX: usize = 256 * 1024;

/// What one attempt used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Tokens and cost as the provider counted them, or as they were estimated.
    pub tokens: providers::Usage,
    /// The provider did not say: the count is from what was delivered.
    pub estimated: bool,
    /// The answer failed after it had begun with 200.
    pub failed: bool,
    /// How often the key stood in the answer.
    pub echo_hits: u32,
}

impl From<Settled> for Record {
    fn from(settled: Settled) -> Self {
        let Metered {
            usage,
            estimated,
            failed,
            ..
        } = settled.metered.unwrap_or_default();
        Self {
            tokens: usage,
            estimated,
            failed,
            echo_hits: settled.echo_hits,
        }
    }
}

/// Collects what is known of an attempt while it runs.
pub struct Settling<'a> {
    metrics: &'a Metrics,
    usage: &'a Usage,
    provider: &'a str,
    lease: Option<Arc<Lease>>,
    operation: &'static str,
    record: Record,
}

impl<'a> Settling<'a> {
    /// For an attempt on this route.
    pub fn new(metrics: &'a Metrics, usage: &'a Usage, provider: &'a str) -> Self {
        Self {
            metrics,
            usage,
            provider,
            lease: None,
            operation: "other",
            record: Record::default(),
        }
    }

    /// A lease was had, for an endpoint of this kind.
    pub fn leased(&mut self, lease: &Arc<Lease>, permission: Permission) {
        self.lease = Some(Arc::clone(lease));
        self.operation = operation(permission);
    }

    /// The exchange is over. Of an answer that broke off before the provider had counted, the input is estimated too, from the body that
    /// was sent: leaving early must not make a prompt free.
    pub fn used(&mut self, mut record: Record, sent_bytes: usize) {
        if record.estimated && record.tokens.input.is_none() && (1..=TEXT_MAX).contains(&sent_bytes)
        {
            record.tokens.input = Some(providers::estimate_tokens(sent_bytes as u64));
        }
        self.record = record;
    }

    /// Writes it down.
    pub fn settle(self, outcome: Outcome, took: Duration) {
        let Some(lease) = self.lease else {
            return;
        };
        let record = &self.record;
        let outcome = match outcome {
            Outcome::Ok if record.failed => Outcome::Failed,
            outcome => outcome,
        };
        let tokens = Tokens {
            input: record.tokens.input.unwrap_or(0),
            output: record.tokens.output.unwrap_or(0),
            cache_read: record.tokens.cache_read.unwrap_or(0),
            cache_write: record.tokens.cache_write.unwrap_or(0),
            reasoning: record.tokens.reasoning.unwrap_or(0),
            cost_picousd: record.tokens.cost_picousd.unwrap_or(0),
        };
        let origin = match record.estimated {
            true => Origin::Estimate,
            false => Origin::Provider,
        };
        self.usage.count(&lease, outcome);
        if tokens != Tokens::default() || record.estimated {
            self.usage.meter(&lease, tokens, origin);
        }
        if record.echo_hits > 0 {
            self.usage.echo_blocked(&lease);
        }
        let key = lease.key_id.as_str();
        self.metrics.used(self.provider, key, record);
        self.metrics
            .operation(self.provider, self.operation, took, &record.tokens);
        if record.echo_hits > 0 {
            tracing::warn!(
                key,
                version = lease.version,
                hits = record.echo_hits,
                "the provider's answer repeated our key; it was masked"
            );
        }
    }
}

/// The operation's name after the GenAI semantic conventions of OpenTelemetry, where they have one.
fn operation(permission: Permission) -> &'static str {
    match permission {
        Permission::Chat | Permission::Responses | Permission::Realtime => "chat",
        Permission::Embeddings => "embeddings",
        Permission::Images | Permission::Audio => "generate_content",
        Permission::Batches
        | Permission::EphemeralKeys
        | Permission::Files
        | Permission::FineTuning
        | Permission::Mcp
        | Permission::Models
        | Permission::Moderation => "other",
    }
}
