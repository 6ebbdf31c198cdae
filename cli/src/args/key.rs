//! Arguments of `tacit key`. The secret itself has no argument: it comes on stdin, a prompt, or from a file.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use custody::{KeyId, Upstream};

use super::Policy;

/// Verbs on provider keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Seal a provider key to the custodians of the trust file, offline; prints the sealed key (ciphertext)
    Seal(SealKey),
    /// Seal a provider key and submit it as version 1 of a new key
    Add(Box<AddKey>),
    /// All keys
    List,
    /// One key with its versions, and who can use it
    Show {
        /// Key id
        id: KeyId,
    },
    /// Have every token prove that it still holds its share
    Verify(VerifyKey),
    /// Have connected agents try the key with its provider, by a call that costs no tokens
    Test(TestKey),
    /// Seal a new provider key as the next version and switch the agents to it
    Rotate(RotateKey),
    /// Change who may use a key and for what, without sealing it again; returns when the agents have heard
    Set(Box<SetKey>),
    /// Go back to the previous version
    Rollback {
        /// Key id
        id: KeyId,
        /// Return at once, without waiting for the agents
        #[arg(long)]
        no_wait: bool,
    },
    /// End a key's use now; returns when the last lease is dead. Times are UTC
    Revoke(RevokeKey),
    /// Delete the material of revoked or deactivated versions for good
    Destroy(DestroyKey),
}

/// Where the secret comes from, and what is made beside the sealed key.
#[derive(Debug, Args)]
pub(crate) struct Material {
    /// Read the provider key from a file instead of stdin or a prompt
    #[arg(long, value_name = "FILE")]
    pub(crate) from_file: Option<PathBuf>,
    /// An origin that the key may ever be sent to (repeatable; `*` for any) [default: the provider's own; what the
    /// daemon proposes beyond that is asked about on a terminal, and otherwise refused]
    #[arg(long = "upstream", value_name = "ORIGIN")]
    pub(crate) upstreams: Vec<Upstream>,
    /// Write an operator's receipt with one-time challenges: proof against a lying daemon. Keep it away from the daemon
    #[arg(long, value_name = "FILE", value_parser = file_to_write)]
    pub(crate) receipt: Option<PathBuf>,
    /// How often the receipt can be used
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) receipt_uses: u8,
}

/// `tacit key seal`.
#[derive(Debug, Args)]
pub(crate) struct SealKey {
    /// Key id: ASCII letters, digits, `_`, `-` and `.`
    #[arg(value_parser = new_key_id)]
    pub(crate) id: KeyId,
    #[arg(long, value_name = "P", help = provider_help())]
    pub(crate) provider: KeyId,
    /// Version: 1 for a new key, the next number for a successor
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) version: u32,
    #[command(flatten)]
    pub(crate) material: Material,
}

/// `tacit key add`.
#[derive(Debug, Args)]
pub(crate) struct AddKey {
    /// Key id: ASCII letters, digits, `_`, `-` and `.`
    #[arg(value_parser = new_key_id)]
    pub(crate) id: KeyId,
    #[arg(long, value_name = "P", required_unless_present = "sealed", help = provider_help())]
    pub(crate) provider: Option<KeyId>,
    /// Submit what `tacit key seal` wrote (`-` for stdin) instead of sealing now
    #[arg(long, value_name = "FILE", conflicts_with_all = ["provider", "from_file", "upstreams", "receipt"])]
    pub(crate) sealed: Option<PathBuf>,
    /// Accept although custodians are down: their sealed shares are kept and ingested later
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// Do not have connected agents try the key with its provider afterwards
    #[arg(long)]
    pub(crate) no_test: bool,
    #[command(flatten)]
    pub(crate) material: Material,
    #[command(flatten)]
    pub(crate) policy: Policy,
}

/// `tacit key set`.
#[derive(Debug, Args)]
pub(crate) struct SetKey {
    /// Key id
    pub(crate) id: KeyId,
    /// Take a list back to the daemon's [defaults], or an attribute away (repeatable)
    #[arg(long, value_name = "WHAT", value_parser = RESETTABLE)]
    pub(crate) reset: Vec<String>,
    /// Return at once, without waiting for the agents
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) policy: Policy,
}

/// What `key set --reset` knows.
const RESETTABLE: [&str; 9] = [
    "environments",
    "teams",
    "permissions",
    "models",
    "organization",
    "project",
    "location",
    "resource",
    "region",
];

/// `tacit key rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateKey {
    /// Key id
    pub(crate) id: KeyId,
    /// Provider that the key is of; refused when the daemon names another [default: the daemon's word, which is shown]
    #[arg(long, value_name = "P")]
    pub(crate) provider: Option<KeyId>,
    /// Submit what `tacit key seal --version N` wrote (`-` for stdin) instead of sealing now
    #[arg(long, value_name = "FILE", conflicts_with_all = ["provider", "from_file", "upstreams", "receipt"])]
    pub(crate) sealed: Option<PathBuf>,
    /// Accept although custodians are down: their sealed shares are kept and ingested later
    #[arg(long)]
    pub(crate) allow_missing: bool,
    /// Return at once, without waiting for the agents
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) material: Material,
}

/// `tacit key test`.
#[derive(Debug, Args)]
pub(crate) struct TestKey {
    /// Key id
    pub(crate) id: KeyId,
    /// Name or instance of one agent; every connected agent with a route to the key when left out
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
}

/// `tacit key verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyKey {
    /// Key id
    pub(crate) id: KeyId,
    /// Version; the one in use when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) version: Option<u32>,
    /// Spend one challenge of an operator's receipt: only something that still holds the shares can answer
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    /// 16 to 64 bytes in hex that the statement must repeat; random when left out
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: Option<String>,
    /// Save the signed statement, for `tacit verify-statement`
    #[arg(long, value_name = "FILE", value_parser = file_to_write)]
    pub(crate) statement_out: Option<PathBuf>,
}

/// `tacit key revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeKey {
    /// Key id
    pub(crate) id: KeyId,
    /// One version; every version when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) version: Option<u32>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Others know the key: its versions become `compromised`, not `deactivated`
    #[arg(long)]
    pub(crate) compromised: bool,
    /// Return at once, without waiting for the last lease
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `tacit key destroy`.
#[derive(Debug, Args)]
pub(crate) struct DestroyKey {
    /// Key id
    pub(crate) id: KeyId,
    /// One version; every version when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) version: Option<u32>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Names every provider of the table, so that none is sealed under a name that no route will ever ask for.
fn provider_help() -> String {
    let known: Vec<_> = providers::all().iter().map(|one| one.name).collect();
    format!(
        "Provider: {}; or a name of your own, then with --upstream",
        known.join(", ")
    )
}

/// Whether a name stays a name where scripts put it: as a file, or as an argument.
pub(crate) fn is_tame(name: &str) -> bool {
    !name.starts_with('-') && name != "." && name != ".."
}

/// The id of a key that is made now; one that exists is taken as it is.
fn new_key_id(text: &str) -> Result<KeyId, String> {
    let id: KeyId = text.parse().map_err(|rule| format!("{rule}"))?;
    if is_tame(text) {
        Ok(id)
    } else {
        Err("a new key id neither begins with '-' nor is '.' or '..'".to_owned())
    }
}

/// A file's path; `-` would not be standard output, but a file that the next command takes for an option.
fn file_to_write(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if text.starts_with('-') || path.file_name().is_none() {
        return Err("name a file (./-x for one that begins with '-')".to_owned());
    }
    Ok(path)
}
