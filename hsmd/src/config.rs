//! hsmd.toml: parsed strictly, all errors at once, by name and rule and never with a value.

mod hardening;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attest::policy::Rule;
use custody::CustodianId;
use hsm::TokenConfig;
use serde::Deserialize;

use crate::attestation::config::{AttestConfig, Rules};
use crate::terms;

pub use hardening::{Hardening, Require};

/// Why the file is refused: every reason found.
#[derive(Debug, thiserror::Error)]
#[error("{path} is refused:\n  {}", .reasons.join("\n  "))]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// One line per rule broken.
    pub reasons: Vec<String>,
}

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Store, audit log, trust file, latches.
    pub state_dir: PathBuf,
    /// Where agents connect.
    pub workload_socket: PathBuf,
    /// Where `tacit` connects.
    pub admin_socket: PathBuf,
    /// `/live`, `/ready`, `/metrics`.
    pub admin_listen: SocketAddr,
    /// Shares needed to open a key.
    pub threshold: u8,
    /// Every custodian calls approved algorithms and nothing else.
    #[serde(default)]
    pub fips: bool,
    /// Other daemons drive the rest of the custodians. Said, not guessed: a threshold above the number of custodians is a slip anywhere else.
    #[serde(default)]
    pub part: bool,
    /// Group that may connect to the workload socket; the daemon's own when left out.
    #[serde(default)]
    pub workload_group: Option<String>,
    /// Which store.
    #[serde(default)]
    pub store: StoreConfig,
    /// What a key gets when its definition leaves a list out.
    #[serde(default)]
    pub defaults: Defaults,
    /// The audit log.
    #[serde(default)]
    pub audit: AuditConfig,
    /// Who may use the admin socket.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Who may use the workload socket, as what.
    #[serde(default, rename = "caller")]
    pub callers: Vec<CallerRule>,
    /// What the process gives up before it serves.
    #[serde(default)]
    pub hardening: Hardening,
    /// What must be proven of callers.
    #[serde(default)]
    pub attest: AttestConfig,
    /// The same, checked, with the policy that it names.
    #[serde(skip)]
    pub rules: Arc<Rules>,
    /// The tokens.
    #[serde(default, rename = "custodian")]
    pub custodians: Vec<CustodianConfig>,
}

/// `[store]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Only `sqlite` so far.
    #[serde(default)]
    pub kind: StoreKind,
}

/// Kinds of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// One file under `state_dir`.
    #[default]
    Sqlite,
}

/// `[defaults]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Environments of a key that names none.
    pub environments: Vec<String>,
    /// Teams of a key that names none.
    pub teams: Vec<String>,
    /// Models of a key that names none.
    pub models: Vec<String>,
    /// Origins beyond the provider's own.
    pub upstreams: Vec<String>,
    /// Endpoint permissions of a key that names none.
    pub permissions: Vec<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self {
            environments: Vec::new(),
            teams: list(&["*"]),
            models: Vec::new(),
            upstreams: Vec::new(),
            permissions: list(&["chat", "responses", "embeddings", "models"]),
        }
    }
}

/// `[audit]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Files older than this go.
    pub retention_days: u32,
    /// Whether a response completes only when its record is durable. Decisions of this daemon always are.
    pub strict: bool,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            retention_days: 365,
            strict: false,
        }
    }
}

/// `[admin]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// User ids that may use the admin socket.
    pub uids: Vec<u32>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { uids: vec![0] }
    }
}

/// `[[caller]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallerRule {
    /// User id of the agent's process.
    pub uid: u32,
    /// What it acts for.
    pub environments: Vec<String>,
    /// Whom it acts for.
    pub teams: Vec<String>,
}

/// `[[custodian]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodianConfig {
    /// Id; stands in its descriptor.
    pub id: String,
    /// PKCS#11 module.
    pub module: PathBuf,
    /// Label of the token; this and/or the serial.
    #[serde(default)]
    pub token_label: Option<String>,
    /// Serial number of the token.
    #[serde(default)]
    pub serial: Option<String>,
    /// File with the PIN, read by the token process alone.
    pub pin_file: PathBuf,
    /// Environment of the module.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Initialisation string for modules that want one.
    #[serde(default)]
    pub init_args: Option<String>,
    /// This custodian calls approved algorithms and nothing else; the file's own `fips` when left out.
    #[serde(default)]
    pub fips: Option<bool>,
    /// `ecdh-kw` or `rsa-oaep`; found by running it when left out.
    #[serde(default)]
    pub profile: Option<String>,
    /// Socket of a token process that is a service of its own.
    #[serde(default)]
    pub token_socket: Option<PathBuf>,
    /// User id of that service, where the directory of its socket does not vouch for it.
    #[serde(default)]
    pub token_uid: Option<u32>,
    /// Deadline of one PKCS#11 call, such as `5s`.
    #[serde(default)]
    pub call_timeout: Option<String>,
    /// What its token process gives up; only where that is our child: a service is told on its own command line.
    #[serde(default)]
    pub hardening: Hardening,
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`] with every reason.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let refuse = |reasons| ConfigError {
            path: path.to_owned(),
            reasons,
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| refuse(vec![format!("cannot be read: {error}")]))?;
        let mut config: Self =
            toml::from_str(&text).map_err(|error| refuse(vec![without_value(&error, &text)]))?;
        let mut reasons = config.check();
        match config.attest.load() {
            Ok(rules) => config.rules = Arc::new(rules),
            Err(more) => reasons.extend(more),
        }
        if reasons.is_empty() {
            Ok(config)
        } else {
            Err(refuse(reasons))
        }
    }

    /// Every rule between and inside fields.
    fn check(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let n = self.custodians.len();
        let least = if self.part { 1 } else { 2 };
        if !(least..=usize::from(custody::CUSTODIANS_MAX)).contains(&n) {
            reasons.push(format!("[[custodian]]: {least} to 16 are needed"));
        }
        let most = if self.part {
            usize::from(custody::CUSTODIANS_MAX)
        } else {
            n
        };
        if self.threshold < custody::THRESHOLD_MIN || usize::from(self.threshold) > most {
            reasons.push(
                "threshold: must be at least 2 and at most the number of custodians (at most 16 with part = true, where other daemons drive the rest)".to_owned(),
            );
        }
        for (name, path) in [
            ("state_dir", &self.state_dir),
            ("workload_socket", &self.workload_socket),
            ("admin_socket", &self.admin_socket),
        ] {
            if !path.is_absolute() {
                reasons.push(format!("{name}: must be an absolute path"));
            }
        }
        if self.workload_socket == self.admin_socket {
            reasons.push("workload_socket and admin_socket: must differ".to_owned());
        }
        if self.audit.retention_days == 0 {
            reasons.push("[audit] retention_days: must be at least 1".to_owned());
        }
        if let Err(rule) = self.hardening.settings() {
            reasons.push(format!("[hardening] {rule}"));
        }
        for upstream in &self.defaults.upstreams {
            if let Err(error) = upstream.parse::<custody::Upstream>() {
                reasons.push(format!("[defaults] upstreams: {error}"));
            }
        }
        if let Err(error) = terms::permissions(self.defaults.permissions.clone()) {
            reasons.push(format!("[defaults] {error}"));
        }
        if let Err(error) = terms::models(self.defaults.models.clone()) {
            reasons.push(format!("[defaults] {error}"));
        }
        for (at, one) in self.custodians.iter().enumerate() {
            if self.fips && one.fips == Some(false) {
                reasons.push(format!(
                    "[[custodian]] {}: fips: the file sets it for all; take that out to set it for some",
                    at + 1
                ));
            }
            check_custodian(one, &mut |rule: &str| {
                reasons.push(format!("[[custodian]] {}: {rule}", at + 1))
            });
            if self.custodians[..at].iter().any(|other| other.id == one.id) {
                reasons.push(format!("[[custodian]] {}: its id stands twice", at + 1));
            }
        }
        reasons
    }

    /// Users of rules that apps run as, too, as far as that can be known from here: root, whom everything on a host without user
    /// namespaces may be; the daemon's own user, who could ask tokens for itself; and `nobody`, who is everybody that has no name.
    pub fn shared_uids(&self) -> Vec<u32> {
        const NOBODY: u32 = 65_534;
        if self.attest.danger_shared_uid {
            return Vec::new();
        }
        let own = nix::unistd::geteuid().as_raw();
        let by_rule = self.rules.policy.rules().iter().filter_map(Rule::uid);
        let mut uids: Vec<u32> = self
            .callers
            .iter()
            .map(|rule| rule.uid)
            .chain(by_rule)
            .collect();
        uids.retain(|uid| [0, own, NOBODY].contains(uid));
        uids.sort_unstable();
        uids.dedup();
        uids
    }

    /// Where agents open their witness connections.
    pub fn witness_socket(&self) -> PathBuf {
        let mut path = self.workload_socket.clone().into_os_string();
        path.push(custody::witness::WITNESS_SUFFIX);
        path.into()
    }

    /// The trust file that `hsmd init` writes.
    pub fn trust_file(&self) -> PathBuf {
        self.state_dir.join("custodians.json")
    }

    /// How each custodian's token process is reached.
    pub fn tokens(&self) -> Vec<TokenConfig> {
        self.custodians
            .iter()
            .map(|one| {
                let mut token = one.token(&self.state_dir);
                token.attest.clone_from(&self.attest.token_gate);
                token.fips = one.fips.unwrap_or(self.fips);
                token
            })
            .collect()
    }
}

fn check_custodian(one: &CustodianConfig, refuse: &mut dyn FnMut(&str)) {
    if let Err(error) = one.id.parse::<CustodianId>() {
        refuse(&format!("id: {error}"));
    }
    if one.token_label.is_none() && one.serial.is_none() {
        refuse("token_label or serial: one of them finds the token, a slot number never does");
    }
    if !one.module.is_absolute() || !one.pin_file.is_absolute() {
        refuse("module and pin_file: must be absolute paths");
    }
    if one
        .profile
        .as_deref()
        .is_some_and(|name| !matches!(name, "ecdh-kw" | "rsa-oaep"))
    {
        refuse("profile: must be ecdh-kw or rsa-oaep");
    }
    if one
        .call_timeout
        .as_deref()
        .is_some_and(|text| parse_duration(text).is_none_or(|wait| wait.is_zero()))
    {
        refuse("call_timeout: must be a duration such as 5s or 500ms, above 0");
    }
    if let Err(rule) = one.hardening.settings() {
        refuse(&format!("hardening: {rule}"));
    }
    if one.token_socket.is_some() && one.hardening != Hardening::default() {
        refuse(
            "hardening: says nothing to a service with a token_socket; give its tacit-token --hardening-off and the like",
        );
    }
    if one
        .init_args
        .as_deref()
        .is_some_and(|text| text.contains('\0'))
    {
        refuse("init_args: must not contain a NUL byte");
    }
    // An environment variable of that name would put the PIN where every process of the user can read it.
    if one
        .env
        .keys()
        .any(|name| name.to_ascii_uppercase().contains("PIN"))
    {
        refuse("env: a PIN does not belong into an environment; use pin_file");
    }
}

impl CustodianConfig {
    fn token(&self, state_dir: &Path) -> TokenConfig {
        let own = state_dir.join("custodians").join(&self.id);
        let mut token = TokenConfig::new(&self.id, &self.module, &self.pin_file, own);
        token.token_label.clone_from(&self.token_label);
        token.serial.clone_from(&self.serial);
        token.env.clone_from(&self.env);
        token.init_args.clone_from(&self.init_args);
        token.profile.clone_from(&self.profile);
        token.token_socket.clone_from(&self.token_socket);
        token.token_uid = self.token_uid;
        token.hardening = self.hardening.settings().unwrap_or_default();
        if let Some(wait) = self.call_timeout.as_deref().and_then(parse_duration) {
            token.call_timeout = wait;
        }
        token
    }
}

/// `5s`, `500ms`, `2m`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

/// What the TOML reader says, by line and rule, without the text that it quotes: a secret pasted into the wrong field
/// must not reach a terminal or a log.
fn without_value(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(0, |span| {
        text[..span.start.min(text.len())].lines().count().max(1)
    });
    let message = error.message().lines().next().unwrap_or_default();
    let rule = if message.starts_with("unknown field") || message.starts_with("missing field") {
        message.to_owned()
    } else if message.starts_with("invalid type")
        || message.starts_with("unknown variant")
        || message.starts_with("invalid value")
    {
        let expected = message
            .rsplit_once("expected ")
            .map_or("another type", |(_, expected)| expected);
        format!("has a value of the wrong kind: expected {expected}")
    } else {
        "is not valid TOML here".to_owned()
    };
    format!("line {line}: {rule}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const GOOD: &str = r#"
        state_dir = "/var/lib/tacit"
        workload_socket = "/run/tacit/hsmd.sock"
        admin_socket = "/run/tacit/admin.sock"
        admin_listen = "127.0.0.1:4110"
        threshold = 2
        [store]
        kind = "sqlite"
        [[caller]]
        uid = 1000
        environments = ["production"]
        teams = ["engineering"]
        [[custodian]]
        id = "a"
        module = "/usr/lib/softhsm/libsofthsm2.so"
        token_label = "tacit-a"
        pin_file = "/etc/tacit/pin-a"
        env = { SOFTHSM2_CONF = "/var/lib/tacit/softhsm-a/softhsm2.conf" }
        [[custodian]]
        id = "b"
        module = "/usr/lib/softhsm/libsofthsm2.so"
        serial = "77"
        pin_file = "/etc/tacit/pin-b"
        call_timeout = "500ms"
    "#;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path())
    }

    #[test]
    fn the_documented_file_is_read_with_its_defaults() {
        let config = read(GOOD).unwrap();
        assert_eq!(config.admin.uids, [0]);
        assert_eq!(config.defaults, Defaults::default());
        assert_eq!(config.audit.retention_days, 365);
        assert_eq!(config.tokens()[1].call_timeout, Duration::from_millis(500));
    }

    #[test]
    fn all_errors_come_at_once_and_none_quotes_a_value() {
        let bad = GOOD
            .replace("threshold = 2", "threshold = 3")
            .replace("id = \"b\"", "id = \"sk live/secret\"")
            .replace("500ms", "sk-secret-timeout")
            .replace("env = { SOFTHSM2_CONF", "env = { TOKEN_PIN");
        let error = read(&bad).unwrap_err().to_string();
        for part in ["threshold", "id:", "call_timeout", "pin_file"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn fips_is_for_all_or_for_some_and_never_for_all_but_one() {
        let of = |text: &str| -> Vec<bool> {
            let config = read(text).unwrap();
            config.tokens().iter().map(|token| token.fips).collect()
        };
        let all = GOOD.replace("threshold = 2", "threshold = 2\nfips = true");
        let one = |text: &str, value: &str| {
            text.replace("id = \"b\"", &format!("id = \"b\"\nfips = {value}"))
        };
        assert_eq!(of(GOOD), [false, false]);
        assert_eq!(of(&all), [true, true]);
        assert_eq!(of(&one(GOOD, "true")), [false, true]);
        assert_eq!(of(&one(&all, "true")), [true, true]);
        let error = read(&one(&all, "false")).unwrap_err().to_string();
        assert!(error.contains("[[custodian]] 2: fips"), "{error}");
    }

    #[test]
    fn hardening_is_checked_where_it_stands_and_said_to_services_elsewhere() {
        let with = |text: &str| read(&GOOD.replace("[store]", &format!("{text}\n[store]")));
        let good = with("[hardening]\nrequire = true\nconnect = [443]").unwrap();
        assert_eq!(
            good.hardening.settings().unwrap().require,
            confine::Measure::ALL.into()
        );
        let own =
            "call_timeout = \"500ms\"\nhardening = { off = [\"landlock\"], connect = [1792] }";
        let good = read(&GOOD.replace("call_timeout = \"500ms\"", own)).unwrap();
        assert_eq!(good.tokens()[1].hardening.connect, [1792].into());
        let service = format!("{own}\ntoken_socket = \"/run/tacit-token/b/token.sock\"");
        for (bad, named) in [
            (
                with("[hardening]\noff = [\"sk-secret\"]"),
                "[hardening] off",
            ),
            (
                with("[hardening]\nrequire = [\"sk-secret\"]"),
                "[hardening] require",
            ),
            (with("[hardening]\nrequire = \"sk-secret\""), "line"),
            (
                with("[hardening]\noff = [\"no_new_privs\"]"),
                "[hardening] off",
            ),
            (
                read(&GOOD.replace("call_timeout = \"500ms\"", &service)),
                "[[custodian]] 2: hardening",
            ),
        ] {
            let error = bad.unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
            assert!(!error.contains("sk-secret"), "{error}");
        }
    }

    #[test]
    fn default_terms_are_checked_as_those_of_keys_are() {
        let with = |defaults: &str| {
            read(&GOOD.replace("[store]", &format!("[defaults]\n{defaults}\n[store]")))
        };
        let good = with("permissions = [\"*\", \"ephemeral-keys\"]\nmodels = [\"gpt-4o\", \"*\"]")
            .unwrap();
        assert_eq!(good.defaults.permissions, ["*", "ephemeral-keys"]);
        assert!(with("permissions = []\nmodels = []").is_ok());
        for (bad, name) in [
            ("permissions = [\"sk-secret\"]", "permissions"),
            ("models = [\"sk-secret*\"]", "models"),
        ] {
            let error = with(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("[defaults] {name}")), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_unknown_field_is_named_and_a_wrong_type_is_not_quoted() {
        let error = read(&GOOD.replace("threshold = 2", "threshold = 2\ntreshold = 2"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown field `treshold`"), "{error}");
        let error = read(&GOOD.replace("threshold = 2", "threshold = \"sk-secret\""))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("wrong kind") && !error.contains("sk-secret"),
            "{error}"
        );
    }
}
