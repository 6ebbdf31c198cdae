//! What a token process needs of the machine, with somebody else's library in it.
//!
//! A vendor's module reads what it likes (libraries, licences, its own configuration, device nodes), so reading is left to
//! the file system's permissions. It writes only where its own settings point, connects only to ports that the operator
//! named, and starts no program. What breaks a module is turned off for that custodian alone, by name.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use confine::{Plan, Programs, paths_in};

use crate::config::TokenConfig;

/// A module's configuration file that is looked at for directories; longer ones are looked at in part.
const SETTINGS_MAX_BYTES: u64 = 64 * 1024;

/// Where SoftHSM finds its configuration when no variable says.
const SOFTHSM_CONF: &str = "/etc/softhsm/softhsm2.conf";

/// Variables of shells, systemd and build tools: paths in them are not the module's.
const NOT_THE_MODULES: [&str; 18] = [
    "HOME",
    "PATH",
    "SHELL",
    "PWD",
    "OLDPWD",
    "TMPDIR",
    "MAIL",
    "NOTIFY_SOCKET",
    "MEMORY_PRESSURE_WATCH",
    "_",
    "LD_",
    "XDG_",
    "SSH_",
    "CARGO",
    "RUST",
    "NEXTEST",
    "GIT_",
    "OUT_DIR",
];

/// What a token process needs whose module is told `settings`: values of its environment, initialisation strings.
pub fn plan<'a>(
    state_dir: &Path,
    socket: Option<&Path>,
    settings: impl IntoIterator<Item = &'a str>,
) -> Plan {
    let mut plan = Plan::default();
    plan.read.insert(PathBuf::from("/"));
    plan.devices.insert(PathBuf::from("/dev"));
    plan.write.insert(state_dir.to_owned());
    if let Some(socket) = socket {
        plan.writes_file(socket);
    }
    for text in settings.into_iter().chain([SOFTHSM_CONF]) {
        plan.write.extend(paths_in(text));
        // A file that the text names says more.
        let files = text.split([':', ';', ',', ' ', '\'', '"', '=']);
        for file in files.filter(|word| word.starts_with('/')) {
            plan.write.extend(places_in_file(Path::new(file)));
        }
    }
    plan
}

/// The same of this process, whose environment is its module's.
pub fn own_plan(state_dir: &Path, socket: Option<&Path>) -> Plan {
    let settings: Vec<String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !NOT_THE_MODULES.iter().any(|other| is(name, other)))
        .map(|(_, value)| value)
        .collect();
    plan(state_dir, socket, settings.iter().map(String::as_str))
}

/// The same for a daemon whose child the token process is: its own binary as well, and the loader that starts it.
pub(crate) fn parents_plan(config: &TokenConfig, program: &Path) -> Plan {
    let settings = config.env.values().chain(&config.init_args);
    let mut plan = plan(&config.state_dir, None, settings.map(String::as_str));
    plan.programs = Programs::Started;
    plan.execute.insert(program.to_owned());
    plan.execute
        .extend(["/lib", "/lib64", "/nix/store"].map(PathBuf::from));
    plan.add(&config.hardening);
    plan
}

/// An entry that ends in `_`, or is a tool's name, stands for all that begin so.
fn is(name: &str, other: &str) -> bool {
    let prefix =
        (other.len() > 1 && other.ends_with('_')) || ["CARGO", "RUST", "NEXTEST"].contains(&other);
    name == other || (prefix && name.starts_with(other))
}

fn places_in_file(file: &Path) -> BTreeSet<PathBuf> {
    let mut text = Vec::new();
    // One that cannot be read tells nothing, and the module will say so better.
    if file.is_file()
        && let Ok(opened) = std::fs::File::open(file)
    {
        let _ = opened.take(SETTINGS_MAX_BYTES).read_to_end(&mut text);
    }
    paths_in(&String::from_utf8_lossy(&text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_module_writes_where_its_settings_point_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (conf, tokens, state) = (root.join("c"), root.join("t"), root.join("s"));
        for one in [&conf, &tokens, &state] {
            std::fs::create_dir(one).unwrap();
        }
        let file = conf.join("softhsm2.conf");
        std::fs::write(
            &file,
            format!("directories.tokendir = {}\n", tokens.display()),
        )
        .unwrap();
        let made = plan(&state, None, [file.to_str().unwrap(), "DEBUG"]);
        for wanted in [&conf, &tokens, &state] {
            assert!(made.write.contains(wanted), "{}", wanted.display());
        }
        assert!(!made.write.contains(&root));
        assert!(made.connect.is_empty() && made.bind.is_empty() && made.execute.is_empty());
    }

    #[test]
    fn variables_of_shells_and_systemd_are_not_the_modules() {
        for (name, theirs) in [
            ("SOFTHSM2_CONF", false),
            ("ChrystokiConfigurationPath", false),
            ("PATHOLOGICAL", false),
            ("HOME", true),
            ("LD_PRELOAD", true),
            ("CARGO_MANIFEST_DIR", true),
        ] {
            let found = NOT_THE_MODULES.iter().any(|other| is(name, other));
            assert_eq!(found, theirs, "{name}");
        }
    }
}
