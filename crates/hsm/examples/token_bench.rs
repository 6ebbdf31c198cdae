//! Re-wraps per second through the token process's protocol, beside the raw unwrap + wrap rate of the module in the same run.
//!
//! `cargo run --release -p hsm --example token_bench [-- SECONDS]`. The token process is the sibling `tacit-token` of the same
//! build (`cargo build --release -p hsm --bin tacit-token` first). Prints one JSON line.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use custody::p256::KeyPair;
use custody::{Header, ShareRecord, SignedDescriptor, SystemRandom};
use hsm::pin::PinFile;
use hsm::pkcs11::{Token, TokenSettings};
use hsm::token::{Hsm, Wrapper};
use hsm::wire::Ingest;
use hsm::{TokenClient, TokenConfig};
use secret::Secret;
use softhsm::TokenDir;

/// Requests under way at once: what a busy daemon has.
const PIPELINED: usize = 64;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("raw") {
        let numbers: Vec<String> = arguments.collect();
        return raw(Path::new(&numbers[0]), numbers[1].parse().unwrap());
    }
    let seconds: f64 = first.map_or(3.0, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let token = softhsm::up(dir.path(), 1).unwrap().remove(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = config(&token, dir.path());
    let (client, stored) = runtime.block_on(prepare(config.clone()));
    // Alternating halves, so that a busy neighbour on the machine hits both.
    let (mut raw_rates, mut protocol_rates) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        raw_rates.push(raw_in_child(&token, dir.path(), seconds / 3.0));
        protocol_rates.push(runtime.block_on(protocol(&client, &stored, seconds / 3.0)));
    }
    let single = runtime.block_on(single(&client, &stored));
    runtime.block_on(client.shutdown());
    let start = runtime.block_on(start_up(config));
    let best = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max);
    let (raw, protocol) = (best(&raw_rates), best(&protocol_rates));
    println!(
        "{{\"raw_rewraps_per_s\":{raw:.0},\"protocol_rewraps_per_s\":{protocol:.0},\"share_of_raw\":{:.3},\"single_deliver_us\":{single:.0},\"start_up_ms\":{start:.1}}}",
        protocol / raw
    );
}

fn config(token: &TokenDir, dir: &Path) -> TokenConfig {
    let mut config = TokenConfig::new(&token.id, &token.module, &token.pin_file, dir.join("state"));
    config.token_label = Some(token.label.clone());
    config
        .env
        .insert("SOFTHSM2_CONF".into(), token.conf.display().to_string());
    let own = std::env::current_exe().unwrap();
    config.program = Some(own.parent().unwrap().parent().unwrap().join("tacit-token"));
    config
}

/// Milliseconds from nothing to a token process that is logged in and has read its descriptor.
async fn start_up(config: TokenConfig) -> f64 {
    let started = Instant::now();
    let client = TokenClient::start(config);
    client.health().wait_for(hsm::Health::is_up).await.unwrap();
    let took = started.elapsed().as_secs_f64() * 1e3;
    client.shutdown().await;
    took
}

async fn prepare(config: TokenConfig) -> (TokenClient, hsm::wire::Ingested) {
    let client = TokenClient::start(config);
    let signed = SignedDescriptor::parse(&client.init().await.unwrap()).unwrap();
    let header = Header {
        suite: custody::Suite::Aes256GcmSiv,
        key_id: "bench".parse().unwrap(),
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
    let record = ShareRecord::new(1, &Secret::new(Box::new([1; 32])), &header.hash());
    let mut random = SystemRandom::new();
    let sealed = custody::seal::seal_share(
        &signed.descriptor,
        "openai",
        &record,
        &header.hash(),
        &mut random,
    )
    .unwrap();
    let check = record.check_value(&header.hash());
    let ingest = Ingest {
        header: &header.encode(),
        compartment: "openai",
        sealed: &sealed,
        check: &check,
    };
    let stored = client.ingest(ingest).await.unwrap();
    let agent = KeyPair::generate(&mut random);
    client
        .open_session(&[1; 16], agent.public().as_bytes())
        .await
        .unwrap();
    (client, stored)
}

async fn protocol(client: &TokenClient, stored: &hsm::wire::Ingested, seconds: f64) -> f64 {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let started = Instant::now();
    let callers = (0..PIPELINED).map(|_| async {
        let mut done = 0u64;
        while Instant::now() < until {
            client.deliver(&[1; 16], stored.row()).await.unwrap();
            done += 1;
        }
        done
    });
    let done: u64 = futures_util::future::join_all(callers)
        .await
        .into_iter()
        .sum();
    done as f64 / started.elapsed().as_secs_f64()
}

/// Microseconds of one request alone, there and back.
async fn single(client: &TokenClient, stored: &hsm::wire::Ingested) -> f64 {
    let started = Instant::now();
    for _ in 0..2000 {
        client.deliver(&[1; 16], stored.row()).await.unwrap();
    }
    started.elapsed().as_secs_f64() / 2000.0 * 1e6
}

/// The raw loop runs in a process of its own, since SoftHSM reads its configuration from the environment when it starts.
fn raw_in_child(token: &TokenDir, dir: &Path, seconds: f64) -> f64 {
    std::fs::write(
        dir.join("token.json"),
        serde_json::to_string(token).unwrap(),
    )
    .unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("raw")
        .arg(dir.join("token.json"))
        .arg(seconds.to_string())
        .env("SOFTHSM2_CONF", &token.conf)
        .output()
        .unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// Unwrap, wrap, destroy, through the same binding, without protocol, MAC, policy or journal.
fn raw(file: &Path, seconds: f64) {
    let token: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let field = |name: &str| token[name].as_str().unwrap().to_owned();
    let scratch = tempfile::tempdir().unwrap();
    let mut token = Token::new(TokenSettings {
        module: field("module").into(),
        label: Some(field("label")),
        serial: None,
        pin: PinFile::new(Path::new(&field("pin_file")), scratch.path()),
    });
    token.ready().unwrap();
    token.create_kek("bench").unwrap();
    let probe = token.generate_probe().unwrap();
    let wrapped = token.wrap(Wrapper::Kek("bench"), probe).unwrap();
    let started = Instant::now();
    let mut done = 0u64;
    while started.elapsed().as_secs_f64() < seconds {
        for _ in 0..64 {
            let share = token.unwrap(Wrapper::Kek("bench"), &wrapped).unwrap();
            let again = token.wrap(Wrapper::Kek("bench"), share).unwrap();
            assert_eq!(again.len(), wrapped.len());
            token.destroy(share).unwrap();
            done += 1;
        }
    }
    println!("{:.1}", done as f64 / started.elapsed().as_secs_f64());
}
