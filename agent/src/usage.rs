//! How keys were used, in counts, until the daemon has been told.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::keys::Lease;
use crate::metrics::Outcome;

/// Counts of one key version since the last report. They stay at their largest value rather than begin anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Relayed.
    pub ok: u64,
    /// Refused here.
    pub refused: u64,
    /// Failed at the provider, or canceled by the app.
    pub failed: u64,
    /// The provider refused the key.
    pub credentials_rejected: u64,
    /// Unix time of the last request, in milliseconds.
    pub last_used_ms: u64,
    /// What the requests used.
    pub tokens: Tokens,
    /// Requests whose tokens are an estimate.
    pub estimated: u64,
    /// An answer repeated the key.
    pub echo_blocked: u64,
}

/// Tokens as the provider counted them, or as they were estimated; what was not said is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read by the model, without what came from or went into a cache.
    pub input: u64,
    /// Written by the model, reasoning included.
    pub output: u64,
    /// Read from a cache.
    pub cache_read: u64,
    /// Written to a cache.
    pub cache_write: u64,
    /// The part of the output that is reasoning.
    pub reasoning: u64,
    /// What the provider itself said that it cost, in 1e-12 USD.
    pub cost_picousd: u64,
}

/// Where the tokens of a request are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The provider counted.
    Provider,
    /// The answer ended before the provider's count came.
    Estimate,
}

impl Tokens {
    fn add(&mut self, more: &Self) {
        // Named one by one: a new kind must not be forgotten here.
        let Self {
            input,
            output,
            cache_read,
            cache_write,
            reasoning,
            cost_picousd,
        } = more;
        for (sum, more) in [
            (&mut self.input, input),
            (&mut self.output, output),
            (&mut self.cache_read, cache_read),
            (&mut self.cache_write, cache_write),
            (&mut self.reasoning, reasoning),
            (&mut self.cost_picousd, cost_picousd),
        ] {
            *sum = sum.saturating_add(*more);
        }
    }
}

impl Counts {
    fn add(&mut self, more: &Self) {
        let Self {
            ok,
            refused,
            failed,
            credentials_rejected,
            last_used_ms,
            tokens,
            estimated,
            echo_blocked,
        } = more;
        for (sum, more) in [
            (&mut self.ok, ok),
            (&mut self.refused, refused),
            (&mut self.failed, failed),
            (&mut self.credentials_rejected, credentials_rejected),
            (&mut self.estimated, estimated),
            (&mut self.echo_blocked, echo_blocked),
        ] {
            *sum = sum.saturating_add(*more);
        }
        self.tokens.add(tokens);
        self.last_used_ms = self.last_used_ms.max(*last_used_ms);
    }
}

/// Which key version was used, and by which route.
pub type Used = (String, u32, String);

/// The counts that wait for the next report. Bounded by key versions × routes.
#[derive(Debug, Default)]
pub struct Usage {
    // A handful, so that looking through them is quicker than to make an owned key for a map.
    counts: Mutex<Vec<(Used, Counts)>>,
    /// Woken when something should be reported soon: a provider refused a key, or repeated one.
    pub urgent: tokio::sync::Notify,
}

impl Usage {
    /// Counts one request.
    pub fn count(&self, lease: &Lease, outcome: Outcome) {
        let mut counts = Counts {
            last_used_ms: now_ms(),
            ..Counts::default()
        };
        *match outcome {
            Outcome::Ok => &mut counts.ok,
            Outcome::Refused | Outcome::Unleased => &mut counts.refused,
            Outcome::Canceled | Outcome::Failed => &mut counts.failed,
            Outcome::CredentialsRejected => &mut counts.credentials_rejected,
        } = 1;
        self.add(lease, &counts);
        if outcome == Outcome::CredentialsRejected {
            self.urgent.notify_one();
        }
    }

    /// Adds what one request used.
    pub fn meter(&self, lease: &Lease, tokens: Tokens, origin: Origin) {
        let estimated = match origin {
            Origin::Provider => 0,
            Origin::Estimate => 1,
        };
        let counts = Counts {
            tokens,
            estimated,
            ..Counts::default()
        };
        self.add(lease, &counts);
    }

    /// Counts an answer that repeated the key and was masked or cut.
    pub fn echo_blocked(&self, lease: &Lease) {
        let counts = Counts {
            echo_blocked: 1,
            ..Counts::default()
        };
        self.add(lease, &counts);
        self.urgent.notify_one();
    }

    fn add(&self, lease: &Lease, more: &Counts) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.iter().position(|((key_id, version, provider), _)| {
            key_id == lease.key_id.as_str()
                && *version == lease.version
                && *provider == lease.provider
        });
        let at = known.unwrap_or_else(|| {
            let key_id = lease.key_id.to_string();
            let used = (key_id, lease.version, lease.provider.clone());
            counts.push((used, Counts::default()));
            counts.len() - 1
        });
        counts[at].1.add(more);
    }

    /// Takes everything that waits.
    pub fn take(&self) -> Vec<(Used, Counts)> {
        std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts back what could not be reported.
    pub fn put_back(&self, counts: Vec<(Used, Counts)>) {
        let mut waiting = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (used, more) in counts {
            let Some((_, entry)) = waiting.iter_mut().find(|(other, _)| *other == used) else {
                waiting.push((used, more));
                continue;
            };
            entry.add(&more);
        }
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::keys::{KeySource, Wanted, fake::Fake};

    async fn lease() -> Arc<Lease> {
        let wanted = Wanted {
            key_id: "k".parse().unwrap(),
            provider: "openai".to_owned(),
            origin: "https://api.openai.com".parse().unwrap(),
        };
        let fake = Fake::new(Duration::from_secs(1), Duration::ZERO);
        fake.lease(&wanted).await.unwrap()
    }

    #[tokio::test]
    async fn what_one_key_used_is_one_row_and_nothing_is_lost_when_it_waits_on() {
        let (usage, lease) = (Usage::default(), lease().await);
        let tokens = Tokens {
            input: 1,
            output: 2,
            cache_read: 3,
            cache_write: 4,
            reasoning: 5,
            cost_picousd: 6,
        };
        usage.count(&lease, Outcome::Ok);
        usage.meter(&lease, tokens, Origin::Provider);
        let waiting = usage.take();
        assert!(usage.take().is_empty());
        usage.count(&lease, Outcome::Canceled);
        usage.meter(&lease, tokens, Origin::Estimate);
        usage.put_back(waiting);
        let rows = usage.take();
        let [counts] = rows.iter().map(|(_, counts)| counts).collect::<Vec<_>>()[..] else {
            panic!("{rows:?}");
        };
        assert_eq!((counts.ok, counts.failed, counts.estimated), (1, 1, 1));
        let twice = Tokens {
            input: 2,
            output: 4,
            cache_read: 6,
            cache_write: 8,
            reasoning: 10,
            cost_picousd: 12,
        };
        assert_eq!(counts.tokens, twice);
        assert!(counts.last_used_ms > 0);
    }

    #[tokio::test]
    async fn a_sum_stays_at_its_largest_value() {
        let (usage, lease) = (Usage::default(), lease().await);
        let tokens = Tokens {
            cost_picousd: u64::MAX,
            ..Tokens::default()
        };
        usage.meter(&lease, tokens, Origin::Provider);
        usage.meter(&lease, tokens, Origin::Provider);
        let rows = usage.take();
        assert!(rows.iter().all(|(_, one)| one.tokens == tokens));
    }

    #[tokio::test]
    async fn a_refused_and_a_repeated_key_are_told_at_once_and_a_used_one_is_not() {
        let (usage, lease) = (Usage::default(), lease().await);
        let urgent = || {
            let waiting = std::pin::pin!(usage.urgent.notified());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            std::future::Future::poll(waiting, &mut context).is_ready()
        };
        usage.count(&lease, Outcome::Ok);
        usage.meter(&lease, Tokens::default(), Origin::Provider);
        assert!(!urgent());
        usage.echo_blocked(&lease);
        assert!(urgent());
        usage.count(&lease, Outcome::CredentialsRejected);
        assert!(urgent());
        assert!(usage.take().iter().all(|(_, one)| one.echo_blocked == 1));
    }
}
