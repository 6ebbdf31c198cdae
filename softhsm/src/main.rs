//! `softhsm up`: tokens for development and tests.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// SoftHSM tokens for development and tests.
#[derive(Parser)]
#[command(name = "softhsm", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make sure that DIR holds N initialised tokens, each in a directory of its own.
    Up {
        /// Where the tokens live.
        #[arg(long)]
        dir: PathBuf,
        /// How many.
        #[arg(long, default_value_t = 3)]
        tokens: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> Result<()> {
    let Command::Up { dir, tokens, json } = Cli::parse().command;
    let tokens = softhsm::up(&dir, tokens)?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&tokens)?)?;
        return Ok(());
    }
    for token in tokens {
        writeln!(
            out,
            "{}  label {}  SOFTHSM2_CONF={}  pin file {}",
            token.id,
            token.label,
            token.conf.display(),
            token.pin_file.display()
        )?;
    }
    Ok(())
}
