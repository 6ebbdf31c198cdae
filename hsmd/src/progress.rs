//! How far a change has reached the agents, told to the operator as it happens.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::ChangeProgress;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::agents::Reach;
use crate::clock;
use crate::daemon::Daemon;
use crate::keys::Done;
use crate::present;

/// Looked at again at least this often, since a lease that ends makes no sound.
const LOOK: Duration = Duration::from_millis(200);

/// Streams progress until the last affected lease is dead or acknowledged; with `no_wait`, once. Acknowledgements are timed to the end,
/// whether anybody listens or not.
pub fn follow(
    daemon: Arc<Daemon>,
    done: Done,
    no_wait: bool,
) -> ReceiverStream<Result<ChangeProgress, Status>> {
    let (to, stream) = mpsc::channel(8);
    tokio::spawn(async move {
        let mut ticks = daemon.agents.ticks();
        let mut told = None;
        let mut to = Some(to);
        loop {
            ticks.borrow_and_update();
            let reach = daemon.agents.reach(&done.affected);
            let finished = no_wait || reach.complete();
            if let Some(listener) = &to
                && (told != Some(reach) || finished)
            {
                let message = describe(&daemon, &done, reach, finished);
                if listener.send(Ok(message)).await.is_err() || finished {
                    to = None;
                }
                told = Some(reach);
            }
            if reach.complete() {
                for took in daemon.agents.took(&done.affected) {
                    daemon.metrics.acknowledged.observe(took.as_secs_f64());
                }
                return;
            }
            tokio::select! {
                _ = ticks.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
                _ = daemon.drain.started() => return,
            }
        }
    });
    ReceiverStream::new(stream)
}

fn describe(daemon: &Daemon, done: &Done, reach: Reach, finished: bool) -> ChangeProgress {
    let mut notes = Vec::new();
    if reach.unknown.is_some() {
        notes.push("this daemon was restarted: leases from before may live until then".to_owned());
    }
    if done.affected.is_of_terms() {
        notes.extend(present::without_terms(daemon));
    }
    let leases_end_ms = reach.ends.max(reach.unknown).map_or(0, |ends| {
        let left = ends.saturating_sub(clock::since_boot());
        clock::unix_ms().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    });
    ChangeProgress {
        key: present::summary(daemon, &done.view, &done.key_id),
        revision: done.view.revision,
        agents: reach.agents,
        acknowledged: reach.acknowledged,
        not_connected: reach.not_connected,
        leases_end_ms,
        elapsed_us: micros(clock::since_boot().saturating_sub(done.affected.made_at())),
        slowest_us: micros(reach.slowest),
        done: finished,
        missing_custodians: done.missing.clone(),
        note: notes.join("; "),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
