//! The test provider as a program, for scripts and the demo: OpenAI, Anthropic and Gemini on one listener, or one
//! other provider alone.
//!
//! `upstream --listen 127.0.0.1:0 --dir DIR --key-file provider=FILE… [--as-the-provider]` writes
//! `DIR/ca.pem`, prints one JSON line when it is ready, appends every received byte to `DIR/wire.bin`
//! and a line per request to `DIR/requests.jsonl`, and runs until SIGINT, SIGTERM or the end of a
//! piped standard input (`--until-stdin-ends`, so that a killed script leaves nothing behind).

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use tests::upstream::{Options, Provider, Slots, Upstream};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: upstream [--listen ADDR] --dir DIR --key-file PROVIDER=FILE… [--as-the-provider] [--until-stdin-ends]";

struct Arguments {
    listen: String,
    dir: PathBuf,
    options: Options,
    until_stdin_ends: bool,
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut listen = "127.0.0.1:0".to_owned();
    let (mut dir, mut keys, mut slots, mut until_stdin_ends) =
        (None, Vec::new(), Slots::Canonical, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .with_context(|| format!("{argument} wants a value\n{USAGE}"))
        };
        match argument.as_str() {
            "--listen" => listen = value()?,
            "--dir" => dir = Some(PathBuf::from(value()?)),
            "--key-file" => keys.push(value()?),
            "--as-the-provider" => slots = Slots::AsTheProvider,
            "--until-stdin-ends" => until_stdin_ends = true,
            other => bail!("unknown argument {other}\n{USAGE}"),
        }
    }
    let dir = dir.context(USAGE)?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut options = Options::default()
        .slots(slots)
        .wire_file(dir.join("wire.bin"))
        .requests_file(dir.join("requests.jsonl"));
    for pair in &keys {
        let (provider, file) = pair
            .split_once('=')
            .with_context(|| format!("--key-file {pair}: no '='\n{USAGE}"))?;
        let provider: Provider = provider.parse()?;
        if !Provider::SHARED.contains(&provider) {
            if keys.len() > 1 {
                bail!("{} wants a listener of its own\n{USAGE}", provider.name());
            }
            options = options.alone(provider);
        }
        options = options.key_file(provider, file);
    }
    Ok(Arguments {
        listen,
        dir,
        options,
        until_stdin_ends,
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = arguments()?;
    let upstream = Upstream::start_on(&arguments.listen, arguments.options).await?;
    let ca = arguments.dir.join("ca.pem");
    upstream.write_ca(&ca)?;
    let ready = serde_json::json!({"url": upstream.url(), "ca": ca});
    // Whoever started us may already be gone; the signals end us then.
    let _ = writeln!(std::io::stdout(), "{ready}");

    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = stdin_ends(), if arguments.until_stdin_ends => {}
    }
    Ok(())
}

async fn stdin_ends() {
    let mut stdin = tokio::io::stdin();
    let mut sink = [0; 256];
    while matches!(stdin.read(&mut sink).await, Ok(count) if count > 0) {}
}
