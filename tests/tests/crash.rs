//! SIGKILL at any moment: nothing that was acknowledged is lost, nothing is left half-written, and
//! the next start needs no repair.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tests::daemon::{Daemon, Post};
use tests::stack::Stack;

/// As many as the daemon has to survive. Fewer would leave moments untried: the loop spreads them
/// evenly over each operation's duration.
const KILLS: usize = 200;

/// What an operator knows about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Leases are granted for this version.
    Active(u64),
    /// None are granted any more.
    Revoked,
}

#[derive(Clone, Debug)]
enum Operation {
    Add(String),
    Rotate(String),
    Revoke(String),
}

impl Operation {
    fn arguments(&self) -> Vec<&str> {
        const UPSTREAM: [&str; 2] = ["--upstream", "https://api.openai.com"];
        match self {
            Operation::Add(id) => {
                [&["key", "add", id, "--provider", "openai"], &UPSTREAM[..]].concat()
            }
            Operation::Rotate(id) => [&["key", "rotate", id, "--no-wait"], &UPSTREAM[..]].concat(),
            Operation::Revoke(id) => vec!["key", "revoke", id, "--no-wait", "--reason", "drill"],
        }
    }

    /// The keys as they are once the operation is done.
    fn after(&self, keys: &BTreeMap<String, Known>) -> BTreeMap<String, Known> {
        let mut keys = keys.clone();
        match self {
            Operation::Add(id) => {
                keys.insert(id.clone(), Known::Active(1));
            }
            Operation::Rotate(id) => {
                if let Some(Known::Active(version)) = keys.get_mut(id) {
                    *version += 1;
                }
            }
            Operation::Revoke(id) => {
                keys.insert(id.clone(), Known::Revoked);
            }
        }
        keys
    }
}

/// Adds, then rotates, then revokes, over and over; keys that are done with stay as witnesses.
fn next(round: usize, keys: &BTreeMap<String, Known>) -> Operation {
    let usable = keys
        .iter()
        .filter(|(_, key)| **key != Known::Revoked)
        .map(|(id, _)| id.clone())
        .next_back();
    match (round % 4, usable) {
        (1 | 2, Some(id)) => Operation::Rotate(id),
        (3, Some(id)) => Operation::Revoke(id),
        _ => Operation::Add(format!("key-{round:03}")),
    }
}

/// The keys as the daemon tells them.
fn listed(post: &Post) -> anyhow::Result<BTreeMap<String, Known>> {
    let list = post.tacit_json(&["key", "list"])?;
    let keys = list["keys"].as_array().context("no keys in the list")?;
    keys.iter()
        .map(|key| {
            let id = key["key_id"]
                .as_str()
                .context("a key has an id")?
                .to_owned();
            let version = key["current_version"]
                .as_u64()
                .context("a key has a version")?;
            let known = if key["state"] == "active" {
                Known::Active(version)
            } else {
                Known::Revoked
            };
            Ok((id, known))
        })
        .collect()
}

/// Runs the operation and kills the daemon `delay` after its start. True when it was acknowledged.
fn kill_during(
    post: &Post,
    daemon: Daemon,
    operation: &Operation,
    delay: Duration,
) -> anyhow::Result<(bool, Duration)> {
    let mut command = post.command(&operation.arguments())?;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let started = Instant::now();
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    stdin.write_all(tests::fixture::key(tests::upstream::Provider::OpenAi).as_bytes())?;
    drop(stdin);
    let mut heard = None;
    while heard.is_none() && started.elapsed() < delay {
        heard = child.try_wait()?;
        std::thread::park_timeout(Duration::from_micros(200));
    }
    let took = started.elapsed();
    daemon.kill()?;
    // The answer may have been on its way when the daemon died: then it counts.
    Ok((child.wait()?.success(), took))
}

/// What became of the operations, by the operator's and by the daemon's account.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: usize,
    undone: usize,
    done_unheard: usize,
}

impl Tally {
    /// Holds what the daemon tells after its restart against what the operator knows.
    fn judge(
        &mut self,
        heard: bool,
        now: &BTreeMap<String, Known>,
        before: &BTreeMap<String, Known>,
        after: &BTreeMap<String, Known>,
    ) -> anyhow::Result<()> {
        if heard {
            self.acknowledged += 1;
            ensure!(
                now == after,
                "it was acknowledged and is lost: {now:?} instead of {after:?}"
            );
        } else if now == after {
            self.done_unheard += 1;
        } else {
            self.undone += 1;
            ensure!(
                now == before,
                "it is half done: {now:?} is neither {before:?} nor {after:?}"
            );
        }
        Ok(())
    }
}

#[test]
fn two_hundred_kills_lose_nothing_that_was_acknowledged() -> anyhow::Result<()> {
    let mut post = Stack::plain()?.into_post()?;
    let mut keys = BTreeMap::new();
    // How long an undisturbed operation takes here; kills spread over a little more than that.
    let mut duration = Duration::from_millis(50);
    let mut tally = Tally::default();
    let mut daemon = post.start()?;
    for round in 0..KILLS {
        let operation = next(round, &keys);
        // Steps of the golden ratio visit the whole span evenly, the same in every run.
        let fraction = (round as f64 * 0.618_033_988_75).fract();
        let (heard, took) =
            kill_during(&post, daemon, &operation, duration.mul_f64(fraction * 1.3))?;
        duration = match heard {
            true => (duration * 3 + took) / 4,
            // Too early for anything to be heard, again and again, would try only the beginning.
            false => duration.mul_f64(1.02),
        };
        daemon = post.start()?;
        let (now, after) = (listed(&post)?, operation.after(&keys));
        tally
            .judge(heard, &now, &keys, &after)
            .with_context(|| format!("round {round}: {operation:?}"))?;
        keys = now;
    }
    for (id, key) in keys.iter().filter(|(_, key)| **key != Known::Revoked) {
        let verified = post.tacit_json(&["key", "verify", id]);
        ensure!(
            verified.is_ok(),
            "{id} {key:?} does not verify: {verified:?}"
        );
    }
    // All three outcomes, or the moments were badly chosen and the loop proved nothing.
    ensure!(
        tally.acknowledged >= 20 && tally.undone >= 20,
        "badly chosen moments: {tally:?}"
    );
    Ok(())
}
