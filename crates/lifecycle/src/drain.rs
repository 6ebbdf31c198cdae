//! Stopping without cutting anyone off.
//!
//! A [`Trigger`] starts the drain; whatever must end by itself holds a [`Watcher`]. "Done" is the *drop* of the last
//! watcher, so nobody can forget to say it, and a task that panics does not hold up the others. The wait has a
//! deadline, because a stream to a provider may be open for minutes and the supervisor's patience ends with SIGKILL.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Why the drain began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A part of the program that it cannot do without has ended.
    Failure,
    /// SIGINT, as from Ctrl-C.
    Interrupt,
    /// The program asked for it itself (tests, `--check`).
    Request,
    /// SIGTERM, as from systemd or a kubelet.
    Terminate,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Failure => "failure",
            Reason::Interrupt => "SIGINT",
            Reason::Request => "request",
            Reason::Terminate => "SIGTERM",
        })
    }
}

/// The deadline passed while watchers were still held; their work is cut off when the program goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "drain deadline of {deadline:?} passed with {remaining} task(s) still running; they are cut off"
)]
pub struct DeadlinePassed {
    /// The deadline that was given.
    pub deadline: Duration,
    /// How many watchers were still alive.
    pub remaining: usize,
}

/// Starts the drain and waits for its end. Clones are the same trigger.
#[derive(Clone, Debug)]
pub struct Trigger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    begun: watch::Sender<Option<Reason>>,
    /// Carries nothing; what counts is how many receivers there are. Apart from `begun`, so that one may listen for the
    /// beginning without holding up the end.
    held: watch::Sender<()>,
}

impl Default for Trigger {
    fn default() -> Self {
        Self::new()
    }
}

impl Trigger {
    /// A drain that has not begun.
    #[must_use]
    pub fn new() -> Self {
        let (begun, held) = (watch::Sender::new(None), watch::Sender::new(()));
        Self {
            shared: Arc::new(Shared { begun, held }),
        }
    }

    /// A new watcher: the drain is not over while it, or a clone of it, is held. One that is made after the drain began
    /// is signaled at once, so a connection accepted at the last moment still ends in order.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher {
            begun: self.shared.begun.subscribe(),
            _held: self.shared.held.subscribe(),
        }
    }

    /// Begins the drain. Only the first call counts; it returns whether this was the first.
    pub fn start(&self, reason: Reason) -> bool {
        self.shared.begun.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(reason);
            }
            first
        })
    }

    /// The reason, once the drain has begun.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        *self.shared.begun.borrow()
    }

    /// Waits for the beginning of the drain, without holding up its end. Cancel-safe.
    pub async fn started(&self) -> Reason {
        signaled(self.shared.begun.subscribe()).await
    }

    /// Begins the drain if nobody has, and waits until the last watcher is dropped; answers how long that took.
    ///
    /// # Errors
    /// [`DeadlinePassed`] when watchers are still held after `deadline`.
    pub async fn finish(&self, deadline: Duration) -> Result<Duration, DeadlinePassed> {
        self.start(Reason::Request);
        let began = Instant::now();
        match timeout(deadline, self.shared.held.closed()).await {
            Ok(()) => Ok(began.elapsed()),
            Err(_) => Err(DeadlinePassed {
                deadline,
                remaining: self.shared.held.receiver_count(),
            }),
        }
    }
}

/// Held by whatever must end by itself. Dropping the last one ends the drain.
#[derive(Clone, Debug)]
pub struct Watcher {
    begun: watch::Receiver<Option<Reason>>,
    _held: watch::Receiver<()>,
}

impl Watcher {
    /// Waits for the beginning of the drain. Cancel-safe: fit for `select!`. If every trigger is gone nobody is left
    /// who could end us in order, which is the same as a drain.
    pub async fn signaled(&self) -> Reason {
        signaled(self.begun.clone()).await
    }

    /// The reason, once the drain has begun.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        *self.begun.borrow()
    }
}

async fn signaled(mut begun: watch::Receiver<Option<Reason>>) -> Reason {
    let reason = begun.wait_for(Option::is_some).await.ok().and_then(|r| *r);
    reason.unwrap_or(Reason::Failure)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ends_with_the_last_watcher_and_not_before() {
        let trigger = Trigger::new();
        let (slow, fast) = (trigger.watcher(), trigger.watcher());
        let slow_clone = slow.clone();
        drop(slow);
        for (watcher, seconds) in [(slow_clone, 7), (fast, 2)] {
            tokio::spawn(async move {
                assert_eq!(watcher.signaled().await, Reason::Terminate);
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            });
        }
        assert!(trigger.start(Reason::Terminate));
        assert_eq!(
            trigger.finish(Duration::from_secs(10)).await,
            Ok(Duration::from_secs(7))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_names_how_many_it_cuts_off() {
        let trigger = Trigger::new();
        let (_held, held_too, done) = (trigger.watcher(), trigger.watcher(), trigger.watcher());
        drop(done);
        let deadline = Duration::from_secs(3);
        let error = trigger.finish(deadline).await.unwrap_err();
        assert_eq!(
            error,
            DeadlinePassed {
                deadline,
                remaining: 2
            }
        );
        drop(held_too);
        let error = trigger.finish(deadline).await.unwrap_err();
        assert_eq!(error.remaining, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_reason_stands_and_late_watchers_hear_it() {
        let trigger = Trigger::new();
        assert_eq!(trigger.reason(), None);
        assert!(trigger.start(Reason::Interrupt));
        assert!(!trigger.start(Reason::Terminate));
        let late = trigger.watcher();
        assert_eq!(late.signaled().await, Reason::Interrupt);
        assert_eq!(trigger.started().await, Reason::Interrupt);
        drop(late);
        assert_eq!(trigger.finish(Duration::ZERO).await, Ok(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicking_task_does_not_hold_up_the_drain() {
        let trigger = Trigger::new();
        let watcher = trigger.watcher();
        let task = tokio::spawn(async move {
            watcher.signaled().await;
            panic!("on purpose");
        });
        assert!(trigger.finish(Duration::from_secs(1)).await.is_ok());
        assert!(task.await.unwrap_err().is_panic());
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_listens_for_the_beginning_does_not_hold_up_the_end() {
        let trigger = Trigger::new();
        let started = trigger.started();
        assert!(trigger.finish(Duration::ZERO).await.is_ok());
        assert_eq!(started.await, Reason::Request);
    }

    #[tokio::test]
    async fn a_watcher_without_any_trigger_is_signaled() {
        let trigger = Trigger::new();
        let watcher = trigger.watcher();
        drop(trigger);
        assert_eq!(watcher.signaled().await, Reason::Failure);
    }
}
