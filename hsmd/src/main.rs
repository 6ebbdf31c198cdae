//! `hsmd`: arguments, hardening, logs, configuration, then [`hsmd::run`].
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hsmd::config::{Config, ConfigError};
use hsmd::run::NoTrustFile;
use lifecycle::{logs, signals};

/// Exit codes as in sysexits.h: the supervisor tells a mistake from a fault.
const USAGE: u8 = 64;
const CONFIG: u8 = 78;

/// The Tacit daemon: holds provider keys as shares in HSM tokens and releases them, re-wrapped, to agents.
#[derive(Debug, Parser)]
#[command(name = "hsmd", version, about)]
struct Args {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/tacit/hsmd.toml"
    )]
    config: PathBuf,
    /// Check the configuration file and exit.
    #[arg(long)]
    check: bool,
    /// Write the bound addresses to this file, as JSON, once everything is bound.
    #[arg(long, value_name = "FILE")]
    announce: Option<PathBuf>,
    /// Log as JSON lines instead of text. The filter is taken from TACIT_LOG.
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create what is missing on each token, print fingerprints, write custodians.json. A second run changes nothing.
    Init,
    /// Make a backup the state of this machine: a ceremony that takes t of its tokens and a sealer's acceptance.
    Restore(hsmd::restore::Options),
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // To standard output for --help and --version, to standard error otherwise; a closed one is nobody's fault.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(
                clippy::print_stderr,
                reason = "the last word of a daemon that could not start, whatever its log filter"
            )]
            {
                eprintln!("hsmd: {error:#}");
            }
            let config = error.is::<NoTrustFile>()
                || error.is::<hsmd::config::ConfigError>()
                || error.is::<confine::ApplyError>();
            ExitCode::from(if config { CONFIG } else { 1 })
        }
    }
}

/// What would start and should not be run: only `--check` refuses it, the daemon warns.
fn refuse_shared_uids(config: &Config, path: &Path) -> anyhow::Result<()> {
    let reasons: Vec<String> = config
        .shared_uids()
        .into_iter()
        .map(|uid| format!("a rule is for uid {uid}, which apps may run as, too: give tacit-agent a user of its own, or set [attest] danger_shared_uid = true for development"))
        .collect();
    if reasons.is_empty() {
        return Ok(());
    }
    Err(ConfigError {
        path: path.to_owned(),
        reasons,
    }
    .into())
}

/// Everything that must come before the second thread: what is given up then is given up by all of them.
fn start(args: Args) -> anyhow::Result<()> {
    secret::process::forbid_dumps()?;
    logs::init(
        if args.log_json {
            logs::Format::Json
        } else {
            logs::Format::Text
        },
        None,
    )?;
    let config = Config::read(&args.config)?;
    let serves = args.command.is_none() && !args.check;
    let confined = match serves {
        true => Some(confine(&config, &args)?),
        // `init` and `restore` are operators' commands: they make directories and files wherever the configuration says.
        false => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let signals = signals::Signals::register()?;
        match (args.command, confined) {
            (Some(Command::Init), _) => hsmd::init::run(&config, &mut std::io::stdout()).await,
            (Some(Command::Restore(options)), _) => {
                hsmd::restore::run(&config, &options, &mut std::io::stdout()).await
            }
            (None, None) => refuse_shared_uids(&config, &args.config),
            (None, Some(report)) => {
                let start = hsmd::run::Start {
                    config_path: &args.config,
                    announce: args.announce.as_deref(),
                    signals,
                    hardening: report,
                };
                hsmd::run::run(config, start).await
            }
        }
    })
}

fn confine(config: &Config, args: &Args) -> anyhow::Result<confine::Report> {
    let plan = hsmd::hardening::plan(config, &args.config, args.announce.as_deref())
        .map_err(anyhow::Error::msg)?;
    let report = plan.apply(&hsmd::hardening::settings(config))?.report;
    report.log();
    Ok(report)
}
