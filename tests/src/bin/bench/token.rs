//! Re-wraps per second through the token process's protocol, beside the raw unwrap + wrap + destroy rate of the module.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use custody::p256::KeyPair;
use custody::{Header, ShareRecord, SignedDescriptor, SystemRandom};
use futures_util::future::try_join_all;
use hsm::client::Evidence;
use hsm::pin::PinFile;
use hsm::pkcs11::{Token, TokenSettings};
use hsm::token::{Hsm as _, Outcome, Wrapper};
use hsm::wire::{Ingest, Ingested};
use hsm::{HsmError, TokenClient, TokenConfig};
use secret::Secret;
use softhsm::TokenDir;

use crate::figure::{Figure, Goal, median};

const SECTION: &str = "Token process (one SoftHSM token, ecdh-kw)";
/// Requests under way at once: what a busy daemon has.
const PIPELINED: usize = 64;
/// Requests one by one.
const SINGLE: usize = 2000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
const SESSION: [u8; 16] = [1; 16];

/// Measures on a token of its own.
pub async fn measure() -> anyhow::Result<Vec<Figure>> {
    let dir = tempfile::Builder::new()
        .prefix("tacit-bench-token-")
        .tempdir()?;
    let token = softhsm::up(dir.path(), 1)?.remove(0);
    let (client, stored) = prepare(config(&token, dir.path())).await?;
    let (mut raw, mut protocol) = (Vec::new(), Vec::new());
    // In turns, so that a busy neighbour on the machine hits both.
    for _ in 0..ROUNDS {
        raw.push(raw_in_child(&token, dir.path())?);
        protocol.push(pipelined(&client, &stored).await?);
    }
    let single = single(&client, &stored).await?;
    client.shutdown().await;
    Ok(vec![
        Figure::new(
            SECTION,
            format!("re-wraps/s, {PIPELINED} in flight"),
            median(protocol),
            "/s",
        )
        .beside("raw unwrap + wrap + destroy", median(raw))
        .goal(Goal::ShareAtLeast(0.8)),
        Figure::new(SECTION, "one re-wrap alone, there and back", single, "µs"),
    ])
}

/// Raw re-wraps per second on a token of its own.
pub fn raw_rate() -> anyhow::Result<f64> {
    let dir = tempfile::Builder::new()
        .prefix("tacit-bench-token-")
        .tempdir()?;
    let token = softhsm::up(dir.path(), 1)?.remove(0);
    raw_in_child(&token, dir.path())
}

fn config(token: &TokenDir, dir: &Path) -> TokenConfig {
    let mut config = TokenConfig::new(&token.id, &token.module, &token.pin_file, dir.join("state"));
    config.token_label = Some(token.label.clone());
    config
        .env
        .insert("SOFTHSM2_CONF".into(), token.conf.display().to_string());
    config
}

/// An initialised token with one share on it and one session open.
async fn prepare(config: TokenConfig) -> anyhow::Result<(TokenClient, Ingested)> {
    let client = TokenClient::start(config);
    let signed = SignedDescriptor::parse(&client.init().await?)?;
    let header = Header {
        suite: custody::Suite::Aes256GcmSiv,
        key_id: "bench".parse()?,
        version: 1,
        generation: 1,
        provider: "openai".into(),
        upstreams: vec![custody::Upstream::Any],
        threshold: 2,
        custodians: vec![
            signed.descriptor.fingerprint(),
            custody::Fingerprint::new([9; 32]),
        ],
        sealer: custody::SealerKey::new([7; 32]),
        created_at: 0,
        commitment: [0; 32],
    };
    let hash = header.hash();
    let record = ShareRecord::new(1, &Secret::new(Box::new([1; 32])), &hash);
    let mut random = SystemRandom::new();
    let sealed =
        custody::seal::seal_share(&signed.descriptor, "openai", &record, &hash, &mut random)?;
    let ingest = Ingest {
        header: &header.encode(),
        compartment: "openai",
        sealed: &sealed,
        check: &record.check_value(&hash),
    };
    let stored = client.ingest(ingest).await?;
    let agent = KeyPair::generate(&mut random);
    client
        .open_session(&SESSION, agent.public().as_bytes(), &Evidence::default())
        .await?;
    Ok((client, stored))
}

async fn pipelined(client: &TokenClient, stored: &Ingested) -> anyhow::Result<f64> {
    let started = Instant::now();
    let callers = (0..PIPELINED).map(|_| async {
        let mut done = 0u32;
        while started.elapsed() < ROUND {
            client.deliver(&SESSION, stored.row()).await?;
            done += 1;
        }
        Ok::<_, HsmError>(done)
    });
    let done: u32 = try_join_all(callers).await?.into_iter().sum();
    Ok(f64::from(done) / started.elapsed().as_secs_f64())
}

/// Microseconds of one request while there is no other.
async fn single(client: &TokenClient, stored: &Ingested) -> anyhow::Result<f64> {
    let mut took = Vec::with_capacity(SINGLE);
    for _ in 0..SINGLE {
        let started = Instant::now();
        client.deliver(&SESSION, stored.row()).await?;
        took.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(took))
}

/// The raw loop runs in a process of its own: SoftHSM reads its configuration from the environment when it starts.
fn raw_in_child(token: &TokenDir, dir: &Path) -> anyhow::Result<f64> {
    let scratch = dir.join("raw");
    std::fs::create_dir_all(&scratch)?;
    let output = Command::new(std::env::current_exe()?)
        .arg("raw")
        .args([&token.module, &token.pin_file, &scratch])
        .arg(&token.label)
        .env("SOFTHSM2_CONF", &token.conf)
        .output()?;
    ensure!(
        output.status.success(),
        "the raw loop failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rate = String::from_utf8_lossy(&output.stdout);
    rate.trim().parse().context("the raw loop prints its rate")
}

/// Unwrap, wrap, destroy through the same binding: without protocol, MAC, policy and journal. Rate per second.
pub fn raw(module: &str, pin_file: &str, scratch: &str, label: &str) -> anyhow::Result<f64> {
    let mut token = Token::new(TokenSettings {
        module: module.into(),
        label: Some(label.to_owned()),
        serial: None,
        init_args: None,
        fips: false,
        pin: PinFile::new(Path::new(pin_file), Path::new(scratch)),
    });
    done(token.ready())?;
    // A second round finds the first one's.
    done(token.create_kek("bench"))?;
    let probe = done(token.generate_probe())?;
    let wrapped = done(token.wrap(Wrapper::Kek("bench"), probe))?;
    let started = Instant::now();
    let mut rounds = 0u32;
    while started.elapsed() < ROUND {
        for _ in 0..64 {
            let share = done(token.unwrap(Wrapper::Kek("bench"), &wrapped))?;
            let again = done(token.wrap(Wrapper::Kek("bench"), share))?;
            ensure!(
                again.len() == wrapped.len(),
                "a wrapped share changed its length"
            );
            done(token.destroy(share))?;
            rounds += 1;
        }
    }
    Ok(f64::from(rounds) / started.elapsed().as_secs_f64())
}

fn done<T>(outcome: Outcome<T>) -> Result<T, HsmError> {
    outcome.map_err(|fault| fault.error)
}
