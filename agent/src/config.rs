//! `agent.toml`: read once, completely, into values that cannot be wrong.
//!
//! Every error in the file is reported at once, by field and rule, and never with the value: a key pasted into the wrong field must not end
//! in a log. This is the only room that reads files and variables for settings.

mod hardening;
mod provider;
mod reader;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use custody::KeyId;

pub use hardening::Memory;
pub use provider::{KeyRef, Live, Provider, Source};
use reader::Fields;
pub use tls::Tls;

/// Where apps reach the agent unless the file says otherwise.
const LISTEN: &str = "127.0.0.1:4100";
/// Where operators do.
const ADMIN_LISTEN: &str = "127.0.0.1:4101";
/// Where the daemon's workload socket is in packages.
const HSMD: &str = "/run/tacit/hsmd.sock";
/// Where the trust file is in packages.
const CUSTODIANS: &str = "/etc/tacit/custodians.json";
/// Long enough that the HSM sees one grant a minute per key and agent, short enough to be a tolerable answer to "and if the revoke does not
/// reach an agent?".
const LEASE_TTL: Duration = Duration::from_secs(60);
/// A day: longer than that, and a lease is a copy of the key.
const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A valid configuration.
#[derive(Debug)]
pub struct Config {
    /// This proxy's name, or empty.
    pub name: String,
    /// Where apps connect.
    pub listen: SocketAddr,
    /// Where apps that insist on TLS connect, if they may.
    pub tls: Option<Tls>,
    /// Where operators connect.
    pub admin_listen: SocketAddr,
    /// Workload sockets of daemons, in order of preference.
    pub hsmd: Vec<PathBuf>,
    /// A user, besides root and our own, that a daemon may run as; one for each socket.
    pub hsmd_uids: Vec<Option<u32>>,
    /// The pod's service account token, which daemons may ask for; read anew for each session.
    pub token_file: Option<PathBuf>,
    /// The trust file.
    pub custodians: PathBuf,
    /// Host names by which apps may call us, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// How leases are kept.
    pub lease: Lease,
    /// What the process gives up before it serves.
    pub hardening: confine::Settings,
    /// Where keys may lie.
    pub memory: Memory,
    /// The routes.
    pub providers: Vec<Provider>,
}

/// `[lease]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// How long a lease is kept; zero: not at all.
    pub ttl: Duration,
    /// How long past that while no daemon is reachable.
    pub offline_grace: Duration,
}

/// Everything that is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{}", .reasons.join("\n"))]
pub struct InvalidConfig {
    /// One line each.
    pub reasons: Vec<String>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`InvalidConfig`] with every reason.
    pub fn load(path: &Path) -> Result<Self, InvalidConfig> {
        let text = std::fs::read_to_string(path).map_err(|error| InvalidConfig {
            reasons: vec![format!("cannot read {}: {}", path.display(), error.kind())],
        })?;
        // The one reading of the environment: a development key that the file names by its variable. Settings never come from there.
        Self::parse(&text, &mut |name| std::env::var_os(name))
    }

    /// Checks the text of a file; variables come from `env`.
    ///
    /// # Errors
    /// [`InvalidConfig`] with every reason.
    pub fn parse(text: &str, env: reader::Env<'_>) -> Result<Self, InvalidConfig> {
        let table = text.parse::<toml::Table>().map_err(|error| {
            // The parser's own text quotes the line, which may hold a key.
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            InvalidConfig {
                reasons: vec![format!("line {line}: not valid TOML")],
            }
        })?;
        let mut reasons = Vec::new();
        let mut fields = Fields::new("", table, &mut reasons);
        let config = Self::read(&mut fields, env);
        fields.finish();
        match config {
            Some(config) if reasons.is_empty() => Ok(config),
            _ => Err(InvalidConfig { reasons }),
        }
    }

    fn read(fields: &mut Fields<'_>, env: reader::Env<'_>) -> Option<Self> {
        let name = fields.text("name").unwrap_or_default();
        if !name.is_empty() && name.parse::<KeyId>().is_err() {
            fields.refuse("name", "must be 1 to 128 of ASCII letters, digits, _ - .");
        }
        let listen = fields.parse("listen", LISTEN, "must be ADDRESS:PORT");
        let admin_listen = fields.parse("admin_listen", ADMIN_LISTEN, "must be ADDRESS:PORT");
        let hsmd = fields
            .texts("hsmd")
            .unwrap_or_else(|| vec![HSMD.to_owned()]);
        let hsmd: Vec<PathBuf> = hsmd
            .into_iter()
            .filter_map(|entry| socket(fields, &entry))
            .collect();
        let hsmd_uids = uids(fields, hsmd.len());
        let custodians = fields
            .text("custodians")
            .unwrap_or_else(|| CUSTODIANS.to_owned())
            .into();
        let token_file = match fields.table("attest") {
            Some(table) => {
                let mut attest = fields.inner("attest", table);
                let path = attest.text("token_file").map(PathBuf::from);
                if path.as_ref().is_some_and(|path| !path.is_absolute()) {
                    attest.refuse("token_file", "must be an absolute path");
                }
                attest.finish();
                path
            }
            None => None,
        };
        let hosts: Vec<String> = fields
            .texts("hosts")
            .unwrap_or_default()
            .into_iter()
            .map(|host| host.to_ascii_lowercase())
            .collect();
        let tls = match fields.table("tls") {
            Some(table) => {
                if !tls::certifiable(&hosts) {
                    fields.refuse(
                        "hosts",
                        "must be DNS names or addresses when there is [tls]",
                    );
                }
                let mut tls = fields.inner("tls", table);
                let read = Tls::read(&mut tls);
                tls.finish();
                Some(read)
            }
            None => None,
        };
        let lease = fields
            .table("lease")
            .map_or(Some(Lease::default()), |table| {
                let mut lease = fields.inner("lease", table);
                let read = Lease::read(&mut lease);
                lease.finish();
                read
            });
        let hardening = fields.table("hardening").map(|table| {
            let mut inner = fields.inner("hardening", table);
            let read = hardening::read(&mut inner);
            inner.finish();
            read
        });
        let memory = fields
            .table("memory")
            .map_or(Some(Memory::default()), |table| {
                let mut inner = fields.inner("memory", table);
                let read = Memory::read(&mut inner);
                inner.finish();
                read
            });
        let tables = fields.tables("providers");
        if tables.is_empty() {
            fields.refuse(
                "providers",
                "must name at least one provider, such as [providers.openai]",
            );
        }
        let mut providers = Vec::new();
        for (name, table) in tables {
            let mut inner = fields.inner(&format!("providers.{name}"), table);
            providers.extend(Provider::read(name, &mut inner, env));
            inner.finish();
        }
        Provider::check_fallbacks(&providers, fields);
        Some(Self {
            name,
            listen: listen?,
            tls: match tls {
                Some(tls) => Some(tls?),
                None => None,
            },
            admin_listen: admin_listen?,
            hsmd,
            hsmd_uids,
            token_file,
            custodians,
            hosts,
            lease: lease?,
            hardening: hardening.unwrap_or_default(),
            memory: memory?,
            providers,
        })
    }
}

/// `hsmd_uid`: one user for all sockets, or a list with one for each.
fn uids(fields: &mut Fields<'_>, sockets: usize) -> Vec<Option<u32>> {
    let is_list = fields.is_list("hsmd_uid");
    if !is_list {
        return vec![fields.number("hsmd_uid"); sockets];
    }
    let uids = fields.numbers("hsmd_uid");
    if uids.len() != sockets {
        fields.refuse(
            "hsmd_uid",
            "must be one number, or a list with one for each socket of hsmd, in that order",
        );
    }
    uids.into_iter().map(Some).collect()
}

/// `unix:/path`, or a bare path.
fn socket(fields: &mut Fields<'_>, entry: &str) -> Option<PathBuf> {
    if entry.starts_with("https://") {
        fields.refuse(
            "hsmd",
            "https:// is reserved and not served yet; name the daemon's Unix socket",
        );
        return None;
    }
    let path = PathBuf::from(entry.strip_prefix("unix:").unwrap_or(entry));
    if !path.is_absolute() {
        fields.refuse("hsmd", "must be absolute paths of Unix sockets");
        return None;
    }
    Some(path)
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            ttl: LEASE_TTL,
            offline_grace: Duration::ZERO,
        }
    }
}

impl Lease {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let ttl = fields.duration("ttl", LEASE_TTL, LEASE_MAX);
        let offline_grace = fields.duration("offline_grace", Duration::ZERO, LEASE_MAX);
        let (ttl, offline_grace) = (ttl?, offline_grace?);
        if ttl.is_zero() && !offline_grace.is_zero() {
            fields.refuse(
                "offline_grace",
                "needs a ttl above 0s: without a cache there is no lease to go on with",
            );
        }
        Some(Self { ttl, offline_grace })
    }
}
