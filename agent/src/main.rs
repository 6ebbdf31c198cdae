//! `tacit-agent --config FILE [--check]`: the contents page; the rooms are in the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use agent::agent::Deps;
use agent::clock::BootClock;
use agent::config::Config;
use agent::hardening;
use clap::Parser;
use lifecycle::{announce, drain, logs, metrics, notify, signals};

/// The sidecar: sends an app's requests on with provider keys that the app never sees.
#[derive(Debug, Parser)]
#[command(name = "tacit-agent", version)]
struct Options {
    /// agent.toml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Validate the file and exit
    #[arg(long)]
    check: bool,
    /// Write the bound addresses to this file, as JSON, once everything is bound
    #[arg(long, value_name = "FILE")]
    announce: Option<PathBuf>,
}

/// `EX_USAGE`: the command line or a value in the file.
const EX_USAGE: u8 = 64;
/// `EX_CONFIG`: the file is good, and what it points to is not there.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let code = if error.use_stderr() { EX_USAGE } else { 0 };
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    // Before any thread starts and any key is read.
    if let Err(error) = secret::process::forbid_dumps() {
        return fail(&anyhow::Error::from(error), 1);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(4)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(&options)),
        Err(error) => fail(
            &anyhow::Error::from(error).context("cannot start the runtime"),
            1,
        ),
    }
}

async fn run(options: &Options) -> ExitCode {
    let signals = match signals::Signals::register() {
        Ok(signals) => signals,
        Err(error) => return fail(&error.into(), 1),
    };
    if let Err(error) = logs::init(logs::Format::Text, None) {
        return fail(&error.into(), EX_USAGE);
    }
    let config = match Config::load(&options.config) {
        Ok(config) => config,
        Err(error) => {
            return fail(
                &anyhow::Error::from(error)
                    .context(format!("{} has errors", options.config.display())),
                EX_USAGE,
            );
        }
    };
    if options.check {
        return check(&config, &options.config);
    }
    // Nothing has started a thread yet, and nothing beyond the configuration was read.
    let plan = hardening::plan(&config, &options.config, options.announce.as_deref());
    let confined = match plan.apply(&config.hardening) {
        Ok(confined) => confined,
        Err(error) => return fail(&error.into(), EX_CONFIG),
    };
    confined.report.log();
    let trigger = drain::Trigger::new();
    let reloads = signals.spawn(trigger.clone());
    let registry = prometheus::Registry::new();
    let registered = metrics::register(&registry, "tacit_agent", env!("CARGO_PKG_VERSION"))
        .and_then(|()| metrics::hardening(&registry, confined.report.gauges()));
    if let Err(error) = registered {
        return fail(&error.into(), 1);
    }
    let deps = Deps {
        clock: Arc::new(BootClock),
        drain: trigger.clone(),
        registry,
        config_path: Some(options.config.clone()),
        confined: Some(confined),
    };
    let agent = match config.build(deps).await {
        Ok(agent) => agent,
        Err(error) => {
            let code = if error.is_configuration() {
                EX_CONFIG
            } else {
                1
            };
            return fail(&error.into(), code);
        }
    };
    if let Some(addr) = agent.tls_addr() {
        tracing::info!(tls_listen = %addr, "serving apps that insist on TLS");
    }
    tracing::info!(listen = %agent.addr(), admin = %agent.admin_addr(), "serving");
    if let Some(file) = &options.announce {
        let mut addresses = serde_json::json!({
            "listen": agent.addr().to_string(),
            "admin_listen": agent.admin_addr().to_string(),
        });
        if let Some(addr) = agent.tls_addr() {
            addresses["tls_listen"] = addr.to_string().into();
        }
        if let Err(error) = announce::write(file, &addresses.to_string()) {
            return fail(
                &anyhow::Error::from(error).context(format!("cannot write {}", file.display())),
                1,
            );
        }
    }
    notify::spawn(agent.readiness().clone(), trigger);
    agent.serve(reloads).await;
    tracing::info!("ended");
    ExitCode::SUCCESS
}

fn check(config: &Config, path: &Path) -> ExitCode {
    if config.has_store_keys()
        && let Err(error) = config.trust()
    {
        return fail(&error.into(), EX_CONFIG);
    }
    tracing::info!(file = %path.display(), providers = config.providers.len(), "the configuration is valid");
    ExitCode::SUCCESS
}

#[expect(
    clippy::print_stderr,
    reason = "the last word, also when no logger is there yet"
)]
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("tacit-agent: {error:#}");
    ExitCode::from(code)
}
