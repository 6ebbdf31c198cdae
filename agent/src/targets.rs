//! Several keys for one route: which is tried first, which next, and which not for a while.
//!
//! Weights are kept by smooth weighted round-robin, as in nginx: the share of each target is exact over every full turn, and no target gets a
//! burst. A target that was told to wait (429) or whose key was refused (401, 402, 403) goes to the end of the line until its time is over;
//! when all of them are there, all are tried, since a guess that all fail is worth less than an answer. Pure but for one lock; time is an
//! argument.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::keys::{KeySource, Wanted};

/// Targets of one route. More keys than this are a fleet's matter, and every attempt costs the app time.
pub const TARGETS_MAX: usize = 16;

/// Largest weight: shares as fine as a thousandth.
pub const WEIGHT_MAX: u32 = 1000;

/// How long a target rests after a 429 without Retry-After: limits are counted per minute almost everywhere, and refill evenly.
pub const COOLDOWN: Duration = Duration::from_secs(5);

/// Longest rest whatever Retry-After says, so that a provider's slip does not cost a key for a day.
const COOLDOWN_MAX: Duration = Duration::from_secs(15 * 60);

/// How long a refused key rests before it is tried again: it may have been rotated meanwhile, or been a provider's slip.
const REFUSED_REST: Duration = Duration::from_secs(60);

/// One key of a route.
pub struct Target {
    /// Name in the configuration, for pinning and logs.
    pub id: String,
    /// Share of requests; zero: only when no other can.
    pub weight: u32,
    /// Which key, for which origin.
    pub wanted: Wanted,
    /// Where leases come from.
    pub keys: Arc<dyn KeySource>,
    rest: Mutex<Rest>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    /// Told to wait until then.
    cooling: Option<Instant>,
    /// Refused, and not tried before then.
    refused: Option<Instant>,
}

impl Target {
    /// A target that nothing is known of.
    pub fn new(id: String, weight: u32, wanted: Wanted, keys: Arc<dyn KeySource>) -> Self {
        Self {
            id,
            weight,
            wanted,
            keys,
            rest: Mutex::default(),
        }
    }

    /// The provider limits this key: let it rest.
    pub fn cool(&self, now: Instant, retry_after: Option<Duration>) {
        let rest = retry_after.unwrap_or(COOLDOWN).min(COOLDOWN_MAX);
        self.lock().cooling = now.checked_add(rest);
    }

    /// The provider refuses the key.
    pub fn refuse(&self, now: Instant) {
        self.lock().refused = now.checked_add(REFUSED_REST);
    }

    /// It works: whatever was known against it is over.
    pub fn succeed(&self) {
        *self.lock() = Rest::default();
    }

    fn rests(&self, now: Instant) -> bool {
        let Rest { cooling, refused } = *self.lock();
        cooling.is_some_and(|until| now < until) || refused.is_some_and(|until| now < until)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("id", &self.id)
            .field("key", &self.wanted.key_id)
            .finish_non_exhaustive()
    }
}

/// The keys of one route.
#[derive(Debug)]
pub struct Targets {
    list: Vec<Arc<Target>>,
    /// The round-robin's balance of each target.
    balance: Mutex<Vec<i64>>,
}

impl Targets {
    /// The targets of a route, in the order of the configuration. Invariant: at least one; the configuration was checked for it.
    pub fn new(list: Vec<Target>) -> Self {
        assert!(!list.is_empty(), "a route has at least one target");
        Self {
            balance: Mutex::new(vec![0; list.len()]),
            list: list.into_iter().map(Arc::new).collect(),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.list.iter()
    }

    /// The only target of the route, when there is but one.
    pub fn single(&self) -> Option<&Arc<Target>> {
        match self.list.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// The target of this name.
    pub fn find(&self, id: &str) -> Option<&Arc<Target>> {
        self.list.iter().find(|target| target.id == id)
    }

    /// In which order the targets are to be tried now. Takes one turn of the round-robin.
    pub fn order(&self, now: Instant) -> Vec<Arc<Target>> {
        if let Some(one) = self.single() {
            return vec![Arc::clone(one)];
        }
        let (mut ready, mut resting): (Vec<usize>, Vec<usize>) =
            (0..self.list.len()).partition(|at| !self.list[*at].rests(now));
        if let Some(first) = self.turn(&ready) {
            ready.sort_by_key(|at| (*at != first, u32::MAX - self.list[*at].weight));
        }
        resting.sort_by_key(|at| u32::MAX - self.list[*at].weight);
        let order = ready.iter().chain(&resting);
        order.map(|at| Arc::clone(&self.list[*at])).collect()
    }

    /// Whose turn it is among `ready`.
    fn turn(&self, ready: &[usize]) -> Option<usize> {
        let weight = |at: usize| i64::from(self.list[at].weight);
        let total: i64 = ready.iter().map(|at| weight(*at)).sum();
        if total == 0 {
            return ready.first().copied();
        }
        let mut balance = self.balance.lock().unwrap_or_else(PoisonError::into_inner);
        for at in ready {
            balance[*at] += weight(*at);
        }
        // Of equals the first in the configuration.
        let chosen = ready
            .iter()
            .copied()
            .rev()
            .max_by_key(|at| (balance[*at], weight(*at) > 0))?;
        balance[chosen] -= total;
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::keys::Leasing;
    use crate::respond::{Code, Refusal};

    struct Nothing;

    impl KeySource for Nothing {
        fn lease<'a>(&'a self, _: &'a Wanted) -> Leasing<'a> {
            let no = Refusal::new(Code::HsmUnavailable, "a test without leases");
            Box::pin(std::future::ready(Err(no)))
        }
    }

    fn targets(weights: &[u32]) -> Targets {
        let one = |(n, weight): (usize, &u32)| {
            let wanted = Wanted {
                key_id: format!("key-{n}").parse().unwrap(),
                provider: "openai".to_owned(),
                origin: "https://api.openai.com".parse().unwrap(),
            };
            Target::new(n.to_string(), *weight, wanted, Arc::new(Nothing))
        };
        Targets::new(weights.iter().enumerate().map(one).collect())
    }

    fn first(targets: &Targets, now: Instant) -> String {
        targets.order(now)[0].id.clone()
    }

    #[test]
    fn every_full_turn_keeps_the_weights_exactly_and_without_bursts() {
        let targets = targets(&[5, 1, 1]);
        let now = Instant::now();
        let turn: Vec<String> = (0..7).map(|_| first(&targets, now)).collect();
        assert_eq!(turn.concat(), "0010200");
    }

    #[test]
    fn a_target_of_weight_zero_is_the_last_resort() {
        let targets = targets(&[0, 3]);
        let now = Instant::now();
        for _ in 0..5 {
            let order = targets.order(now);
            assert_eq!((order[0].id.as_str(), order[1].id.as_str()), ("1", "0"));
        }
        targets.find("1").unwrap().cool(now, None);
        assert_eq!(first(&targets, now), "0");
    }

    #[test]
    fn a_limited_target_rests_for_its_time_and_no_longer() {
        let targets = targets(&[9, 1]);
        let now = Instant::now();
        let hot = targets.find("0").unwrap();
        hot.cool(now, Some(Duration::from_secs(7)));
        assert_eq!(first(&targets, now + Duration::from_secs(6)), "1");
        assert_eq!(first(&targets, now + Duration::from_secs(7)), "0");
        hot.cool(now, Some(Duration::MAX));
        assert_eq!(first(&targets, now + COOLDOWN_MAX), "0");
        hot.cool(now, None);
        hot.succeed();
        assert_eq!(first(&targets, now), "0");
    }

    #[test]
    fn a_refused_key_rests_for_its_time() {
        let targets = targets(&[9, 1]);
        let now = Instant::now();
        let bad = targets.find("0").unwrap();
        bad.refuse(now);
        assert_eq!(first(&targets, now), "1");
        assert_eq!(first(&targets, now + REFUSED_REST), "0");
    }

    #[test]
    fn when_all_rest_all_are_tried() {
        let targets = targets(&[1, 2]);
        let now = Instant::now();
        targets.iter().for_each(|target| target.cool(now, None));
        let order = targets.order(now);
        assert_eq!(order.len(), 2);
        assert_eq!(order[0].id, "1");
    }
}
