//! SoftHSM tokens for development: one directory, one configuration and one PIN each, since SoftHSM locks across a
//! directory.
//!
//! `softhsm2-util` does the work. It takes PINs as arguments, which every user of the machine could read, or asks for
//! them on a terminal: so it gets one.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use custody::SystemRandom;
use nix::pty::openpty;
use rand_core::Rng as _;
use zeroize::Zeroizing;

use super::settings::{Layout, TOKENS};
use crate::config::program_directories;
use crate::files;

/// Where distributions put the module.
const MODULES: [&str; 7] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// 128 bits as hex digits.
const PIN_BYTES: usize = 16;

/// SoftHSM is missing or refuses.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error(
        "{0} is not installed; install SoftHSM 2: apt-get install softhsm2 (Debian, Ubuntu), dnf install softhsm \
         (Fedora), apk add softhsm (Alpine)"
    )]
    NotInstalled(&'static str),
    #[error("softhsm2-util could not initialise the token in {dir}: {said}")]
    Failed { dir: PathBuf, said: String },
    #[error("{dir} has a token and no PIN file ({pin}): restore the file, or name another --dir")]
    PinMissing { dir: PathBuf, pin: PathBuf },
}

/// Makes the tokens that are missing; returns the PKCS#11 module.
pub(super) fn provision(layout: &Layout) -> anyhow::Result<PathBuf> {
    let module = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    let module = module.ok_or(TokenError::NotInstalled("libsofthsm2.so"))?;
    for id in TOKENS {
        provision_one(&layout.token(id), &format!("tacit-{id}"))?;
    }
    Ok(module)
}

fn provision_one(dir: &Path, label: &str) -> anyhow::Result<()> {
    files::create_directory(dir)?;
    let (tokens, pin_file) = (dir.join("tokens"), dir.join("pin"));
    write_conf(&dir.join("softhsm2.conf"), &tokens)?;
    let _ = fs::remove_dir(&tokens); // succeeds for an empty one alone, which holds no token
    if tokens.exists() {
        return if pin_file.exists() {
            Ok(())
        } else {
            Err(TokenError::PinMissing {
                dir: dir.to_owned(),
                pin: pin_file,
            }
            .into())
        };
    }
    let pin = random_pin();
    // Before the token: one whose PIN nobody knows is of no use to anybody. A left-over file of an interrupted start
    // belongs to no token yet.
    files::replace(&pin_file, &[pin.as_slice(), b"\n"].concat(), 0o600)?;
    // Made beside its place and moved there whole: an interrupted start leaves no half token under the real name.
    let partial = dir.join("tokens.partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("cannot clear {}", partial.display()))?;
    }
    files::create_directory(&partial)?;
    let partial_conf = dir.join("softhsm2.partial.conf");
    write_conf(&partial_conf, &partial)?;
    initialise(dir, &partial_conf, label, &pin)?;
    fs::rename(&partial, &tokens)
        .with_context(|| format!("cannot move the token to {}", tokens.display()))?;
    let _ = fs::remove_file(&partial_conf); // says nothing that matters any more
    Ok(())
}

fn write_conf(path: &Path, tokens: &Path) -> Result<(), files::FileError> {
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
        tokens.display()
    );
    match fs::read(path) {
        Ok(now) if now == text.as_bytes() => Ok(()),
        _ => files::replace(path, text.as_bytes(), 0o600),
    }
}

fn random_pin() -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new([0u8; PIN_BYTES]);
    SystemRandom::new().fill_bytes(bytes.as_mut_slice());
    let mut digits = Zeroizing::new(vec![0u8; 2 * PIN_BYTES]);
    hex::encode_to_slice(*bytes, &mut digits).expect("the slice has two digits for each byte");
    digits
}

fn initialise(dir: &Path, conf: &Path, label: &str, pin: &[u8]) -> anyhow::Result<()> {
    let utility = program_directories()
        .into_iter()
        .map(|one| one.join("softhsm2-util"))
        .find(|path| path.exists())
        .ok_or(TokenError::NotInstalled("softhsm2-util"))?;
    let terminal =
        openpty(None, None).context("cannot open a pseudo-terminal for softhsm2-util")?;
    // The questions come in this order: SO PIN twice, user PIN twice. The SO PIN is forgotten at once: a token of
    // development is thrown away, not reset.
    let so_pin = random_pin();
    let mut answers = Zeroizing::new(Vec::with_capacity(4 * (2 * PIN_BYTES + 1)));
    for one in [&so_pin[..], &so_pin[..], pin, pin] {
        answers.extend_from_slice(one);
        answers.push(b'\n');
    }
    let child = Command::new(utility)
        .args(["--init-token", "--free", "--label", label])
        .env("SOFTHSM2_CONF", conf)
        .stdin(Stdio::from(terminal.slave))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start softhsm2-util")?;
    let master = answer(terminal.master, &answers)?;
    let output = child
        .wait_with_output()
        .context("cannot wait for softhsm2-util")?;
    drop(master); // held until here: closing it would hang up on the utility
    if output.status.success() {
        return Ok(());
    }
    // It prints stars for PINs, never their digits.
    let said = String::from_utf8_lossy(&output.stderr);
    Err(TokenError::Failed {
        dir: dir.to_owned(),
        said: said.trim().to_owned(),
    }
    .into())
}

fn answer(master: OwnedFd, answers: &[u8]) -> anyhow::Result<File> {
    let mut master = File::from(master);
    master
        .write_all(answers)
        .context("cannot answer softhsm2-util")?;
    Ok(master)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_made_once_and_its_pin_stands_in_a_file_of_the_owner() {
        if !Path::new("/usr/bin/softhsm2-util").exists() {
            return; // not installed here
        }
        let dir = tempfile::tempdir().expect("a directory");
        let token = dir.path().join("softhsm-a");
        provision_one(&token, "tacit-a").expect("made");
        let pin = fs::read(token.join("pin")).expect("read");
        assert_eq!(pin.len(), 33);
        let mode = fs::metadata(token.join("pin"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let count = || fs::read_dir(token.join("tokens")).expect("listed").count();
        assert_eq!(count(), 1);
        provision_one(&token, "tacit-a").expect("found");
        assert_eq!(
            (count(), fs::read(token.join("pin")).expect("read")),
            (1, pin)
        );
    }

    #[test]
    fn a_token_without_its_pin_is_named_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let token = dir.path().join("softhsm-a");
        fs::create_dir_all(token.join("tokens/x")).expect("made");
        let error = provision_one(&token, "tacit-a").expect_err("refused");
        assert!(error.to_string().contains("no PIN file"), "{error}");
        assert!(token.join("tokens/x").exists());
    }
}
