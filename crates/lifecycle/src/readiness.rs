//! Ready or not, and what is awaited.
//!
//! Two kinds of thing can be awaited. A [`Task`] is done once: "configuration read", "first lease". A [`Condition`]
//! comes and goes: "quorum", "store". `/ready` says 200 only when all tasks are done, all conditions hold and no
//! drain has begun; otherwise it lists name and reason of each that is missing.
//!
//! Names and reasons are shown to whoever reaches the admin port. They come from our own code and configuration
//! (custodian ids), never from a request or a provider's answer; they are cut and stripped of control characters
//! nevertheless, so that a slip cannot forge lines.
//!
//! Liveness does not look here: a token that is unplugged makes a daemon unready, and restarting it would not help.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::drain::Trigger;

/// The longest reason shown. Longer ones would be somebody else's text, and a probe's log line should stay a line.
const REASON_MAX: usize = 200;

/// Text of our own: a literal, or one made from configuration.
pub type Text = Cow<'static, str>;

/// One thing that is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// What.
    pub name: Text,
    /// Why it is not there yet.
    pub reason: Text,
}

#[derive(Debug)]
struct Entry {
    name: Text,
    /// Invariant: `None` exactly when this entry holds nothing up.
    missing: Option<Text>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By order of registration, which is the order of start-up and so the order an operator looks for.
    entries: BTreeMap<u64, Entry>,
}

impl State {
    fn ready(&self) -> bool {
        self.entries.values().all(|e| e.missing.is_none())
    }
}

/// The register of all that is awaited. Clones are the same register.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
    drain: Trigger,
    since: Instant,
}

impl Readiness {
    /// An empty register: ready, until something is registered or `drain` begins.
    #[must_use]
    pub fn new(drain: &Trigger) -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State::default())),
            drain: drain.clone(),
            since: Instant::now(),
        }
    }

    /// Registers something that will be done once. Register all tasks before the first is done, or readiness flickers.
    #[must_use = "dropping the task leaves the daemon unready"]
    pub fn task(&self, name: impl Into<Text>) -> Task {
        let name = name.into();
        let id = self.insert(name.clone(), "not done yet".into());
        Task {
            readiness: self.clone(),
            id,
            name,
            done: false,
        }
    }

    /// Registers something that comes and goes; missing, for `reason`, until it is said to hold.
    #[must_use = "a condition that nobody holds stays as it is"]
    pub fn condition(&self, name: impl Into<Text>, reason: impl Into<Text>) -> Condition {
        let name = name.into();
        let id = self.insert(name.clone(), reason.into());
        Condition {
            readiness: self.clone(),
            id,
            name,
        }
    }

    /// What is awaited, in order of registration; empty when ready.
    #[must_use]
    pub fn awaited(&self) -> Vec<Awaited> {
        let mut list: Vec<Awaited> = Vec::new();
        if let Some(reason) = self.drain.reason() {
            list.push(Awaited {
                name: "draining".into(),
                reason: reason.to_string().into(),
            });
        }
        list.extend(self.state.borrow().entries.values().filter_map(|entry| {
            Some(Awaited {
                name: entry.name.clone(),
                reason: entry.missing.clone()?,
            })
        }));
        list
    }

    /// Whether nothing is awaited.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.drain.reason().is_none() && self.state.borrow().ready()
    }

    /// Waits until nothing is awaited. Never returns once a drain has begun before that.
    pub async fn ready(&self) {
        let mut state = self.state.subscribe();
        // The sender lives in `self`, so the wait cannot end with an error.
        let _ = state.wait_for(State::ready).await;
        if self.drain.reason().is_some() {
            std::future::pending::<()>().await;
        }
    }

    /// What `/ready` answers: `ready`, or one line for each thing that is awaited.
    #[must_use]
    pub fn page(&self) -> String {
        let awaited = self.awaited();
        if awaited.is_empty() {
            return "ready\n".to_owned();
        }
        let mut page = String::from("not ready\n");
        for Awaited { name, reason } in awaited {
            // Writing to a String does not fail.
            let _ = writeln!(page, "{name}: {reason}");
        }
        page
    }

    fn insert(&self, name: Text, reason: Text) -> u64 {
        let mut id = 0;
        self.state.send_modify(|state| {
            id = state.next;
            state.next += 1;
            let entry = Entry {
                name: plain(name),
                missing: Some(plain(reason)),
            };
            state.entries.insert(id, entry);
        });
        id
    }

    /// Sets the reason of one entry; answers whether that changed whether it is missing.
    fn set(&self, id: u64, missing: Option<Text>) -> bool {
        let missing = missing.map(plain);
        let mut turned = false;
        self.state.send_if_modified(|state| {
            let Some(entry) = state.entries.get_mut(&id) else {
                return false;
            };
            turned = entry.missing.is_some() != missing.is_some();
            let changed = entry.missing != missing;
            entry.missing = missing;
            changed
        });
        turned
    }
}

/// Something that is done once. Dropping it undone leaves the daemon unready, with that as the reason: a start-up step
/// that gave up or panicked must not look like one that succeeded.
#[derive(Debug)]
#[must_use = "dropping the task leaves the daemon unready"]
pub struct Task {
    readiness: Readiness,
    id: u64,
    name: Text,
    done: bool,
}

impl Task {
    /// It is done.
    pub fn ready(mut self) {
        self.done = true;
        self.readiness.set(self.id, None);
        tracing::info!(
            task = %self.name,
            elapsed_ms = u64::try_from(self.readiness.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            awaited = self.readiness.awaited().len(),
            "done"
        );
    }

    /// Not done yet, and this is why.
    pub fn waiting(&self, reason: impl Into<Text>) {
        self.readiness.set(self.id, Some(reason.into()));
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.done {
            self.readiness.set(
                self.id,
                Some("ended before it was done; see the log".into()),
            );
        }
    }
}

/// Something that comes and goes. Clones speak for the same condition. Dropping it leaves it as it is.
#[derive(Clone, Debug)]
pub struct Condition {
    readiness: Readiness,
    id: u64,
    name: Text,
}

impl Condition {
    /// It holds.
    pub fn set_ready(&self) {
        if self.readiness.set(self.id, None) {
            tracing::info!(condition = %self.name, "holds");
        }
    }

    /// It does not hold, and this is why.
    pub fn set_not_ready(&self, reason: impl Into<Text>) {
        let reason = plain(reason.into());
        if self.readiness.set(self.id, Some(reason.clone())) {
            tracing::warn!(condition = %self.name, %reason, "does not hold");
        }
    }
}

/// One short line without control characters.
fn plain(text: Text) -> Text {
    if text.len() <= REASON_MAX && !text.chars().any(char::is_control) {
        return text;
    }
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(REASON_MAX)
        .collect::<String>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Reason;

    fn names(readiness: &Readiness) -> Vec<Text> {
        readiness.awaited().into_iter().map(|a| a.name).collect()
    }

    #[test]
    fn is_ready_only_when_the_last_task_is_done() {
        let readiness = Readiness::new(&Trigger::new());
        assert!(readiness.is_ready());
        let (store, tokens) = (readiness.task("store"), readiness.task("tokens"));
        assert_eq!(names(&readiness), ["store", "tokens"]);
        store.ready();
        assert_eq!(names(&readiness), ["tokens"]);
        assert!(!readiness.is_ready());
        tokens.ready();
        assert!(readiness.is_ready());
        assert_eq!(readiness.page(), "ready\n");
    }

    #[test]
    fn a_task_that_is_dropped_undone_is_not_done() {
        let readiness = Readiness::new(&Trigger::new());
        drop(readiness.task("store"));
        assert_eq!(
            readiness.page(),
            "not ready\nstore: ended before it was done; see the log\n"
        );
    }

    #[test]
    fn a_condition_can_be_lost_and_found_again_with_its_reason() {
        let readiness = Readiness::new(&Trigger::new());
        let quorum = readiness.condition("quorum", "no custodian asked yet");
        assert_eq!(
            readiness.page(),
            "not ready\nquorum: no custodian asked yet\n"
        );
        quorum.set_ready();
        assert!(readiness.is_ready());
        quorum
            .clone()
            .set_not_ready("1 of 2 custodians up; down: b, c");
        assert_eq!(
            readiness.page(),
            "not ready\nquorum: 1 of 2 custodians up; down: b, c\n"
        );
        drop(quorum);
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_drain_makes_it_unready_for_good() {
        let drain = Trigger::new();
        let readiness = Readiness::new(&drain);
        let condition = readiness.condition("hsmd", "not connected");
        condition.set_ready();
        drain.start(Reason::Terminate);
        assert_eq!(readiness.page(), "not ready\ndraining: SIGTERM\n");
        condition.set_ready();
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_reason_cannot_forge_a_line() {
        let readiness = Readiness::new(&Trigger::new());
        let condition = readiness.condition("x", format!("a\nready\r{}", "b".repeat(500)));
        assert_eq!(readiness.page().lines().count(), 2);
        assert!(readiness.page().len() < 230);
        condition.set_not_ready("c\u{7}d");
        assert_eq!(readiness.page(), "not ready\nx: c d\n");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_moment_it_becomes_ready() {
        let readiness = Readiness::new(&Trigger::new());
        let task = readiness.task("tokens");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        task.ready();
        assert!(waiting.await.is_ok());
    }
}
