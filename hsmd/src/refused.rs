//! Refusals on their way out: counted, audited, and turned into an answer by one door.
//!
//! Every refusal is audited before it is answered. Repeated ones of the same kind by the same user share a line a minute
//! with their number, so that a hostile or broken client cannot fill the disk that everybody's answers wait for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::audit::{Category, Event};
use crate::clock;
use crate::daemon::Daemon;
use crate::refusal::Refusal;

/// Equal refusals within this time share a line.
const WINDOW: Duration = Duration::from_secs(60);
/// Kinds of refusals remembered. Past this the whole memory is written out and forgotten: bounded, and nothing is lost.
const KINDS_MAX: usize = 4096;

/// What was refused: who asked for what, about which key, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    uid: u32,
    action: &'static str,
    outcome: &'static str,
    key: Option<String>,
}

#[derive(Debug)]
struct Seen {
    since: Duration,
    unwritten: u64,
    actor: String,
    category: Category,
}

/// Refusals of the last minute.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<Kind, Seen>>);

/// Who asked, for the audit line.
#[derive(Debug, Clone)]
pub struct Asker {
    /// User id.
    pub uid: u32,
    /// As audit names it.
    pub actor: String,
}

impl Refusals {
    /// Events to write now: this refusal, if it is the first of its kind in the window, and what the window held back.
    fn note(&self, kind: Kind, actor: &str, category: Category, detail: &str) -> Vec<Event> {
        let now = clock::since_boot();
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = Vec::new();
        if kinds.len() >= KINDS_MAX {
            events.extend(
                kinds
                    .drain()
                    .filter_map(|(kind, seen)| held_back(&kind, &seen)),
            );
        }
        if let Some(seen) = kinds.get_mut(&kind) {
            if seen.since + WINDOW > now {
                seen.unwritten += 1;
                return events;
            }
            events.extend(held_back(&kind, seen));
        }
        events.push(event(&kind, category, actor).detail(detail));
        let seen = Seen {
            since: now,
            unwritten: 0,
            actor: actor.to_owned(),
            category,
        };
        kinds.insert(kind, seen);
        events
    }

    /// What windows that are over held back.
    fn overdue(&self) -> Vec<Event> {
        let now = clock::since_boot();
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = Vec::new();
        kinds.retain(|kind, seen| {
            let over = seen.since + WINDOW <= now;
            if over {
                events.extend(held_back(kind, seen));
            }
            !over
        });
        events
    }
}

fn event(kind: &Kind, category: Category, actor: &str) -> Event {
    let mut event = Event::new(category, kind.action, kind.outcome, actor);
    event.key.clone_from(&kind.key);
    event
}

fn held_back(kind: &Kind, seen: &Seen) -> Option<Event> {
    let text = format!("and {} more of these within a minute", seen.unwritten);
    (seen.unwritten > 0).then(|| event(kind, seen.category, &seen.actor).detail(text))
}

impl Daemon {
    /// Counts and audits a refusal. When it cannot be audited, that is the answer instead.
    pub async fn refused(
        &self,
        category: Category,
        action: &'static str,
        asker: &Asker,
        key: Option<&str>,
        refusal: Refusal,
    ) -> Refusal {
        self.metrics
            .refused
            .with_label_values(&[refusal.code.name()])
            .inc();
        // What is no key id came from the wire and does not go into the log.
        let key = key.map(|key| {
            if key.parse::<custody::KeyId>().is_ok() {
                key
            } else {
                "(not a key id)"
            }
        });
        let kind = Kind {
            uid: asker.uid,
            action,
            outcome: refusal.reason.unwrap_or(refusal.code.name()),
            key: key.map(str::to_owned),
        };
        let detail: String = refusal
            .text
            .chars()
            .filter(|letter| !letter.is_control())
            .take(500)
            .collect();
        for event in self.refusals.note(kind, &asker.actor, category, &detail) {
            if let Err(unaudited) = self.audit.record(event).await {
                return unaudited;
            }
        }
        refusal
    }

    /// Writes what finished windows held back.
    pub async fn flush_refusals(&self) {
        for event in self.refusals.overdue() {
            if let Err(error) = self.audit.record(event).await {
                tracing::error!(%error, "refusals could not be audited");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(uid: u32) -> Kind {
        Kind {
            uid,
            action: "lease.refuse",
            outcome: "permission_denied",
            key: None,
        }
    }

    #[test]
    fn equal_refusals_share_a_line_and_others_do_not() {
        let refusals = Refusals::default();
        let note = |kind| refusals.note(kind, "uid:1", Category::Lease, "x").len();
        assert_eq!(note(kind(1)), 1);
        assert_eq!(note(kind(1)), 0);
        assert_eq!(note(kind(2)), 1);
        let other = Kind {
            key: Some("k".into()),
            ..kind(1)
        };
        assert_eq!(note(other), 1);
        let text = {
            let kinds = refusals.0.lock().unwrap_or_else(PoisonError::into_inner);
            held_back(&kind(1), &kinds[&kind(1)]).map(|event| event.detail)
        };
        assert_eq!(text.as_deref(), Some("and 1 more of these within a minute"));
    }
}
