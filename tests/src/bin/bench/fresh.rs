//! `lease.ttl = "0s"`: every request goes through the HSM. What that adds to a request, beside what it cannot do without.
//!
//! Two agents at the same daemon, one that keeps leases and one that does not, in turns, one request after the other. The raw figure adds up
//! one re-wrap at the token alone, two empty calls at the daemon's socket and one fdatasync of the audit log's disk, all of this run.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Instant;

use anyhow::ensure;

use crate::figure::{Figure, Goal, median};
use crate::rig::{Daemon, Rig};
use crate::{leases, load, token};

const SECTION: &str = "lease.ttl = \"0s\": every request through the HSM";
const ROUNDS: usize = 5;
const REQUESTS: usize = 200;

/// Measures beside an agent that is up and keeps its leases.
pub async fn measure(rig: &Rig, keeping: &Daemon) -> anyhow::Result<Vec<Figure>> {
    let mut fresh = rig.agent_named("agent-fresh", &rig.socket, "0s")?;
    fresh.ready()?;
    let (mut with, mut without, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    let caller = leases::Caller::open(&rig.socket, &rig.upstream.url()).await?;
    for _ in 0..ROUNDS {
        without.push(round(keeping)?);
        with.push(round(&fresh)?);
        let parts = [
            1e3 / token::raw_rate()?,
            2.0 * caller.empty_ms().await?,
            leases::fdatasync(&rig.state())?,
        ];
        raw.push(parts.iter().sum());
    }
    fresh.process.terminate()?;
    let added = with
        .iter()
        .zip(&without)
        .map(|(with, without)| with - without);
    Ok(vec![
        Figure::new(SECTION, "a request, p50", median(with.clone()), "ms")
            .beside("with a lease at hand", median(without.clone())),
        Figure::new(SECTION, "added, p50", median(added.collect()), "ms")
            .beside("raw token + 2 empty calls + fdatasync", median(raw))
            .goal(Goal::ShareAtMost(1.0)),
    ])
}

/// The median of requests one after the other, in milliseconds.
fn round(agent: &Daemon) -> anyhow::Result<f64> {
    let mut app = TcpStream::connect(agent.address("listen")?)?;
    app.set_nodelay(true)?;
    let request = load::request("127.0.0.1", "/openai", "sk-placeholder");
    let mut took = Vec::with_capacity(REQUESTS);
    let mut buffer = Vec::new();
    for _ in 0..REQUESTS {
        let sent = Instant::now();
        app.write_all(&request)?;
        let answer = load::answer(&mut app, &mut buffer)?;
        took.push(sent.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "a request failed");
    }
    Ok(median(took))
}
