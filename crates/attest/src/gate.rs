//! The gate of a token process: its own file, its own look at the evidence, before it wraps a share for a session.
//!
//! It believes the descriptor of a witness connection, of which it asks the kernel itself, and tokens that the API server signed with a key
//! of a set that lies in a file. It opens no connection: what it must know comes from files that it reads again when they change. A
//! new file with an error leaves the old one in force.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::facts::{Evidence, Facts, examine};
use crate::peer::Peer;
use crate::pods::{PODS_BYTES_MAX, Pods};
use crate::policy::{Judge, Policy};
use crate::refused::Refused;
use crate::replay::Bearers;
use crate::requirements::{Attestor, Requirements, RequirementsFile};
use crate::token::{KEYS_BYTES_MAX, KeySet};
use crate::witness;

/// Longest gate file.
const FILE_MAX: usize = 256 * 1024;

/// Why a gate file is refused: every reason found.
#[derive(Debug, thiserror::Error)]
#[error("{path} is refused:\n  {}", .reasons.join("\n  "))]
pub struct GateError {
    /// The file.
    pub path: PathBuf,
    /// One line per rule broken.
    pub reasons: Vec<String>,
}

/// A file that is read again when it changes: another inode, time or length. Volumes of Kubernetes replace it, editors too.
#[derive(Debug)]
pub struct Watched<T> {
    path: PathBuf,
    seen: Option<(u64, i64, i64, u64)>,
    value: Option<Arc<T>>,
}

impl<T> Watched<T> {
    /// Of this path; nothing is read yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: None,
            value: None,
        }
    }

    /// What the file says now. While it cannot be read or understood, what it said last.
    ///
    /// # Errors
    /// What `parse` says, or `unreadable`, when there is nothing yet.
    pub fn load(
        &mut self,
        bytes_max: usize,
        unreadable: impl FnOnce() -> Refused,
        parse: impl FnOnce(&[u8]) -> Result<T, Refused>,
    ) -> Result<Arc<T>, Refused> {
        let stamp = fs::metadata(&self.path)
            .map(|found| (found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
            .ok();
        if let (Some(value), true) = (&self.value, self.seen == stamp || stamp.is_none()) {
            return Ok(Arc::clone(value));
        }
        let fresh = read(&self.path, bytes_max)
            .ok_or_else(unreadable)
            .and_then(|bytes| parse(&bytes));
        match (fresh, &self.value) {
            (Ok(value), _) => {
                let value = Arc::new(value);
                self.seen = stamp;
                self.value = Some(Arc::clone(&value));
                Ok(value)
            }
            (Err(_), Some(old)) => Ok(Arc::clone(old)),
            (Err(refused), None) => Err(refused),
        }
    }
}

/// The file, unless it is longer.
fn read(path: &Path, bytes_max: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).ok()?.checked_add(1)?;
    fs::File::open(path)
        .ok()?
        .take(limit)
        .read_to_end(&mut bytes)
        .ok()?;
    (bytes.len() <= bytes_max).then_some(bytes)
}

#[derive(Debug)]
struct Rules {
    requirements: Requirements,
    policy: Policy,
    keys: Option<PathBuf>,
    pods: Option<PathBuf>,
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    path: PathBuf,
    stamp: (u64, i64, i64, u64),
    rules: Rules,
    keys: Option<Watched<KeySet>>,
    pods: Option<Watched<Pods>>,
    bearers: Bearers,
}

/// Leave to wrap shares for a session, given by [`Gate::judge`] alone. It ends with the process that it was given to.
#[derive(Debug)]
pub struct Admitted {
    peer: Arc<Peer>,
    facts: Facts,
}

impl Admitted {
    /// Whether the process that was admitted still runs.
    ///
    /// # Errors
    /// [`Refused::DeadPeer`].
    pub fn check(&self) -> Result<(), Refused> {
        self.peer.check_alive()
    }

    /// What was proven of it.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Gate {
    /// Reads the file.
    ///
    /// # Errors
    /// [`GateError`] with every reason.
    pub fn read(path: &Path) -> Result<Self, GateError> {
        let (stamp, rules) = read_rules(path).map_err(|reasons| GateError {
            path: path.to_owned(),
            reasons,
        })?;
        let mut gate = Self {
            path: path.to_owned(),
            stamp,
            keys: None,
            pods: None,
            rules,
            bearers: Bearers::default(),
        };
        gate.watch();
        Ok(gate)
    }

    fn watch(&mut self) {
        self.keys = self.rules.keys.clone().map(Watched::new);
        self.pods = self.rules.pods.clone().map(Watched::new);
    }

    /// Reads the file again if it changed.
    ///
    /// # Errors
    /// [`GateError`], once for each bad version of it; the old one stays in force.
    pub fn refresh(&mut self) -> Result<(), GateError> {
        let Ok(found) = fs::metadata(&self.path) else {
            return Ok(());
        };
        let stamp = stamp(&found);
        if stamp == self.stamp {
            return Ok(());
        }
        self.stamp = stamp;
        let (stamp, rules) = read_rules(&self.path).map_err(|reasons| GateError {
            path: self.path.clone(),
            reasons,
        })?;
        (self.stamp, self.rules) = (stamp, rules);
        self.watch();
        Ok(())
    }

    /// Judges the evidence for a session whose agent has the public key `public`.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(
        &mut self,
        witness: Option<OwnedFd>,
        public: &[u8],
        token: &[u8],
        now: SystemTime,
    ) -> Result<Admitted, Refused> {
        let witness = witness.ok_or(Refused::WitnessMissing)?;
        let Rules {
            requirements,
            policy,
            ..
        } = &self.rules;
        let peer = Arc::new(Peer::take(witness.as_fd(), requirements.old_kernel)?);
        if !witness::peek(&witness)?.covers(public) {
            return Err(Refused::WitnessOtherKey);
        }
        let keys = match &mut self.keys {
            Some(file) => Some(file.load(
                KEYS_BYTES_MAX,
                || Refused::KeysUnavailable("its file cannot be read".to_owned()),
                KeySet::parse,
            )?),
            None => None,
        };
        let pods = match &mut self.pods {
            Some(file) => Some(file.load(
                PODS_BYTES_MAX,
                || Refused::PodsUnavailable("the file cannot be read".to_owned()),
                Pods::parse,
            )?),
            None => None,
        };
        let evidence = Evidence {
            peer: &peer,
            token,
            keys: keys.as_deref(),
            pods: pods.as_deref(),
            now,
        };
        let facts = examine(
            requirements,
            policy.wants_unit(),
            &evidence,
            &mut self.bearers,
        )?;
        if policy.matching(&facts).next().is_none() {
            return Err(Refused::NoRule);
        }
        Ok(Admitted { peer, facts })
    }
}

fn stamp(found: &fs::Metadata) -> (u64, i64, i64, u64) {
    (found.ino(), found.mtime(), found.mtime_nsec(), found.len())
}

type Stamp = (u64, i64, i64, u64);

fn read_rules(path: &Path) -> Result<(Stamp, Rules), Vec<String>> {
    let found = fs::metadata(path).map_err(|error| vec![format!("cannot be read: {error}")])?;
    // What the daemon could write would be no gate for it.
    let own = nix::unistd::geteuid().as_raw();
    if (found.uid() != 0 && found.uid() != own) || found.mode() & 0o022 != 0 {
        return Err(vec![
            "must belong to root or to the token process's own user, and be writable by nobody else".to_owned(),
        ]);
    }
    let bytes =
        read(path, FILE_MAX).ok_or_else(|| vec!["cannot be read, or is too long".to_owned()])?;
    let text = String::from_utf8(bytes).map_err(|_| vec!["is not UTF-8".to_owned()])?;
    parse_rules(&text).map(|rules| (stamp(&found), rules))
}

fn parse_rules(text: &str) -> Result<Rules, Vec<String>> {
    let mut table = text
        .parse::<toml::Table>()
        .map_err(|_| vec!["is not valid TOML".to_owned()])?;
    let rules = table.remove("rule");
    let mut reasons = Vec::new();
    let mut file = |name: &str, table: &mut toml::Table| match table.remove(name) {
        None => None,
        Some(toml::Value::String(path)) if path.starts_with('/') => Some(PathBuf::from(path)),
        Some(_) => {
            reasons.push(format!("{name}: must be an absolute path"));
            None
        }
    };
    let (keys, pods) = (file("jwks_file", &mut table), file("pods_file", &mut table));
    let requirements = match table.try_into::<RequirementsFile>() {
        Ok(fields) => Requirements::check(fields),
        Err(error) => {
            let message = error.message().lines().next().unwrap_or_default();
            let unknown = message.starts_with("unknown field");
            Err(vec![if unknown {
                message.to_owned()
            } else {
                "a field has a value of the wrong kind".to_owned()
            }])
        }
    };
    let requirements = match requirements {
        Ok(requirements) => requirements,
        Err(more) => {
            reasons.extend(more);
            return Err(reasons);
        }
    };
    if requirements.has(Attestor::K8sToken) && keys.is_none() {
        reasons
            .push("jwks_file: k8s-token needs it; a token process opens no connection".to_owned());
    }
    if !requirements.agent_images.is_empty() && pods.is_none() {
        reasons.push(
            "pods_file: agent_images need it; a token process opens no connection".to_owned(),
        );
    }
    match Policy::from_value(rules, Judge::Token, &requirements) {
        Ok(policy) if reasons.is_empty() => Ok(Rules {
            requirements,
            policy,
            keys,
            pods,
        }),
        Ok(_) => Err(reasons),
        Err(more) => {
            reasons.extend(more);
            Err(reasons)
        }
    }
}
