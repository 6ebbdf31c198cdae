//! How a custodian's token is reached: what `[[custodian]]` in hsmd.toml says, parsed by the daemon and handed over here.
//!
//! A PIN never stands here: the token process reads the PIN file itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The deadline of one call when the configuration names none. A network HSM under load answers within a second; past five
/// the caller's own deadline has gone and the token process is better replaced.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything the client needs to start, or reach, the token process of one custodian.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// The custodian's id, as in the configuration, metrics and descriptor.
    pub id: String,
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// The token's label; this and/or the serial find it, never a slot number.
    pub token_label: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// The file that holds the PIN. Only its path passes through the daemon.
    pub pin_file: PathBuf,
    /// Environment for the module (`SOFTHSM2_CONF`, …); the token process gets this and little else.
    pub env: BTreeMap<String, String>,
    /// Initialisation string for modules that want one (NSS). It is no secret: other users see a program's arguments.
    pub init_args: Option<String>,
    /// Nothing but approved algorithms; see [`crate::fips`].
    pub fips: bool,
    /// A profile the operator pinned: `ecdh-kw` or `rsa-oaep`; otherwise `init` picks by running.
    pub profile: Option<String>,
    /// A token process that runs as a service of its own; `None` starts a child.
    pub token_socket: Option<PathBuf>,
    /// The user that the service behind `token_socket` runs as. `None` accepts, beside root and our own user, the owner of
    /// the socket's directory, if nobody else can write there and only root or we can put another one in its place.
    pub token_uid: Option<u32>,
    /// Deadline of one call.
    pub call_timeout: Duration,
    /// Where the child keeps the PIN latch and the list of poisoned inputs. One directory per custodian, created 0700.
    pub state_dir: PathBuf,
    /// What the token process gives up before it loads the module.
    pub hardening: confine::Settings,
    /// The gate file of the child: whom it opens sessions for. A service of its own has its own.
    pub attest: Option<PathBuf>,
    /// The `tacit-token` binary; `None` takes the sibling of the current executable.
    pub program: Option<PathBuf>,
}

impl TokenConfig {
    /// A configuration with the defaults for everything that is optional.
    pub fn new(
        id: impl Into<String>,
        module: impl Into<PathBuf>,
        pin_file: impl Into<PathBuf>,
        state_dir: impl Into<PathBuf>,
    ) -> TokenConfig {
        TokenConfig {
            id: id.into(),
            module: module.into(),
            token_label: None,
            serial: None,
            pin_file: pin_file.into(),
            env: BTreeMap::new(),
            init_args: None,
            fips: false,
            profile: None,
            token_socket: None,
            token_uid: None,
            call_timeout: CALL_TIMEOUT,
            state_dir: state_dir.into(),
            hardening: confine::Settings::default(),
            attest: None,
            program: None,
        }
    }

    /// The arguments with which `tacit-token` drives this token as a child: its socket is standard input.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            "--id".into(),
            (&self.id).into(),
            "--module".into(),
            (&self.module).into(),
            "--pin-file".into(),
            (&self.pin_file).into(),
            "--state-dir".into(),
            (&self.state_dir).into(),
            "--call-timeout-ms".into(),
            self.call_timeout.as_millis().to_string().into(),
            "--fips".into(),
            self.fips.to_string().into(),
            "--fd".into(),
            "0".into(),
        ];
        let optional = [
            ("--token-label", &self.token_label),
            ("--serial", &self.serial),
            ("--profile", &self.profile),
            ("--init-args", &self.init_args),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                arguments.push(name.into());
                arguments.push(value.into());
            }
        }
        if let Some(gate) = &self.attest {
            arguments.push("--attest".into());
            arguments.push(gate.into());
        }
        let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        for path in &self.hardening.write {
            add("--allow-write", path.into());
        }
        for port in &self.hardening.connect {
            add("--allow-connect", port.to_string().into());
        }
        for measure in &self.hardening.off {
            add("--hardening-off", measure.name().into());
        }
        for measure in &self.hardening.require {
            add("--hardening-require", measure.name().into());
        }
        arguments
    }
}
