//! `tacit custodian rekey-store` against a daemon that dies at any moment: every key is served afterwards, and no row is left
//! under a key that nobody keeps.

#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rusqlite::Connection;
use tests::stack::Stack;
use tests::upstream::Provider;

/// Few, since each is a start of daemon and tokens; every step by itself is killed in hsmd's own tests.
const KILLS: u32 = 12;
const ADD: [&str; 5] = [
    "--provider",
    "openai",
    "--upstream",
    "https://api.openai.com",
    "--no-test",
];

#[test]
fn a_daemon_that_is_killed_while_it_rekeys_finishes_at_its_next_start() -> anyhow::Result<()> {
    let stack = Stack::plain()?;
    let ids: Vec<String> = (0..4).map(|at| format!("key-{at}")).collect();
    for id in &ids {
        let key = tests::fixture::key(Provider::OpenAi);
        stack.tacit_json(&[&["key", "add", id], &ADD[..]].concat(), key.as_bytes())?;
    }
    let state = stack.path("hsmd_config")?.parent().unwrap().join("state");
    let first = stack.tacit_json(&["custodian", "rekey-store"], b"")?;
    ensure!(
        first["epoch"] == 2 && first["resumed"] == false && first["rows"].as_u64() > Some(4),
        "{first}"
    );
    let mut post = stack.into_post()?;
    let mut daemon = post.start()?;
    let mut duration = Duration::from_millis(60);
    let (mut heard, mut unheard) = (0, 0);
    for round in 0..KILLS {
        let mut child = post
            .command(&["custodian", "rekey-store"])?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let started = Instant::now();
        // Steps of the golden ratio visit the whole span evenly, the same in every run.
        let delay = duration.mul_f64((f64::from(round) * 0.618_033_988_75).fract() * 1.3);
        let mut ended = None;
        while ended.is_none() && started.elapsed() < delay {
            ended = child.try_wait()?;
            std::thread::park_timeout(Duration::from_micros(200));
        }
        let took = started.elapsed();
        daemon.kill()?;
        if child.wait()?.success() {
            heard += 1;
            duration = (duration * 3 + took) / 4;
        } else {
            unheard += 1;
            duration = duration.mul_f64(1.1);
        }
        daemon = post
            .start()
            .with_context(|| format!("round {round}, killed after {took:?}"))?;
        let list = post.tacit_json(&["key", "list"])?;
        let listed = list["keys"].as_array().map_or(0, Vec::len);
        ensure!(listed == ids.len(), "round {round}: {list}");
    }
    ensure!(
        unheard >= 3,
        "badly chosen moments: {heard} heard, {unheard} not"
    );
    for id in &ids {
        post.tacit_json(&["key", "verify", id])?;
    }
    let last = post.tacit_json(&["custodian", "rekey-store"])?;
    drop(daemon);
    let database = Connection::open(state.join("store.sqlite"))?;
    for table in ["sealed", "key_part"] {
        let query = format!("SELECT min(epoch), max(epoch) FROM {table}");
        let span: (i64, i64) =
            database.query_row(&query, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let epoch = last["epoch"].as_i64().context("an epoch")?;
        ensure!(span == (epoch, epoch), "{table}: {span:?}, {last}");
    }
    Ok(())
}
