//! Why the agent cannot start, and whether that is the configuration's fault.

use std::net::SocketAddr;
use std::path::PathBuf;

use lifecycle::admin;

use crate::listen::AuthorityError;
use crate::trust_roots::RootsError;

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no trust file.
    #[error(
        "there is no trust file at {path}: copy the custodians.json that `hsmd init --config FILE` printed fingerprints of, compare them (`tacit trust show --trust {path}`), then start again"
    )]
    NoTrust {
        /// Where it should be.
        path: PathBuf,
    },
    /// The trust file cannot be used.
    #[error("the trust file {path} cannot be used: {rule}")]
    Trust {
        /// Which file.
        path: PathBuf,
        /// Why.
        rule: String,
    },
    /// No memory could be locked for keys.
    #[error("cannot set up the memory that keys live in")]
    Arena(#[from] secret::ArenaError),
    /// No memory of the tier that is required.
    #[error(
        "[memory] require = \"memfd_secret\" and the kernel gives none: it needs Linux 5.14 with CONFIG_SECRETMEM (before 6.5 also secretmem.enable=1 at boot), a container runtime that lets the call through, and RLIMIT_MEMLOCK above 32 KiB"
    )]
    Tier {
        /// What the system said.
        #[source]
        source: secret::ArenaError,
    },
    /// A route's TLS cannot be set up.
    #[error("providers.{provider}")]
    Roots {
        /// Which route.
        provider: String,
        /// Why.
        #[source]
        source: RootsError,
    },
    /// A route's host cannot be a TLS name.
    #[error("providers.{provider}.base_url: its host cannot be a TLS server name")]
    ServerName {
        /// Which route.
        provider: String,
    },
    /// An address is taken.
    #[error("cannot listen on {addr}; is another process there? Set `listen`")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The certificate authority's file cannot be written.
    #[error("cannot write tls.ca_file {path}; its directory must exist and be ours to write to")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No certificate for apps could be made.
    #[error("cannot set up TLS for apps")]
    Authority(#[from] AuthorityError),
    /// The admin endpoints cannot be had.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// A metric cannot be registered.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// No randomness for names.
    #[error("the system gives no randomness")]
    Random,
}

impl BuildError {
    /// Whether the configuration or its surroundings are at fault (exit 78), not this moment (exit 1).
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::NoTrust { .. }
            | Self::Trust { .. }
            | Self::Roots { .. }
            | Self::CaFile { .. }
            | Self::Tier { .. }
            | Self::ServerName { .. } => true,
            Self::Arena(_)
            | Self::Authority(_)
            | Self::Bind { .. }
            | Self::Admin(_)
            | Self::Metrics(_)
            | Self::Random => false,
        }
    }
}
