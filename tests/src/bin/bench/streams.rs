//! A thousand SSE streams at once for a minute: nothing lost, nothing out of order, little added, and memory that does not grow.
//!
//! The same client first holds as many streams straight to the provider for a while: its figures hold what generator, provider and machine
//! take by themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ::tests::fixture;
use anyhow::{Context as _, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::events::{self, Reader};
use crate::figure::{Figure, Goal, quantile};
use crate::load;
use crate::memory;
use crate::rig::{Daemon, Rig};

const SECTION: &str = "1000 SSE streams, 3 events/s on each";
const STREAMS: usize = 1000;
/// All streams are open for a minute together: 60 s, and the time of opening them.
const EVENTS: usize = 200;
const EVENTS_DIRECT: usize = 45;
/// Between two openings: 200 TLS handshakes a second are what two cores do beside the rest.
const STAGGER: Duration = Duration::from_millis(5);
/// From the last opening to the first look at memory.
const WARM_UP: Duration = Duration::from_secs(5);
/// A leak of one byte per event would be 10 MiB in an hour; this is what an allocator's arenas may still move.
const GROWTH_MAX_MIB: f64 = 1.0;

/// Where streams come from.
#[derive(Clone)]
enum From {
    Agent(SocketAddr),
    Provider(SocketAddr, Arc<ClientConfig>),
}

/// Two ends of each stream are in this process, and two in the agent, which inherits the limit.
const DESCRIPTORS: u64 = 4096;

/// Makes room for all of it.
pub fn raise_descriptors() -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(
        Resource::RLIMIT_NOFILE,
        soft.max(DESCRIPTORS),
        hard,
    )?)
}

/// Measures an agent that is up and has a lease.
pub async fn measure(rig: &Rig, agent: &Daemon) -> anyhow::Result<Vec<Figure>> {
    let provider = rig.upstream.address();
    let direct = From::Provider(provider, load::trusting(rig.upstream.ca_pem())?);
    let through = From::Agent(agent.address("listen")?.parse()?);
    let pid = agent.process.pid();
    let theirs = all(direct, EVENTS_DIRECT).await?;
    let before = memory::rss_kib(pid)?;
    let stop = Arc::new(AtomicBool::new(false));
    let samples = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || sample(pid, &stop)
    });
    let cpu = memory::cpu_us(pid)?;
    let ours = all(through, EVENTS).await?;
    stop.store(true, Ordering::Relaxed);
    let cpu = memory::cpu_us(pid)? - cpu;
    let samples = samples
        .join()
        .map_err(|_| anyhow::anyhow!("the sampler panicked"))??;
    Ok(figures(&ours, &theirs, before, &samples, cpu))
}

#[expect(clippy::cast_precision_loss, reason = "counts of thousands")]
fn figures(ours: &Seen, theirs: &Seen, before: f64, samples: &[f64], cpu: f64) -> Vec<Figure> {
    let figure = |name: &str, value, unit| Figure::new(SECTION, name, value, unit);
    let beside = |name: &str, of: &dyn Fn(&Seen) -> f64, unit| {
        figure(name, of(ours), unit).beside("direct TLS", of(theirs))
    };
    let first = |share| move |seen: &Seen| quantile(&seen.first_us, share);
    let event = |share| move |seen: &Seen| quantile(&seen.event_us, share);
    let (low, high) = samples
        .iter()
        .fold((f64::MAX, f64::MIN), |(low, high), kib| {
            (low.min(*kib), high.max(*kib))
        });
    let added = |of: &dyn Fn(&Seen) -> f64| of(ours) - of(theirs);
    vec![
        figure(
            "events in order, of all due",
            ours.event_us.len() as f64,
            "",
        )
        .beside("due", (STREAMS * EVENTS) as f64)
        .goal(Goal::ShareAtLeast(1.0)),
        beside("connect to first event, p50", &first(0.5), "µs"),
        beside("connect to first event, p99", &first(0.99), "µs"),
        figure("added to the first event, p50", added(&first(0.5)), "µs"),
        beside("an event under way, p50", &event(0.5), "µs"),
        beside("an event under way, p99", &event(0.99), "µs"),
        figure("added to an event, p50", added(&event(0.5)), "µs"),
        figure(
            "CPU of the agent per event, openings included",
            cpu / ours.event_us.len() as f64,
            "µs",
        ),
        figure("RSS of the agent before", before / 1024.0, "MiB"),
        figure(
            "RSS while all streams are open, lowest",
            low / 1024.0,
            "MiB",
        ),
        figure(
            "RSS while all streams are open, highest",
            high / 1024.0,
            "MiB",
        ),
        figure("RSS per stream", (low - before) / STREAMS as f64, "KiB"),
        figure(
            "growth of RSS in a minute (least squares)",
            slope(samples) * 60.0 / 1024.0,
            "MiB",
        )
        .goal(Goal::AtMost(GROWTH_MAX_MIB)),
    ]
}

/// What all streams saw, sorted.
struct Seen {
    first_us: Vec<f64>,
    event_us: Vec<f64>,
}

/// All streams, opened one after the other, read to their ends. Fails if any of them lacks an event or has one in the wrong place.
async fn all(from: From, count: usize) -> anyhow::Result<Seen> {
    let start = Instant::now();
    let streams: Vec<_> = (0..STREAMS)
        .zip(0..)
        .map(|(_, number)| {
            let from = from.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until((start + STAGGER * number).into()).await;
                one(from, count).await
            })
        })
        .collect();
    let mut seen = Seen {
        first_us: Vec::with_capacity(STREAMS),
        event_us: Vec::with_capacity(STREAMS * count),
    };
    let (mut broken, mut why) = (0, None);
    for stream in streams {
        match stream.await? {
            Ok((first, events)) => {
                seen.first_us.push(first);
                seen.event_us.extend(events.iter().map(|us| f64::from(*us)));
            }
            Err(error) => {
                broken += 1;
                why = why.or(Some(error));
            }
        }
    }
    if let Some(why) = why {
        bail!(why.context(format!(
            "{broken} of {STREAMS} streams broke; the first of them"
        )));
    }
    seen.first_us.sort_by(f64::total_cmp);
    seen.event_us.sort_by(f64::total_cmp);
    Ok(seen)
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One stream: microseconds from connecting to the first event, and how long each event was under way.
async fn one(from: From, count: usize) -> anyhow::Result<(f64, Vec<f32>)> {
    let started = Instant::now();
    let (From::Agent(address) | From::Provider(address, _)) = &from;
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let host = address.to_string();
    let (mut stream, request): (Box<dyn Stream>, String) = match &from {
        From::Agent(_) => (
            Box::new(tcp),
            events::request(&host, "/openai", fixture::PLACEHOLDER, count),
        ),
        From::Provider(address, config) => {
            let name = ServerName::IpAddress(address.ip().into());
            let tls = TlsConnector::from(Arc::clone(config))
                .connect(name, tcp)
                .await?;
            let key = fixture::key(::tests::upstream::Provider::OpenAi);
            (Box::new(tls), events::request(&host, "", key, count))
        }
    };
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let (mut reader, mut first) = (Reader::default(), None);
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            bail!(
                "the connection ended after {} of {count} events",
                reader.took_us.len()
            );
        }
        let is_complete = reader.take(&piece[..read])?;
        if first.is_none() && !reader.took_us.is_empty() {
            first = Some(started.elapsed().as_secs_f64() * 1e6);
        }
        if is_complete {
            let first = first.context("a stream without events")?;
            if reader.took_us.len() != count {
                bail!("{} of {count} events came", reader.took_us.len());
            }
            return Ok((first, reader.took_us));
        }
    }
}

/// Resident memory in KiB, every second while all streams are open.
fn sample(pid: u32, stop: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let opening = STAGGER * u32::try_from(STREAMS)?;
    // The first stream ends first.
    let open = events::PERIOD * u32::try_from(EVENTS)?;
    let start = Instant::now();
    let mut samples = Vec::new();
    let mut due = opening + WARM_UP;
    while due < open && !stop.load(Ordering::Relaxed) {
        std::thread::sleep((start + due).saturating_duration_since(Instant::now()));
        samples.push(memory::rss_kib(pid)?);
        due += Duration::from_secs(1);
    }
    Ok(samples)
}

/// Of equally spaced samples, per step.
#[expect(clippy::cast_precision_loss, reason = "a minute has 60 seconds")]
fn slope(samples: &[f64]) -> f64 {
    let count = samples.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = samples.iter().sum::<f64>() / count;
    let (above, below) =
        samples
            .iter()
            .enumerate()
            .fold((0.0, 0.0), |(above, below), (at, value)| {
                let x = at as f64 - middle;
                (above + x * (value - mean), below + x * x)
            });
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_line_and_of_noise_around_a_level() {
        assert_eq!(slope(&[5.0, 7.0, 9.0, 11.0]), 2.0);
        assert_eq!(slope(&[5.0, 6.0, 6.0, 5.0]), 0.0);
    }
}
