//! What a daemon needs, and the taking away of everything else.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use caps::Capability;

use crate::report::{Finding, Measure, Report, State};
use crate::seccomp::{self, Programs};
use crate::settings::Settings;
use crate::{capabilities, landlocked};

/// What every process reads: libraries that glibc loads late (names, character sets), name resolution, trust roots, time
/// zones. Programs lie there too; none can be executed. `/etc` as a whole, because its files are replaced by renames and
/// a rule on a file would hold for the old one.
pub const SYSTEM: [&str; 9] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    // Where /etc/resolv.conf leads.
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    // Its own figures for /metrics.
    "/proc/self",
];

/// Directories that nobody is given to write because a text names a file in them.
const NEVER_WRITTEN: [&str; 9] = [
    "/etc", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/boot", "/proc", "/sys",
];

/// What a process needs. Everything else is taken from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Files and directories that it reads, with all beneath.
    pub read: BTreeSet<PathBuf>,
    /// Files and directories that it changes, with all beneath.
    pub write: BTreeSet<PathBuf>,
    /// Devices that it uses.
    pub devices: BTreeSet<PathBuf>,
    /// Programs, with their interpreter, that it may start. Matters only with [`Programs::Started`].
    pub execute: BTreeSet<PathBuf>,
    /// TCP ports, anywhere, that it connects to.
    pub connect: BTreeSet<u16>,
    /// TCP ports that it listens on; 0 is one of the kernel's choice.
    pub bind: BTreeSet<u16>,
    /// Whether it starts programs.
    pub programs: Programs,
    /// Capabilities that it needs, if it has them.
    pub capabilities: Vec<Capability>,
}

/// A process that must not start.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// `[hardening] require` names a measure that does not hold.
    #[error("[hardening] requires what does not hold: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Required(Vec<Finding>),
    /// Called too late: a mistake of ours, which must not pass for protection.
    #[error("BUG: confined after a second thread was started; that thread would be free")]
    Threads,
}

impl Plan {
    /// A plan that reads [`SYSTEM`] and nothing else.
    pub fn new() -> Self {
        Self {
            read: SYSTEM.map(PathBuf::from).into(),
            ..Self::default()
        }
    }

    /// It reads this file, whatever takes its place: the directory around it, and that of the file a link leads to.
    pub fn reads_file(&mut self, file: &Path) {
        self.read.extend(around(file));
    }

    /// It replaces this file: the directory around it.
    pub fn writes_file(&mut self, file: &Path) {
        self.write.extend(around(file));
    }

    /// It listens here; a low port takes a capability, if there is one.
    pub fn listens(&mut self, port: u16) {
        self.bind.insert(port);
        if (1..1024).contains(&port)
            && !self
                .capabilities
                .contains(&Capability::CAP_NET_BIND_SERVICE)
        {
            self.capabilities.push(Capability::CAP_NET_BIND_SERVICE);
        }
    }

    /// It needs all that another plan names as well.
    pub fn merge(&mut self, other: Self) {
        self.read.extend(other.read);
        self.write.extend(other.write);
        self.devices.extend(other.devices);
        self.execute.extend(other.execute);
        self.connect.extend(other.connect);
        self.bind.extend(other.bind);
        self.capabilities.extend(other.capabilities);
        if other.programs == Programs::Started {
            self.programs = Programs::Started;
        }
    }

    /// What the operator adds.
    pub fn add(&mut self, settings: &Settings) {
        self.read.extend(settings.read.iter().cloned());
        self.write.extend(settings.write.iter().cloned());
        self.connect.extend(&settings.connect);
    }

    /// What of `other` this plan does not give, of files and of ports.
    fn lacks(&self, other: &Self) -> (Vec<String>, Vec<String>) {
        let covered = |given: &[&BTreeSet<PathBuf>], path: &PathBuf| {
            let mut given = given.iter().copied().flatten();
            given.any(|place| path.starts_with(place))
        };
        let mut missing = Vec::new();
        for path in &other.read {
            if !covered(&[&self.read, &self.write], path) {
                missing.push(format!("reading {}", path.display()));
            }
        }
        for path in &other.write {
            if !covered(&[&self.write], path) {
                missing.push(format!("writing {}", path.display()));
            }
        }
        let ports = other.connect.difference(&self.connect);
        (missing, ports.map(|port| format!("port {port}")).collect())
    }

    /// Takes away everything else, for good. Must be called while the process has one thread.
    ///
    /// # Errors
    /// [`ApplyError`] when the settings require what does not hold, or a second thread runs.
    pub fn apply(self, settings: &Settings) -> Result<Confined, ApplyError> {
        if threads() != 1 {
            return Err(ApplyError::Threads);
        }
        let wanted = |measure| !settings.off.contains(&measure);
        let mut findings = vec![
            held(
                Measure::Dumps,
                secret::process::dumps_forbidden(),
                "PR_SET_DUMPABLE is set",
            ),
            held(
                Measure::NoNewPrivs,
                matches!(nix::sys::prctl::get_no_new_privs(), Ok(true)),
                "PR_SET_NO_NEW_PRIVS is not set",
            ),
        ];
        findings.push(match wanted(Measure::Capabilities) {
            true => capabilities::drop_all_but(&self.capabilities),
            false => Finding::new(Measure::Capabilities, State::Off, ""),
        });
        let (files, ports) = (wanted(Measure::Landlock), wanted(Measure::LandlockPorts));
        findings.extend(landlocked::confine(&self, files, ports));
        findings.push(match wanted(Measure::Seccomp) {
            true => seccomp::install(self.programs),
            false => Finding::new(Measure::Seccomp, State::Off, ""),
        });
        let missing: Vec<Finding> = findings
            .iter()
            .filter(|one| settings.require.contains(&one.measure) && !one.state.is_on())
            .cloned()
            .collect();
        match missing.is_empty() {
            true => Ok(Confined {
                plan: self,
                report: Report { findings },
            }),
            false => Err(ApplyError::Required(missing)),
        }
    }
}

/// A process that is confined: to what, and how far.
#[derive(Debug, Clone)]
pub struct Confined {
    plan: Plan,
    /// What holds.
    pub report: Report,
}

impl Confined {
    /// What of a new plan the process has given up: for a reload, which then takes a restart.
    pub fn lacks(&self, new: &Plan) -> Vec<String> {
        let (files, ports) = self.plan.lacks(new);
        let held = |measure, missing: Vec<String>| match self.report.is_on(measure) {
            true => missing,
            false => Vec::new(),
        };
        let mut missing = held(Measure::Landlock, files);
        missing.extend(held(Measure::LandlockPorts, ports));
        missing
    }
}

fn held(measure: Measure, holds: bool, otherwise: &str) -> Finding {
    let state = match holds {
        true => State::On,
        false => State::Refused(otherwise.to_owned()),
    };
    Finding::new(measure, state, "")
}

/// Threads of this process; where `/proc` is hidden it is taken on trust.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// The directories around a file, and around what its links lead to. A file in `/` stands for itself: its directory would
/// be everything.
fn around(file: &Path) -> Vec<PathBuf> {
    let directory = |path: &Path| match path.parent() {
        Some(parent)
            if parent
                .components()
                .any(|part| matches!(part, Component::Normal(_))) =>
        {
            parent.to_owned()
        }
        _ => path.to_owned(),
    };
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut places = vec![directory(&file)];
    if let Ok(real) = file.canonicalize() {
        places.push(directory(&real));
    }
    places
}

/// The directories that a text names by absolute paths, those of files for files, as far as they exist: where a module
/// keeps its things, as its settings say. Never a directory of the system.
pub fn paths_in(text: &str) -> BTreeSet<PathBuf> {
    let separates = |c: char| c.is_whitespace() || "=:;,'\"()[]{}<>".contains(c);
    let named = text.split(separates).filter(|word| word.starts_with('/'));
    let places = named.filter_map(|word| {
        let path = Path::new(word);
        match path.canonicalize() {
            Ok(directory) if directory.is_dir() => Some(directory),
            Ok(file) => Some(file.parent()?.to_owned()),
            // A log or a lock that the module will make.
            Err(_) => path.parent()?.canonicalize().ok(),
        }
    });
    let harmless = |place: &PathBuf| {
        place.parent().is_some() && !NEVER_WRITTEN.iter().any(|never| place.starts_with(never))
    };
    places.filter(harmless).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_is_read_with_its_directory_and_that_of_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (etc, data) = (root.join("etc"), root.join("data"));
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("agent.toml"), "").unwrap();
        std::os::unix::fs::symlink(data.join("agent.toml"), etc.join("agent.toml")).unwrap();
        let mut plan = Plan::new();
        plan.reads_file(&etc.join("agent.toml"));
        assert!(plan.read.contains(&etc) && plan.read.contains(&data));
        assert!(!plan.read.contains(&root));
    }

    #[test]
    fn a_file_in_the_root_directory_does_not_open_everything() {
        let mut plan = Plan::default();
        plan.reads_file(Path::new("/no-such-agent.toml"));
        assert_eq!(plan.read, [PathBuf::from("/no-such-agent.toml")].into());
    }

    #[test]
    fn low_ports_keep_the_one_capability_and_others_none() {
        let mut plan = Plan::default();
        plan.listens(4100);
        plan.listens(0);
        assert!(plan.capabilities.is_empty());
        plan.listens(443);
        plan.listens(80);
        assert_eq!(plan.capabilities, [Capability::CAP_NET_BIND_SERVICE]);
    }

    #[test]
    fn a_plan_knows_what_it_was_not_made_for() {
        let mut old = Plan::new();
        old.reads_file(Path::new("/opt/tacit/agent.toml"));
        old.connect.insert(443);
        let mut new = old.clone();
        new.reads_file(Path::new("/opt/tacit/more/ca.pem"));
        assert_eq!(old.lacks(&new), (vec![], vec![]), "beneath what it has");
        new.reads_file(Path::new("/srv/ca.pem"));
        new.connect.insert(8443);
        let (files, ports) = old.lacks(&new);
        assert_eq!(
            (files, ports),
            (vec!["reading /srv".into()], vec!["port 8443".into()])
        );
        // What the kernel does not hold, a reload may change.
        let report = |landlock| Report {
            findings: vec![
                Finding::new(Measure::Landlock, landlock, ""),
                Finding::new(Measure::LandlockPorts, State::Unsupported, ""),
            ],
        };
        let confined = |landlock| Confined {
            plan: old.clone(),
            report: report(landlock),
        };
        assert_eq!(confined(State::On).lacks(&new), ["reading /srv"]);
        assert!(confined(State::Off).lacks(&new).is_empty());
    }

    #[test]
    fn places_of_a_module_are_found_in_its_settings_but_not_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("tokens")).unwrap();
        std::fs::write(root.join("softhsm2.conf"), "").unwrap();
        let text = format!(
            "directories.tokendir = {0}/tokens\nconfigdir='sql:{0}/tokens' /usr/lib/x /etc/passwd / /no/such/place",
            root.display()
        );
        assert_eq!(paths_in(&text), [root.join("tokens")].into());
        let conf = root.join("softhsm2.conf").display().to_string();
        assert_eq!(paths_in(&conf), [root.clone()].into());
        let log = root.join("tokens/not-yet.log").display().to_string();
        assert_eq!(paths_in(&log), [root.join("tokens")].into());
    }
}
