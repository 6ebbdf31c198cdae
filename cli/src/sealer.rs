//! The operator's signing key as a file, and the choice between file and ssh-agent.
//!
//! The file is one line, `tacit-sealer-ed25519-v1 <64 hex digits>`, of mode 0600 or 0400, owned by this user or root.
//! It is created whole or not at all and never replaced: an overwritten sealer could not sign successors any more.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use custody::{FileSealer, Sealer, SystemRandom, Trust};
use secret::Secret;
use serde_json::json;
use zeroize::Zeroizing;

use crate::Answer;
use crate::args::SealerVerb;
use crate::config::{Paths, SealerChoice, ssh_agent_socket};
use crate::files;
use crate::output::{Output, fields};
use crate::ssh_agent::{AgentError, SshAgentSealer};
use crate::trust;

const PREFIX: &[u8] = b"tacit-sealer-ed25519-v1 ";
/// Prefix, 64 digits and a line end.
const FILE_MAX_BYTES: usize = PREFIX.len() + 64 + 2;

/// Why there is no sealer to sign with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealerError {
    #[error("there is no sealer key at {0}; create one: tacit sealer new")]
    Missing(PathBuf),
    #[error("cannot read the sealer key {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the sealer key {path} has mode {mode:03o}: others could read or replace it; chmod 600 it, and make a new \
             one if others had access"
    )]
    Mode { path: PathBuf, mode: u32 },
    #[error("the sealer key {path} belongs to uid {owner}, not to this user or root")]
    Owner { path: PathBuf, owner: u32 },
    #[error("{0} is not a regular file")]
    Kind(PathBuf),
    #[error("{0} is not a sealer key: one line, tacit-sealer-ed25519-v1 and 64 hex digits")]
    Content(PathBuf),
    #[error(
        "{0} exists and is not overwritten: keys that it sealed need it; choose another file with --sealer"
    )]
    Exists(PathBuf),
    #[error("a sealer key in ssh-agent is made with ssh-keygen -t ed25519 and ssh-add, not here")]
    NotAFile,
    #[error("SSH_AUTH_SOCK is not set: start ssh-agent, or name a file with --sealer")]
    NoAgent,
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Loads the sealer that was chosen. `trust` decides between several keys of an ssh-agent.
pub(crate) fn load(
    choice: &SealerChoice,
    trust: Option<&Trust>,
) -> Result<Box<dyn Sealer>, SealerError> {
    match choice {
        SealerChoice::File(path) => Ok(Box::new(load_file(path)?)),
        SealerChoice::SshAgent(fingerprint) => {
            let socket = ssh_agent_socket().ok_or(SealerError::NoAgent)?;
            let pinned = |key: &custody::SealerKey| {
                trust.is_some_and(|trust| trust.sealer_name(key).is_some())
            };
            let sealer = SshAgentSealer::choose(&socket, fingerprint.as_deref(), pinned)?;
            Ok(Box::new(sealer))
        }
    }
}

/// Loads a seed file, after a look at its mode and owner.
pub(crate) fn load_file(path: &Path) -> Result<FileSealer, SealerError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => SealerError::Missing(path.to_owned()),
        _ => SealerError::Read {
            path: path.to_owned(),
            source,
        },
    };
    // Non-blocking: a FIFO in the file's place must not hang the command before its kind is seen.
    let mut file = File::options()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    check_metadata(path, &file.metadata().map_err(failed)?)?;
    let mut buffer = Zeroizing::new([0u8; FILE_MAX_BYTES + 1]);
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]).map_err(failed)? {
            0 => break,
            read => length += read,
        }
    }
    parse(&buffer[..length]).ok_or_else(|| SealerError::Content(path.to_owned()))
}

fn check_metadata(path: &Path, metadata: &Metadata) -> Result<(), SealerError> {
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(SealerError::Kind(path));
    }
    let mode = metadata.mode() & 0o777;
    if !matches!(mode, 0o600 | 0o400) {
        return Err(SealerError::Mode { path, mode });
    }
    let owner = metadata.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(SealerError::Owner { path, owner });
    }
    Ok(())
}

fn parse(content: &[u8]) -> Option<FileSealer> {
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    let digits = line.strip_prefix(PREFIX)?;
    let mut seed = Secret::<[u8; 32]>::zeroed();
    #[expect(clippy::disallowed_methods, reason = "decodes the seed in place")]
    hex::decode_to_slice(digits, seed.expose_mut()).ok()?;
    FileSealer::from_seed(&seed).ok()
}

/// Draws a key and writes it to a file that was not there before.
pub(crate) fn create_file(path: &Path) -> anyhow::Result<FileSealer> {
    let seed = FileSealer::generate_seed(&mut SystemRandom::new());
    let mut line = Zeroizing::new([0u8; PREFIX.len() + 65]);
    line[..PREFIX.len()].copy_from_slice(PREFIX);
    #[expect(clippy::disallowed_methods, reason = "writes the seed to its own file")]
    hex::encode_to_slice(seed.expose(), &mut line[PREFIX.len()..PREFIX.len() + 64])
        .expect("the slice has two digits for each of the 32 bytes");
    line[PREFIX.len() + 64] = b'\n';
    files::create_parent(path)?;
    files::create_new(path, line.as_slice(), 0o600).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            anyhow::Error::new(SealerError::Exists(path.to_owned()))
        }
        _ => anyhow::Error::new(error),
    })?;
    Ok(FileSealer::from_seed(&seed)?)
}

/// `tacit sealer …`
pub(crate) fn run(verb: SealerVerb, paths: &Paths, output: &Output) -> Answer {
    match verb {
        SealerVerb::New { pin } => new(pin.as_deref(), paths, output),
        SealerVerb::Show => show(paths, output),
    }
}

fn new(pin: Option<&str>, paths: &Paths, output: &Output) -> Answer {
    let SealerChoice::File(path) = &paths.sealer else {
        return Err(SealerError::NotAFile.into());
    };
    if let Some(name) = pin {
        trust::check_sealer_name(name)?;
        trust::load(&paths.trust)?; // before anything is made: a key that cannot be pinned would be left over
    }
    let public = create_file(path)?.public();
    if let Some(name) = pin {
        trust::add_sealer(&paths.trust, name, public)?;
    }
    let next = pin.is_none().then(|| pin_command(paths, &public));
    let mut text = format!("created {}\npublic key {public}", path.display());
    match (&next, pin) {
        (Some(command), _) => {
            text += &format!("\nnext, for every trust file that should accept it:\n  {command}")
        }
        (None, Some(name)) => text += &format!("\npinned as {name} in {}", paths.trust.display()),
        (None, None) => {}
    }
    let json = json!({
        "sealer": path, "public_key": public.to_string(), "pinned_as": pin, "next": next,
    });
    output.result(&text, &json);
    Ok(true)
}

fn show(paths: &Paths, output: &Output) -> Answer {
    let trust = trust::load(&paths.trust);
    let sealer = load(&paths.sealer, trust.as_ref().ok())?;
    let public = sealer.public();
    let name = match &trust {
        Ok(trust) => trust.sealer_name(&public).map(str::to_owned),
        Err(_) => None,
    };
    let kind = match &paths.sealer {
        SealerChoice::File(path) => path.display().to_string(),
        SealerChoice::SshAgent(_) => "ssh-agent".to_owned(),
    };
    let pinned = match (&trust, &name) {
        (Err(error), _) => format!("unknown: {error}"),
        (Ok(_), Some(name)) => format!("as {name} in {}", paths.trust.display()),
        (Ok(_), None) => format!("no; to accept it: {}", pin_command(paths, &public)),
    };
    let text = fields(&[
        ("sealer", kind.clone()),
        ("public key", public.to_string()),
        ("pinned", pinned),
    ]);
    let json = json!({"sealer": kind, "public_key": public.to_string(), "pinned_as": name});
    output.result(&text, &json);
    Ok(true)
}

fn pin_command(paths: &Paths, public: &custody::SealerKey) -> String {
    let name = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten()
        .map_or_else(|| "NAME".to_owned(), |user| user.name);
    format!(
        "tacit --trust {} trust pin --sealer {name}={public}",
        paths.trust.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn file_of_mode(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sealer.key");
        create_file(&path).expect("created");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("changed");
        (dir, path)
    }

    #[test]
    fn what_was_created_loads_as_the_same_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("deep/sealer.key");
        let public = create_file(&path).expect("created").public();
        assert_eq!(load_file(&path).expect("loads").public(), public);
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(text.len(), PREFIX.len() + 65);
        assert!(text.starts_with("tacit-sealer-ed25519-v1 ") && text.ends_with('\n'));
    }

    #[test]
    fn a_file_that_others_can_touch_is_refused() {
        for good in [0o600, 0o400] {
            let (_dir, path) = file_of_mode(good);
            load_file(&path).expect("accepted");
        }
        for bad in [0o640, 0o604, 0o660, 0o700] {
            let (_dir, path) = file_of_mode(bad);
            let error = load_file(&path).expect_err("refused");
            assert!(
                matches!(error, SealerError::Mode { mode, .. } if mode == bad),
                "{error}"
            );
        }
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let (_dir, path) = file_of_mode(0o600);
        let before = fs::read(&path).expect("read");
        let error = create_file(&path).expect_err("refused").to_string();
        assert!(error.contains("not overwritten"), "{error}");
        assert_eq!(fs::read(&path).expect("read"), before);
    }

    #[test]
    fn damaged_files_are_named_without_their_content() {
        let digits = "ab".repeat(32);
        for bad in [
            String::new(),
            digits.clone(),
            format!("tacit-sealer-ed25519-v1 {}", &digits[2..]),
            format!("tacit-sealer-ed25519-v1 {digits}\n\n"),
            format!("tacit-sealer-ed25519-v2 {digits}\n"),
            format!("tacit-sealer-ed25519-v1  {digits}"),
        ] {
            let (_dir, path) = file_of_mode(0o600);
            fs::write(&path, &bad).expect("written");
            let error = load_file(&path).expect_err("refused");
            assert!(matches!(error, SealerError::Content(_)), "{error}");
            assert!(!error.to_string().contains("abab"));
        }
    }

    #[test]
    fn a_missing_file_says_how_to_make_one() {
        let error = load_file(Path::new("/nonexistent/sealer.key")).expect_err("refused");
        assert!(error.to_string().contains("tacit sealer new"), "{error}");
    }
}
