//! Where things are: the only room that reads the environment.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::args::Global;

/// Where the daemon listens when nothing else is said.
const SOCKET: &str = "/run/tacit/admin.sock";

/// Which sealer signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SealerChoice {
    /// A seed file.
    File(PathBuf),
    /// A key in ssh-agent, by fingerprint (`SHA256:…`), or the one that the trust file pins.
    SshAgent(Option<String>),
}

/// The settled places.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// The daemon's admin socket.
    pub(crate) socket: PathBuf,
    /// The trust file.
    pub(crate) trust: PathBuf,
    /// The sealer, from option, environment or the configuration directory.
    pub(crate) sealer: SealerChoice,
    /// `--sealer` exactly as typed; `trust pin` reads `NAME=HEX` from it.
    pub(crate) sealer_typed: Option<String>,
}

/// There is neither an option, a variable nor a home directory to find the file by.
#[derive(Debug, thiserror::Error)]
#[error("neither XDG_CONFIG_HOME nor HOME is set: name the files with --trust and --sealer")]
pub(crate) struct NoConfigurationDirectory;

impl Paths {
    /// Option before environment before the configuration directory.
    pub(crate) fn settle(global: &Global) -> Result<Self, NoConfigurationDirectory> {
        Self::settle_from(global, |name| {
            env::var_os(name).filter(|value| !value.is_empty())
        })
    }

    fn settle_from(
        global: &Global,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, NoConfigurationDirectory> {
        let directory = variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute()) // as the XDG specification wants
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")))
            .map(|base| base.join("tacit"));
        let within = |name| directory.as_ref().map(|base| base.join(name));
        let typed = global.sealer.clone();
        let named = typed.clone().map(OsString::from);
        let sealer = match named.or_else(|| variable("TACIT_SEALER")) {
            Some(named) => Some(SealerChoice::parse(named)),
            None => within("sealer.key").map(SealerChoice::File),
        };
        Ok(Self {
            socket: global.socket.clone().unwrap_or_else(|| SOCKET.into()),
            trust: global
                .trust
                .clone()
                .or_else(|| within("custodians.json"))
                .ok_or(NoConfigurationDirectory)?,
            sealer: sealer.ok_or(NoConfigurationDirectory)?,
            sealer_typed: typed,
        })
    }
}

impl SealerChoice {
    fn parse(named: OsString) -> Self {
        match named.to_str() {
            Some("ssh-agent") => Self::SshAgent(None),
            Some(text) => match text.strip_prefix("ssh-agent:") {
                Some(fingerprint) => Self::SshAgent(Some(fingerprint.to_owned())),
                None => Self::File(named.into()),
            },
            None => Self::File(named.into()),
        }
    }
}

/// Where ssh-agent listens.
pub(crate) fn ssh_agent_socket() -> Option<PathBuf> {
    env::var_os("SSH_AUTH_SOCK")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// The value of an application's credential variable, for `doctor` to judge; wiped by the caller's buffer.
pub(crate) fn credential_variable(name: &str) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    use std::os::unix::ffi::OsStringExt;
    env::var_os(name).map(|value| zeroize::Zeroizing::new(value.into_vec()))
}

/// Directories in which to look for a program of the system, `/usr/sbin` and its like included.
pub(crate) fn program_directories() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin"].map(PathBuf::from);
    env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(usual)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Form;

    fn settle(sealer: Option<&str>, variables: &[(&str, &str)]) -> Paths {
        let global = Global {
            socket: None,
            trust: None,
            sealer: sealer.map(str::to_owned),
            output: Form::Table,
        };
        let find = |name: &str| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Paths::settle_from(&global, find).expect("settles")
    }

    #[test]
    fn option_wins_over_environment_over_directory() {
        let file = |path: &str| SealerChoice::File(path.into());
        let home = ("HOME", "/home/op");
        let plain = settle(None, &[home]);
        assert_eq!(
            plain.trust,
            PathBuf::from("/home/op/.config/tacit/custodians.json")
        );
        assert_eq!(plain.sealer, file("/home/op/.config/tacit/sealer.key"));
        assert_eq!(plain.socket, PathBuf::from(SOCKET));
        let xdg = settle(None, &[home, ("XDG_CONFIG_HOME", "/x")]);
        assert_eq!(xdg.trust, PathBuf::from("/x/tacit/custodians.json"));
        let variable = settle(None, &[home, ("TACIT_SEALER", "/s.key")]);
        assert_eq!(variable.sealer, file("/s.key"));
        assert_eq!(variable.sealer_typed, None);
        let typed = settle(Some("/t.key"), &[home, ("TACIT_SEALER", "/s.key")]);
        assert_eq!(typed.sealer, file("/t.key"));
    }

    #[test]
    fn ssh_agent_is_told_from_a_file_of_nearly_that_name() {
        let home = [("HOME", "/h")];
        let sealer = |text| settle(Some(text), &home).sealer;
        assert_eq!(sealer("ssh-agent"), SealerChoice::SshAgent(None));
        assert_eq!(
            sealer("ssh-agent:SHA256:abc"),
            SealerChoice::SshAgent(Some("SHA256:abc".to_owned()))
        );
        assert_eq!(
            sealer("ssh-agent.key"),
            SealerChoice::File("ssh-agent.key".into())
        );
    }

    #[test]
    fn no_home_is_told() {
        let global = Global {
            socket: None,
            trust: None,
            sealer: None,
            output: Form::Table,
        };
        assert!(Paths::settle_from(&global, |_| None).is_err());
    }
}
