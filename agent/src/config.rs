//! `agent.toml`: read once, completely, into values that cannot be wrong.
//!
//! Every error in the file is reported at once, by field and rule, and never with the value: a key pasted into the wrong field must not end
//! in a log. This is the only room that reads files and variables for settings.

mod reader;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use custody::{KeyId, Origin};
use providers::Family;
use secret::Secret;

use reader::Fields;

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
    /// Where operators connect.
    pub admin_listen: SocketAddr,
    /// Workload sockets of daemons, in order of preference.
    pub hsmd: Vec<PathBuf>,
    /// A user, besides root and our own, that a daemon may run as.
    pub hsmd_uid: Option<u32>,
    /// The trust file.
    pub custodians: PathBuf,
    /// Host names by which apps may call us, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// How leases are kept.
    pub lease: Lease,
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

/// One `[providers.NAME]`.
#[derive(Debug)]
pub struct Provider {
    /// The path prefix, and the provider that must stand in the key's header.
    pub name: String,
    /// The API that it speaks.
    pub family: Family,
    /// Where its key is.
    pub key: KeyRef,
    /// Where its requests go.
    pub origin: Origin,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// `secret_key_ref`.
#[derive(Debug)]
pub enum KeyRef {
    /// A key in the daemon's store.
    Store(KeyId),
    /// A value that was read from a file or a variable, for development.
    Fixed(Secret<[u8]>),
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
        let hsmd_uid = fields.number("hsmd_uid");
        let custodians = fields
            .text("custodians")
            .unwrap_or_else(|| CUSTODIANS.to_owned())
            .into();
        let hosts = fields
            .texts("hosts")
            .unwrap_or_default()
            .into_iter()
            .map(|host| host.to_ascii_lowercase())
            .collect();
        let lease = fields
            .table("lease")
            .map_or(Some(Lease::default()), |table| {
                let mut lease = fields.inner("lease", table);
                let read = Lease::read(&mut lease);
                lease.finish();
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
        Some(Self {
            name,
            listen: listen?,
            admin_listen: admin_listen?,
            hsmd,
            hsmd_uid,
            custodians,
            hosts,
            lease: lease?,
            providers,
        })
    }
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

impl Provider {
    fn read(name: String, fields: &mut Fields<'_>, env: reader::Env<'_>) -> Option<Self> {
        if name.parse::<KeyId>().is_err() {
            fields.refuse("name", "must be 1 to 128 of ASCII letters, digits, _ - .");
        }
        let known = providers::find(&name);
        let family = match (fields.text("family"), known) {
            (None, Some(provider)) => Some(provider.family),
            (None, None) => {
                fields.refuse(
                    "family",
                    "is required for a provider of your own: openai, anthropic or gemini",
                );
                None
            }
            (Some(_), Some(_)) => {
                fields.refuse(
                    "family",
                    "is fixed for a provider that Tacit knows; leave it out",
                );
                None
            }
            (Some(family), None) => Family::find(&family).or_else(|| {
                fields.refuse("family", "must be openai, anthropic or gemini");
                None
            }),
        };
        match fields.text("mode").as_deref() {
            None | Some("live") => {}
            Some("mock") => fields.refuse(
                "mode",
                "mock is not in this version; leave it out, or say live",
            ),
            Some(_) => fields.refuse("mode", "must be live"),
        }
        if fields.any("target").is_some() {
            fields.refuse(
                "target",
                "several keys per provider are not in this version; use one secret_key_ref",
            );
        }
        let origin = Self::origin(fields, known.map(|provider| provider.default_origin));
        let ca_file = fields.text("ca_file").map(PathBuf::from);
        let key = Self::key(fields, env);
        Some(Self {
            name,
            family: family?,
            key: key?,
            origin: origin?,
            ca_file,
        })
    }

    fn origin(fields: &mut Fields<'_>, default: Option<&str>) -> Option<Origin> {
        let Some(text) = fields
            .text("base_url")
            .or_else(|| default.map(str::to_owned))
        else {
            fields.refuse("base_url", "is required for a provider of your own");
            return None;
        };
        // The rule's text never repeats the value.
        text.parse::<Origin>()
            .map_err(|rule| fields.refuse("base_url", &rule.to_string()))
            .ok()
    }

    fn key(fields: &mut Fields<'_>, env: reader::Env<'_>) -> Option<KeyRef> {
        const RULE: &str = "is required: { store = \"KEY-ID\" }, or for development { file = \"PATH\" } or { env = \"NAME\" }";
        let Some(table) = fields.table("secret_key_ref") else {
            fields.refuse("secret_key_ref", RULE);
            return None;
        };
        let mut inner = fields.inner("secret_key_ref", table);
        let refs = (inner.text("store"), inner.text("file"), inner.text("env"));
        let key = match refs {
            (Some(id), None, None) => id
                .parse()
                .map(KeyRef::Store)
                .map_err(|rule: custody::NameError| inner.refuse("store", &rule.to_string()))
                .ok(),
            (None, Some(path), None) => {
                let read = secret::read_file(Path::new(&path));
                read.map(KeyRef::Fixed)
                    .map_err(|error| inner.refuse("file", reader::secret_rule(&error)))
                    .ok()
            }
            (None, None, Some(name)) => inner.secret_from_env(&name, env).map(KeyRef::Fixed),
            _ => {
                inner.refuse("", "must have exactly one of store, file, env");
                None
            }
        };
        inner.finish();
        key
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let mut env = |name: &str| (name == "DEV_KEY").then(|| "sk-development".into());
        Config::parse(text, &mut env).map_err(|error| error.to_string())
    }

    const FULL: &str = r#"
name = "px_acme_prod"
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
hsmd = ["/run/tacit/hsmd.sock", "unix:/run/other.sock"]
custodians = "/etc/tacit/custodians.json"
[lease]
ttl = "0s"
[providers.openai]
secret_key_ref = { store = "openai-prod" }
base_url = "https://gateway.example:8443"
mode = "live"
[providers.llm-internal]
family = "openai"
base_url = "https://llm.internal.example"
secret_key_ref = { env = "DEV_KEY" }
"#;

    #[test]
    fn reads_every_field_of_the_contract() {
        let config = parse(FULL).unwrap();
        assert_eq!(config.name, "px_acme_prod");
        assert_eq!(config.hsmd[1], Path::new("/run/other.sock"));
        assert_eq!(config.lease.ttl, Duration::ZERO);
        let openai = config
            .providers
            .iter()
            .find(|p| p.name == "openai")
            .unwrap();
        assert_eq!(openai.origin.to_string(), "https://gateway.example:8443");
        assert!(matches!(&openai.key, KeyRef::Store(id) if id.as_str() == "openai-prod"));
    }

    #[test]
    fn the_shortest_file_has_defaults() {
        let config = parse("[providers.gemini]\nsecret_key_ref = { store = \"g\" }").unwrap();
        assert_eq!(config.listen.to_string(), LISTEN);
        assert_eq!(
            config.lease,
            Lease {
                ttl: Duration::from_secs(60),
                offline_grace: Duration::ZERO
            }
        );
        assert_eq!(
            config.providers[0].origin.to_string(),
            "https://generativelanguage.googleapis.com"
        );
    }

    #[test]
    fn reports_every_error_at_once_and_no_value() {
        let text = r#"
listen = "sk-secret-1"
hsmd = ["https://sk-secret-2"]
colour = "sk-secret-3"
[lease]
ttl = "sk-secret-4"
[providers.openai]
secret_key_ref = { store = "sk secret 5" }
base_url = "http://sk-secret-6.example"
mode = "mock"
[providers.mine]
secret_key_ref = { env = "MISSING" }
"#;
        let error = parse(text).unwrap_err();
        for field in [
            "listen:",
            "hsmd:",
            "colour:",
            "lease.ttl:",
            "providers.openai.secret_key_ref.store:",
            "providers.openai.base_url:",
            "providers.openai.mode:",
            "providers.mine.family:",
            "providers.mine.base_url:",
            "providers.mine.secret_key_ref.env:",
        ] {
            assert!(error.contains(field), "{field} in\n{error}");
        }
        assert!(
            !error.contains("secret-") && !error.contains("secret 5"),
            "{error}"
        );
    }

    #[test]
    fn neighbours_of_good_values_are_refused() {
        for (from, to) in [
            ("\"0s\"", "\"0\""),
            ("\"0s\"", "\"25h\""),
            ("\"0s\"", "0"),
            ("\"live\"", "\"Live\""),
            (
                "{ store = \"openai-prod\" }",
                "{ store = \"a\", file = \"/b\" }",
            ),
            ("{ store = \"openai-prod\" }", "\"openai-prod\""),
            (
                "{ store = \"openai-prod\" }",
                "{ file = \"/nonexistent/key\" }",
            ),
            (
                "https://gateway.example:8443",
                "https://gateway.example:8443/v1",
            ),
            (
                "https://gateway.example:8443",
                "http://gateway.example:8443",
            ),
            ("family = \"openai\"", "family = \"bedrock\""),
            ("ttl = \"0s\"", "ttl = \"0s\"\noffline_grace = \"1s\""),
        ] {
            assert!(FULL.contains(from));
            assert!(parse(&FULL.replacen(from, to, 1)).is_err(), "{to}");
        }
        let broken = parse("listen = sk-secret").unwrap_err();
        assert!(
            broken.contains("line 1") && !broken.contains("sk-"),
            "{broken}"
        );
    }
}
