//! What systemd is told: READY when we are, STOPPING when the drain begins, and WATCHDOG while the runtime runs.
//!
//! Without `NOTIFY_SOCKET` all of this does nothing. The watchdog proves that the runtime still schedules tasks and no
//! more: like liveness it does not look at readiness, because a restart brings no token back.

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::drain::Trigger;
use crate::readiness::Readiness;

/// Keeps systemd informed from now on.
///
/// The daemon counts as started at once when it merely *serves* (an agent without `hsmd` answers `hsm_unavailable`, and
/// a unit ordered after it must not wait for a token): so call this when all sockets are bound.
pub fn spawn(readiness: Readiness, trigger: Trigger) {
    tell(&[
        NotifyState::Ready,
        NotifyState::Status("serving; not ready yet"),
    ]);
    if let Some(period) = sd_notify::watchdog_enabled() {
        tokio::spawn(watchdog(period / 2));
    }
    tokio::spawn(async move {
        tokio::select! {
            () = readiness.ready() => tell(&[NotifyState::Status("ready")]),
            _ = trigger.started() => {}
        }
        trigger.started().await;
        tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    });
}

async fn watchdog(period: std::time::Duration) {
    // A period of zero would panic in `interval`; systemd never sends one, but the variable could hold anything.
    let mut ticks = interval(period.max(std::time::Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
