//! The operator's command: one file per noun, and nothing that a noun does not need.
//!
//! It seals keys where the operator is, with the trust file and a sealer alone, and asks the daemon over its admin
//! socket for everything else. What it must never do: take a secret from the command line, print one, or believe a
//! daemon where the trust file can tell.
//!
//! Reading order: [`run`] parses the arguments (`args`), settles paths (`config`) and goes to the noun:
//! `trust`, `sealer`, `key/`, `backup`, `custodian`, `agent`, `status`, `doctor`, `dev/`, `launch`. `client` is the only room
//! with tonic types besides the noun that reads a response; `output` the only one that prints.
#![forbid(unsafe_code)]

mod agent;
mod args;
mod backup;
mod client;
mod config;
mod custodian;
mod dev;
mod doctor;
mod failure;
mod files;
mod key;
mod launch;
mod output;
mod place;
mod sealer;
mod ssh_agent;
mod status;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
mod terminal;
mod trust;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use config::Paths;
use output::Output;

/// What a command answers when it did what it was asked; `Ok(false)` is a negative finding that was already shown.
type Answer = anyhow::Result<bool>;

/// Parses the arguments, runs the command, and says how it ended: 0 done, 1 refused or failed, 2 usage.
pub fn run() -> ExitCode {
    let cli = Cli::parse(); // exits with 2 itself
    let output = Output::new(cli.global.output);
    // One thread: a command waits for one thing at a time, and `dev` needs its children's parent thread to stay.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answer = match runtime {
        Ok(runtime) => runtime.block_on(command(cli, &output)),
        Err(error) => Err(anyhow::Error::new(error).context("cannot start the runtime")),
    };
    match answer {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => output.failure(&error),
    }
}

async fn command(cli: Cli, output: &Output) -> Answer {
    if meets_secrets(&cli.command) {
        secret::process::forbid_dumps()?;
    }
    let paths = Paths::settle(&cli.global)?;
    match cli.command {
        Command::Agent(verb) => agent::run(verb, &paths, output).await,
        Command::Backup(verb) => backup::run(verb, &paths, output).await,
        Command::Custodian(verb) => custodian::run(verb, &paths, output).await,
        Command::Dev(options) => dev::run(options, output).await,
        Command::Doctor => doctor::run(&paths, output).await,
        Command::Key(verb) => key::run(verb, &paths, output).await,
        Command::Run(options) => launch::run(&options, output),
        Command::Sealer(verb) => sealer::run(verb, &paths, output),
        Command::Status => status::run(&paths, output).await,
        Command::Trust(verb) => trust::run(verb, &paths, output).await,
        Command::VerifyStatement { file } => key::verify::offline(&file, &paths, output),
    }
}

/// Whether a provider key or a sealer's passes through the process: then it leaves no core and is read by nobody. The
/// others start programs of the user's, which must not inherit that they may gain no privileges.
fn meets_secrets(command: &Command) -> bool {
    match command {
        // Accepting a backup is signed with a sealer's key.
        Command::Backup(_) | Command::Key(_) | Command::Sealer(_) => true,
        Command::Agent(_)
        | Command::Custodian(_)
        | Command::Dev(_)
        | Command::Doctor
        | Command::Run(_)
        | Command::Status
        | Command::Trust(_)
        | Command::VerifyStatement { .. } => false,
    }
}
