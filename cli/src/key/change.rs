//! Changes that agents must follow, and how far each has reached them: roll back, revoke; `rotate` seals first, and
//! `set` says what a key is for.

use std::time::Duration;

use custody::KeyId;
use proto::v1::{ChangeProgress, RevokeKeyRequest, RollbackKeyRequest};
use serde_json::{Value, json};
use tonic::{Response, Status, Streaming};

use super::show::summary_json;
use crate::Answer;
use crate::args::RevokeKey;
use crate::client::{self, unary};
use crate::config::Paths;
use crate::failure::Refusal;
use crate::output::{Output, clean, list};

/// How long agents may take to acknowledge before the person hears how far it has come; they need milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// `tacit key rollback`.
pub(super) async fn rollback(id: &KeyId, no_wait: bool, paths: &Paths, output: &Output) -> Answer {
    let mut daemon = client::connect(&paths.socket).await?;
    let request = RollbackKeyRequest {
        key_id: id.to_string(),
        no_wait,
    };
    let stream = start(daemon.admin.rollback_key(request)).await?;
    follow(stream, "rolled back", no_wait, output).await
}

/// `tacit key revoke`.
pub(super) async fn revoke(options: RevokeKey, paths: &Paths, output: &Output) -> Answer {
    let mut daemon = client::connect(&paths.socket).await?;
    let request = RevokeKeyRequest {
        key_id: options.id.to_string(),
        version: options.version.unwrap_or(0),
        reason: options.reason,
        compromised: options.compromised,
        no_wait: options.no_wait,
    };
    let stream = start(daemon.admin.revoke_key(request)).await?;
    follow(stream, "revoked", options.no_wait, output).await
}

pub(super) async fn start(
    call: impl Future<Output = Result<Response<Streaming<ChangeProgress>>, Status>>,
) -> Result<Streaming<ChangeProgress>, Refusal> {
    unary(call).await
}

/// Shows the stream until it is done. The change itself was durable before the first message.
pub(super) async fn follow(
    mut stream: Streaming<ChangeProgress>,
    verb: &str,
    no_wait: bool,
    output: &Output,
) -> Answer {
    let mut last: Option<ChangeProgress> = None;
    let mut told = false;
    loop {
        let message = tokio::time::timeout(PATIENCE, stream.message());
        let progress = match (message.await, &last) {
            (Ok(Ok(Some(progress))), _) => progress,
            (Ok(Ok(None)), _) => break,
            (Ok(Err(status)), _) => return Err(interrupted(&status, last.as_ref())),
            // Some agent is silent, and the last lease may be a minute away: the person hears how far it has come.
            (Err(_), Some(progress)) if !told && !output.is_json() => {
                output.text(&reach(progress));
                told = true;
                continue;
            }
            (Err(_), _) => continue,
        };
        if last.is_none() && !output.is_json() {
            output.text(&headline(verb, &progress));
        }
        let known = last.as_ref().map_or("", |last| last.note.as_str());
        if !progress.note.is_empty() && progress.note != known && !output.is_json() {
            output.note(&format!("note: {}", clean(&progress.note)));
        }
        let settled = unheard(&progress) == 0;
        if !told && (settled || progress.done) && !output.is_json() {
            output.text(&reach(&progress));
            told = true;
        } else if last.as_ref().map(reach) != Some(reach(&progress)) {
            output.progress(&reach(&progress));
        }
        let done = progress.done || no_wait;
        last = Some(progress);
        if done {
            break;
        }
    }
    finish(last, verb, no_wait, output)
}

/// Connected agents that have not acknowledged yet.
fn unheard(progress: &ChangeProgress) -> u32 {
    progress
        .agents
        .saturating_sub(progress.acknowledged)
        .saturating_sub(progress.not_connected)
}

fn finish(last: Option<ChangeProgress>, verb: &str, no_wait: bool, output: &Output) -> Answer {
    let Some(last) = last else {
        anyhow::bail!("the daemon ended the call without an answer; look with tacit key show");
    };
    if output.is_json() {
        output.result("", &progress_json(verb, &last));
        return Ok(last.done || no_wait);
    }
    if !last.done && !no_wait {
        anyhow::bail!(
            "the daemon stopped reporting; the change stands (revision {})",
            last.revision
        );
    }
    if last.done && !no_wait && last.acknowledged < last.agents {
        output.text("the last lease has ended");
    }
    Ok(true)
}

fn interrupted(status: &Status, last: Option<&ChangeProgress>) -> anyhow::Error {
    let error = anyhow::Error::new(Refusal::new(status));
    match last {
        None => error,
        Some(last) => error.context(format!(
            "the change stands (revision {}), but its progress cannot be followed any more",
            last.revision
        )),
    }
}

fn headline(verb: &str, progress: &ChangeProgress) -> String {
    let key = progress.key.clone().unwrap_or_default();
    let version = match key.current_version {
        0 => "no version is in use".to_owned(),
        version => format!("version {version} is in use"),
    };
    let mut text = clean(&format!("{verb} {}: {}, {version}", key.key_id, key.state));
    if !progress.missing_custodians.is_empty() {
        text += &format!(
            "\nnot ingested yet by {}: the margin is smaller until they are back",
            clean(&list(&progress.missing_custodians))
        );
    }
    text
}

/// `acknowledged 12 of 14 in 3 ms; 2 not connected, their leases end by 10:02:41`; the help says that times are UTC.
fn reach(progress: &ChangeProgress) -> String {
    let mut text = format!(
        "acknowledged {} of {} in {}",
        progress.acknowledged,
        progress.agents,
        elapsed(match progress.slowest_us {
            0 => progress.elapsed_us,
            slowest => slowest,
        })
    );
    let end = match clock(progress.leases_end_ms) {
        Some(end) => format!("their leases end by {end}"),
        None => "their leases have ended".to_owned(),
    };
    match (progress.not_connected, unheard(progress)) {
        (0, 0) => {}
        (away, 0) => text += &format!("; {away} not connected, {end}"),
        (0, silent) => text += &format!("; {silent} silent, {end}"),
        (away, silent) => text += &format!("; {silent} silent, {away} not connected, {end}"),
    }
    text
}

fn elapsed(microseconds: u64) -> String {
    match microseconds {
        us @ 0..1_000 => format!("{us} us"),
        us @ 1_000..10_000_000 => format!("{} ms", us / 1_000),
        us => format!("{} s", us / 1_000_000),
    }
}

fn clock(milliseconds: u64) -> Option<String> {
    // Up to the next second: a lease that ends at 10:02:41.3 has not ended at 10:02:41.
    let seconds = i64::try_from(milliseconds.div_ceil(1000)).ok()?;
    if seconds == 0 {
        return None;
    }
    let when = time::OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    Some(format!(
        "{:02}:{:02}:{:02}",
        when.hour(),
        when.minute(),
        when.second()
    ))
}

fn progress_json(verb: &str, progress: &ChangeProgress) -> Value {
    json!({
        "action": verb, "key": progress.key.as_ref().map(summary_json), "revision": progress.revision,
        "agents": progress.agents, "acknowledged": progress.acknowledged,
        "not_connected": progress.not_connected, "leases_end_ms": progress.leases_end_ms,
        "elapsed_us": progress.elapsed_us, "slowest_us": progress.slowest_us, "done": progress.done,
        "missing_custodians": progress.missing_custodians, "note": progress.note,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_revoke_is_the_contracts() {
        let progress = ChangeProgress {
            agents: 14,
            acknowledged: 12,
            not_connected: 2,
            elapsed_us: 3_400,
            leases_end_ms: (10 * 3600 + 2 * 60 + 40) * 1000 + 300,
            ..ChangeProgress::default()
        };
        assert_eq!(
            reach(&progress),
            "acknowledged 12 of 14 in 3 ms; 2 not connected, their leases end by 10:02:41"
        );
        let dead = ChangeProgress {
            leases_end_ms: 0,
            ..progress.clone()
        };
        assert!(reach(&dead).ends_with("2 not connected, their leases have ended"));
        let silent = ChangeProgress {
            not_connected: 1,
            ..progress.clone()
        };
        assert!(reach(&silent).contains("; 1 silent, 1 not connected, their leases end by"));
        let all = ChangeProgress {
            acknowledged: 14,
            not_connected: 0,
            ..progress
        };
        assert_eq!(reach(&all), "acknowledged 14 of 14 in 3 ms");
    }
}
