//! What the agent adds to a request with a warm lease: fixed rates through the agent and straight to the provider, in turns.
//!
//! The load is open: request number `k` is due at `k / rate` whatever became of those before it, and its time runs from
//! the moment when it was due. A stall thus counts for every request that it delayed (no coordinated omission).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::ServerName;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tests::fixture;

use crate::figure::{Figure, median, quantile};
use crate::memory;
use crate::rig::{Daemon, Rig};
use crate::upstream::{ANSWER_BYTES, whole};

const RATES: [u32; 2] = [1000, 3000];
/// As many as an SDK pool in a busy app has.
pub const CONNECTIONS: u32 = 32;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
/// Of a whole request, head and body.
const REQUEST_BYTES: usize = 150;
const BODY: &str = r#"{"model":"m"}"#;
/// Before the first request is due: all connections must stand and have done one exchange.
const WARM_UP: Duration = Duration::from_millis(300);

/// Where requests go.
#[derive(Clone)]
pub enum Target {
    /// Plain, to the agent or what stands in its place.
    Proxy(SocketAddr),
    /// TLS, to the provider.
    Direct(SocketAddr, Arc<ClientConfig>),
}

/// One round, in microseconds.
pub struct Round {
    /// Half of the requests took this long or less.
    pub p50: f64,
    /// 99 of 100 did.
    pub p99: f64,
    /// How late requests left, which is the generator's own fault: 99 of 100 left earlier.
    late_p99: f64,
}

/// Measures an agent that is up and has a lease.
pub fn measure(rig: &Rig, agent: &Daemon) -> anyhow::Result<Vec<Figure>> {
    let through = Target::Proxy(agent.address("listen")?.parse()?);
    let direct = Target::Direct(rig.upstream.address(), trusting(rig.upstream.ca_pem())?);
    let mut figures = Vec::new();
    for rate in RATES {
        figures.extend(at(rate, &through, &direct, agent.process.pid())?);
    }
    Ok(figures)
}

fn at(rate: u32, through: &Target, direct: &Target, agent: u32) -> anyhow::Result<Vec<Figure>> {
    let section: &'static str = match rate {
        1000 => "Warm lease, 32 connections, 1000 requests/s",
        _ => "Warm lease, 32 connections, 3000 requests/s",
    };
    let (mut ours, mut theirs, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(round(rate, direct)?);
        let before = memory::cpu_us(agent)?;
        let (measured, requests) = counted(rate, through)?;
        cpu.push((memory::cpu_us(agent)? - before) / requests);
        ours.push(measured);
    }
    let of = |rounds: &[Round], what: fn(&Round) -> f64| median(rounds.iter().map(what).collect());
    let figure = |name: &str, what: fn(&Round) -> f64| {
        Figure::new(section, name, of(&ours, what), "µs").beside("direct TLS", of(&theirs, what))
    };
    let added = |what: fn(&Round) -> f64| {
        let pairs = ours.iter().zip(&theirs);
        median(
            pairs
                .map(|(ours, theirs)| what(ours) - what(theirs))
                .collect(),
        )
    };
    Ok(vec![
        figure("through the agent, p50", |round| round.p50),
        figure("through the agent, p99", |round| round.p99),
        Figure::new(
            section,
            "added by the agent, p50",
            added(|round| round.p50),
            "µs",
        ),
        Figure::new(
            section,
            "added by the agent, p99",
            added(|round| round.p99),
            "µs",
        ),
        figure("requests left late by, p99 (the generator)", |round| {
            round.late_p99
        }),
        Figure::new(section, "CPU of the agent per request", median(cpu), "µs"),
    ])
}

fn round(rate: u32, target: &Target) -> anyhow::Result<Round> {
    counted(rate, target).map(|(round, _)| round)
}

/// One round, and how many requests it made in all.
pub fn counted(rate: u32, target: &Target) -> anyhow::Result<(Round, f64)> {
    let start = Instant::now() + WARM_UP;
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let target = target.clone();
            std::thread::spawn(move || connection(number, rate, &target, start))
        })
        .collect();
    let (mut took, mut late) = (Vec::new(), Vec::new());
    for thread in threads {
        let joined = thread.join();
        let (its_took, its_late) = joined.map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        took.extend(its_took);
        late.extend(its_late);
    }
    let requests = f64::from(u32::try_from(took.len())? + CONNECTIONS);
    took.sort_by(f64::total_cmp);
    late.sort_by(f64::total_cmp);
    let round = Round {
        p50: quantile(&took, 0.5),
        p99: quantile(&took, 0.99),
        late_p99: quantile(&late, 0.99),
    };
    Ok((round, requests))
}

/// Every 32nd request of the schedule, over one connection: how long each took and how late it left, in microseconds.
fn connection(
    number: u32,
    rate: u32,
    target: &Target,
    start: Instant,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    // The kernel may otherwise wake us 50 µs late, to save wake-ups.
    nix::sys::prctl::set_timerslack(1)?;
    let (mut stream, request) = open(target)?;
    let mut buffer = Vec::with_capacity(1024);
    exchange(&mut stream, &request, &mut buffer)?;
    ensure!(
        Instant::now() < start,
        "the connections were not up in time: this machine is too busy"
    );
    let (mut took, mut late) = (Vec::new(), Vec::new());
    let micros = |due: Instant| due.elapsed().as_secs_f64() * 1e6;
    let mut turn = number;
    loop {
        let due = Duration::from_secs_f64(f64::from(turn) / f64::from(rate));
        if due >= ROUND {
            return Ok((took, late));
        }
        let due = start + due;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        late.push(micros(due));
        exchange(&mut stream, &request, &mut buffer)?;
        took.push(micros(due));
        turn += CONNECTIONS;
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn open(target: &Target) -> anyhow::Result<(Box<dyn Stream>, Vec<u8>)> {
    let (Target::Proxy(address) | Target::Direct(address, _)) = target;
    let tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    let host = address.to_string();
    Ok(match target {
        Target::Proxy(_) => (
            Box::new(tcp),
            request(&host, "/openai", fixture::PLACEHOLDER),
        ),
        Target::Direct(address, config) => {
            let name = ServerName::IpAddress(address.ip().into());
            let tls = ClientConnection::new(Arc::clone(config), name)?;
            let stream = StreamOwned::new(tls, tcp);
            (
                Box::new(stream),
                request(&host, "", fixture::key(::tests::upstream::Provider::OpenAi)),
            )
        }
    })
}

/// A TLS client that trusts this authority alone.
pub fn trusting(ca_pem: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A request with this key: 150 bytes, or as many as a longer key needs.
pub fn request(host: &str, prefix: &str, key: &str) -> Vec<u8> {
    let head = format!(
        "POST {prefix}/v1/embeddings HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-length: "
    );
    // Two digits, the blank line, and at least the model.
    let body = REQUEST_BYTES
        .saturating_sub(head.len() + 2 + 4)
        .clamp(BODY.len(), 99);
    format!("{head}{body}\r\n\r\n{BODY:<body$}").into_bytes()
}

fn exchange(
    stream: &mut Box<dyn Stream>,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> anyhow::Result<()> {
    stream.write_all(request)?;
    stream.flush()?;
    let answer = answer(stream, buffer)?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200 ") && answer.len() >= ANSWER_BYTES,
        "a request failed: {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

/// Reads one whole answer.
pub fn answer(stream: &mut impl Read, buffer: &mut Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let mut piece = [0; 1024];
    buffer.clear();
    loop {
        let count = stream.read(&mut piece).context("reading an answer")?;
        if count == 0 {
            bail!("the connection ended inside an answer");
        }
        buffer.extend_from_slice(&piece[..count]);
        if let Some(length) = whole(buffer) {
            ensure!(buffer.len() == length, "more than one answer came");
            return Ok(std::mem::take(buffer));
        }
    }
}
