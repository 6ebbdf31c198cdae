//! The command line as types: what is accepted, and the help that says so. No secret is ever an argument.

mod key;
mod policy;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use key::{
    AddKey, DestroyKey, KeyVerb, Material, RevokeKey, RotateKey, SealKey, SetKey, TestKey,
    VerifyKey, is_tame,
};
pub(crate) use policy::Policy;

/// Hold LLM provider keys as shares in HSM tokens; let workloads use keys that they never see.
#[derive(Debug, Parser)]
#[command(
    name = "tacit",
    version,
    arg_required_else_help = true,
    max_term_width = 120
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Accepted by every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The daemon's admin socket [default: /run/tacit/admin.sock]
    #[arg(long, global = true, env = "TACIT_ADMIN_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The trust file: pinned custodians and sealers [default: custodians.json in the configuration directory]
    #[arg(long, global = true, env = "TACIT_TRUST", value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// The sealer's key: a file, `ssh-agent` (its Ed25519 key that the trust file pins) or `ssh-agent:SHA256:…`
    /// [default: sealer.key in the configuration directory]. A PIV card that holds an Ed25519 key works through an
    /// agent. [env: TACIT_SEALER]
    // Not clap's `env`: `trust pin --sealer NAME=HEX` must know what was typed from what was there before.
    #[arg(long, global = true, value_name = "FILE|ssh-agent")]
    pub(crate) sealer: Option<String>,
    /// Form of the output
    #[arg(long, global = true, value_enum, default_value_t = Form::Table, value_name = "FORM")]
    pub(crate) output: Form,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Table,
    /// For scripts: one JSON document on stdout; refusals as one JSON document on stderr.
    Json,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Agents that the daemon knows, and the key versions that they use
    #[command(subcommand)]
    Agent(AgentVerb),
    /// The daemon's state as one file: made while it serves, verified, and restored by a ceremony
    #[command(subcommand)]
    Backup(BackupVerb),
    /// Custodians (HSM tokens) as the daemon sees them
    #[command(subcommand)]
    Custodian(CustodianVerb),
    /// Run a whole development stack in the foreground: SoftHSM tokens, hsmd and tacit-agent
    Dev(Dev),
    /// Check this machine and the daemon one thing after another, with the next step for what is wrong
    Doctor,
    /// Provider keys: seal, add, rotate, revoke, prove
    #[command(subcommand)]
    Key(KeyVerb),
    /// Start a command whose OpenAI, Anthropic and Gemini SDKs talk to the agent, with placeholder keys
    Run(Run),
    /// The key with which an operator signs what was sealed
    #[command(subcommand)]
    Sealer(SealerVerb),
    /// How the daemon is
    Status,
    /// The trust file: which custodians and sealers are ours
    #[command(subcommand)]
    Trust(TrustVerb),
    /// Verify a statement that `tacit key verify --statement-out` saved, offline
    VerifyStatement {
        /// The saved statement
        file: PathBuf,
    },
}

/// Verbs on agents.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentVerb {
    /// Agents, connected and lately seen
    List,
    /// One agent in full
    Status {
        /// Name or instance; every agent when left out
        name: Option<String>,
    },
    /// Have agents read their configuration again, as on SIGHUP
    Reload {
        /// Name or instance; every agent when left out
        name: Option<String>,
    },
}

/// Verbs on backups.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupVerb {
    /// Write a new backup (mode 0600; an existing file is never overwritten)
    Create {
        /// Where to
        file: PathBuf,
    },
    /// Check a backup offline: who signed it, and every byte
    Verify {
        /// The backup
        file: PathBuf,
    },
    /// Sign the order that `hsmd restore --dry-run --order` wrote: the backup may be restored over what tokens remember
    Accept {
        /// The order
        order: PathBuf,
        /// Where the acceptance goes
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Restore on this machine, where sealer and tokens are at hand: `hsmd restore --dry-run`, accept, `hsmd restore`
    Restore(RestoreBackup),
}

/// Options of `tacit backup restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreBackup {
    /// The backup
    pub(crate) file: PathBuf,
    /// The daemon's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/tacit/hsmd.toml")]
    pub(crate) config: PathBuf,
    /// Open and verify it with the tokens, say what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Verbs on custodians.
#[derive(Debug, Subcommand)]
pub(crate) enum CustodianVerb {
    /// All custodians
    List,
    /// One custodian in full
    Show {
        /// Id as in hsmd.toml
        id: String,
    },
    /// Make a new key for the daemon's store, re-seal all rows under it, drop the old one
    RekeyStore,
    /// Allow one more login after a PIN was refused; correct the PIN file first
    Unlatch {
        /// Id as in hsmd.toml
        id: String,
    },
}

/// Verbs on the sealer.
#[derive(Debug, Subcommand)]
pub(crate) enum SealerVerb {
    /// Create an Ed25519 sealer key (file of mode 0600; an existing one is never overwritten)
    New {
        /// Pin it in the trust file under this name as well
        #[arg(long, value_name = "NAME")]
        pin: Option<String>,
    },
    /// Show the public key and whether the trust file pins it
    Show,
}

/// Verbs on the trust file.
#[derive(Debug, Subcommand)]
pub(crate) enum TrustVerb {
    /// Pinned custodians and sealers, and where the daemon presents something else
    Show,
    /// Accept descriptors that the daemon presents; with `--sealer NAME=HEX`, a sealer's public key instead
    Pin(TrustPin),
}

/// What to pin.
#[derive(Debug, Args)]
pub(crate) struct TrustPin {
    /// Take the descriptors from another trust file (as `hsmd init` writes it) instead of from the daemon
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Shares needed for keys sealed from now on; the daemon's own number when left out
    #[arg(long, value_name = "T")]
    pub(crate) threshold: Option<u8>,
    /// The fingerprints were compared over a second channel: do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Options of `tacit dev`.
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Directory of the stack's state; kept, so that a second start finds the same keys
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Address for apps; goes into a new agent.toml [default: 127.0.0.1:4100]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Print one JSON line when everything is up, instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `tacit run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The agent's address
    #[arg(
        long,
        value_name = "URL",
        env = "TACIT_AGENT",
        default_value = "http://127.0.0.1:4100"
    )]
    pub(crate) agent: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
