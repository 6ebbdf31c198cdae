//! Time for leases: the clock that goes on while the machine sleeps, so that a laptop lid or a paused VM cannot stretch a lease, and that
//! nobody can set back.

use std::time::Duration;

/// Where lease times come from. Tests bring their own.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
}

/// `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Duration {
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .map(Duration::from)
            // Every kernel since 2.6.39 has it. Were it gone, the largest time makes every lease expired: refused, not used for ever.
            .unwrap_or(Duration::MAX)
    }
}

/// A clock that a test moves.
#[derive(Debug, Default)]
pub struct FakeClock(std::sync::atomic::AtomicU64);

impl FakeClock {
    /// Moves the time forward.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}
