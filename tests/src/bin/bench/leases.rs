//! Leases per second over gRPC, beside an empty call on the same socket and one fdatasync of the state directory.
//!
//! The empty call is `ReportUsage` with nothing to report: the daemon finds the caller and answers with a message, as for
//! a lease, and touches neither token nor audit log. A lease is answered after its audit line is durable, so on one
//! connection it cannot be faster than the disk; concurrent leases share a sync.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use proto::v1::workload_client::WorkloadClient;
use proto::v1::{LeaseRequest, ReportUsageRequest};
use tests::workload::{connect, hello, marked};
use tonic::transport::Channel;

use crate::figure::{Figure, median};
use crate::rig::{KEY, Rig};

const SECTION: &str = "hsmd over gRPC (2-of-3 tokens)";
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(1);
const SYNCS: usize = 200;
const SINGLE: usize = 300;
/// Connections, each with this many calls in flight.
const SHAPES: [(usize, usize); 3] = [(1, 1), (8, 1), (8, 8)];

/// One agent's connection, with a session.
pub struct Caller {
    client: WorkloadClient<Channel>,
    lease: LeaseRequest,
}

/// Measures a daemon that is up.
pub async fn measure(rig: &Rig) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut callers = Vec::new();
    for _ in 0..8 {
        callers.push(Caller::open(&rig.socket, &rig.upstream.url()).await?);
    }
    for (connections, in_flight) in SHAPES {
        let (mut leases, mut empty) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            empty.push(rate(&callers[..connections], in_flight, Call::Empty).await?);
            leases.push(rate(&callers[..connections], in_flight, Call::Lease).await?);
        }
        let name = match (connections, in_flight) {
            (1, 1) => "leases/s, one connection, one by one".to_owned(),
            (_, 1) => format!("leases/s, {connections} connections, one by one on each"),
            _ => format!("leases/s, {connections} connections, {in_flight} in flight on each"),
        };
        figures.push(
            Figure::new(SECTION, name, median(leases), "/s").beside("empty call", median(empty)),
        );
    }
    // In turns, since a disk is shared like a core.
    let (mut syncs, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        syncs.push(fdatasync(&rig.state())?);
        alone.push(callers[0].lease_ms().await?);
    }
    figures.push(
        Figure::new(SECTION, "one lease alone", median(alone), "ms")
            .beside("one fdatasync in state_dir", median(syncs)),
    );
    figures.push(Figure::new(
        SECTION,
        "OpenSession alone",
        open_session_ms(&rig.socket).await?,
        "ms",
    ));
    Ok(figures)
}

/// Milliseconds to append one audit line's worth and make it durable.
pub fn fdatasync(state: &Path) -> anyhow::Result<f64> {
    let path = state.join("bench-sync");
    let mut file = std::fs::File::create(&path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[b'x'; 350])?;
        let started = Instant::now();
        file.sync_data()?;
        took.push(started.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(&path)?;
    Ok(median(took))
}

/// Milliseconds of an OpenSession on a connection that is there.
async fn open_session_ms(socket: &Path) -> anyhow::Result<f64> {
    let mut client = connect(socket).await?;
    let mut took = Vec::new();
    // Few: a user may hold 128 sessions.
    for _ in 0..20 {
        let request = marked(hello(KEY));
        let started = Instant::now();
        client.open_session(request).await?;
        took.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(took))
}

#[derive(Clone, Copy)]
enum Call {
    Empty,
    Lease,
}

impl Caller {
    /// Opens one.
    pub async fn open(socket: &Path, upstream: &str) -> anyhow::Result<Self> {
        let mut client = connect(socket).await?;
        let opened = client.open_session(marked(hello(KEY))).await?.into_inner();
        ensure!(
            opened.custodians.len() == 3,
            "{} custodians opened the session",
            opened.custodians.len()
        );
        let lease = LeaseRequest {
            partial: false,
            session_id: opened.session_id,
            key_id: KEY.to_owned(),
            provider: "openai".to_owned(),
            upstream: upstream.to_owned(),
            ttl_ms: 60_000,
            offline_grace_ms: 0,
        };
        Ok(Caller { client, lease })
    }

    async fn call(&self, call: Call) -> anyhow::Result<()> {
        let mut client = self.client.clone();
        match call {
            Call::Empty => {
                let nothing = tokio_stream::empty::<ReportUsageRequest>();
                let answer = client.report_usage(marked(nothing)).await?;
                ensure!(answer.into_inner().accepted == 0, "something was reported");
            }
            Call::Lease => {
                let answer = client.lease(marked(self.lease.clone())).await?.into_inner();
                ensure!(
                    answer.deliveries.len() == 2,
                    "{} shares were delivered",
                    answer.deliveries.len()
                );
            }
        }
        Ok(())
    }

    /// Milliseconds of an empty call, one after the other.
    pub async fn empty_ms(&self) -> anyhow::Result<f64> {
        let mut took = Vec::with_capacity(SINGLE);
        for _ in 0..SINGLE {
            let started = Instant::now();
            self.call(Call::Empty).await?;
            took.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(took))
    }

    async fn lease_ms(&self) -> anyhow::Result<f64> {
        let mut took = Vec::with_capacity(SINGLE);
        for _ in 0..SINGLE {
            let started = Instant::now();
            self.call(Call::Lease).await?;
            took.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(took))
    }
}

async fn rate(callers: &[Caller], in_flight: usize, call: Call) -> anyhow::Result<f64> {
    let started = Instant::now();
    let lines = callers
        .iter()
        .flat_map(|caller| std::iter::repeat_n(caller, in_flight));
    let lines = lines.map(|caller| async move {
        let mut done = 0u32;
        while started.elapsed() < ROUND {
            caller.call(call).await?;
            done += 1;
        }
        Ok::<_, anyhow::Error>(done)
    });
    let done: u32 = try_join_all(lines).await?.into_iter().sum();
    Ok(f64::from(done) / started.elapsed().as_secs_f64())
}
