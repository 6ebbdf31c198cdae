//! What is known of one daemon: its session, how far its store had come, which of its custodians answer, and how soon it does.
//!
//! Each daemon is kept for itself: one that is away, slow or wrong changes nothing for the others.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use custody::Fingerprint;
use tokio::sync::watch;

use super::{Connected, HsmdError};

/// How long an answer may take before the other daemons are asked as well: ten times a slow token's, and far below what a request notices.
const HEDGE_LEAST: Duration = Duration::from_millis(30);
/// The same for a daemon whose tokens are always slow: it is asked beside the others then, and waited for no longer than a second.
const HEDGE_MOST: Duration = Duration::from_secs(1);
/// What is unusual: this many times as long as usual.
const UNUSUAL: u32 = 3;

/// One daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) path: PathBuf,
    /// A user, besides root and our own, that it may run as.
    pub(super) uid: Option<u32>,
    /// The session in use: requests ask in it, and the watch follows it.
    pub(super) current: watch::Sender<Option<Arc<Connected>>>,
    /// Held by whoever opens a session; the others wait.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// Newest store revision seen. A daemon with an older store is not believed.
    seen: AtomicU64,
    /// It failed, or took unusually long; it is asked after the others until it is heard again.
    late: AtomicBool,
    /// How long its answers take, in microseconds; 0 when there was none.
    usual: AtomicU64,
    up: Mutex<Up>,
}

/// Which shares it can give.
#[derive(Debug, Default)]
struct Up {
    custodians: BTreeSet<Fingerprint>,
    /// It drives only some of them.
    part: bool,
}

impl Daemon {
    pub(super) fn new(path: PathBuf, uid: Option<u32>) -> Self {
        Self {
            path,
            uid,
            current: watch::Sender::new(None),
            opening: tokio::sync::Mutex::default(),
            seen: AtomicU64::new(0),
            late: AtomicBool::new(false),
            usual: AtomicU64::new(0),
            up: Mutex::default(),
        }
    }

    /// The session in use, if there is one.
    pub(super) fn session(&self) -> Option<Arc<Connected>> {
        self.current.borrow().clone()
    }

    /// The newest revision that it has told us.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Notes a revision, and refuses one that is older than what the same daemon had said *before* it was asked: what it said meanwhile may
    /// be newer than an answer that was already on its way.
    pub(super) fn not_older(&self, before: u64, now: u64) -> Result<(), HsmdError> {
        self.seen.fetch_max(now, Ordering::SeqCst);
        if now < before {
            Err(HsmdError::Older { seen: before, now })
        } else {
            Ok(())
        }
    }

    /// It was heard, in whatever way.
    pub(super) fn heard(&self) {
        self.late.store(false, Ordering::Relaxed);
    }

    /// It is asked after the others from now on.
    pub(super) fn is_late(&self) {
        self.late.store(true, Ordering::Relaxed);
    }

    pub(super) fn late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    /// It answered after this time.
    pub(super) fn took(&self, time: Duration) {
        self.heard();
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let before = self.usual.load(Ordering::Relaxed);
        // An average in which the last eight answers weigh most. Two that store at once lose one of them, which does not matter.
        let now = if before == 0 {
            time
        } else {
            before - before / 8 + time / 8
        };
        self.usual.store(now, Ordering::Relaxed);
    }

    /// When the others are asked as well.
    pub(super) fn hedge(&self) -> Duration {
        let usual = Duration::from_micros(self.usual.load(Ordering::Relaxed));
        (usual * UNUSUAL).clamp(HEDGE_LEAST, HEDGE_MOST)
    }

    /// Notes which custodians answer; whether it is a part is said when a session opens.
    pub(super) fn set_up(&self, custodians: BTreeSet<Fingerprint>, part: Option<bool>) {
        let mut up = self.lock();
        up.custodians = custodians;
        up.part = part.unwrap_or(up.part);
    }

    /// The custodians that answer through it now.
    pub(super) fn up(&self) -> BTreeSet<Fingerprint> {
        if self.late() || self.session().is_none() {
            return BTreeSet::new();
        }
        self.lock().custodians.clone()
    }

    pub(super) fn is_part(&self) -> bool {
        self.lock().part
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Up> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_depends_on_what_is_usual_within_bounds() {
        let daemon = Daemon::new(PathBuf::from("/run/a"), None);
        assert_eq!(daemon.hedge(), HEDGE_LEAST);
        for (took, hedge) in [(1, HEDGE_LEAST), (10, HEDGE_LEAST)] {
            daemon.took(Duration::from_millis(took));
            assert_eq!(daemon.hedge(), hedge);
        }
        for _ in 0..100 {
            daemon.took(Duration::from_millis(100));
        }
        let slow = daemon.hedge();
        assert!(slow > Duration::from_millis(250) && slow <= Duration::from_millis(300));
        daemon.took(Duration::from_secs(60));
        assert_eq!(daemon.hedge(), HEDGE_MOST);
    }

    #[test]
    fn an_answer_clears_what_lateness_left() {
        let daemon = Daemon::new(PathBuf::from("/run/a"), None);
        daemon.is_late();
        assert!(daemon.late());
        daemon.took(Duration::from_millis(1));
        assert!(!daemon.late());
    }
}
