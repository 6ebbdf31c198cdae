//! SoftHSM tokens for development and tests: one directory, one configuration and one PIN file per token. [`nss`] makes tokens
//! of another module in the same way, for tests.
//!
//! SoftHSM locks across a directory, so tokens that share one would slow each other and could not fail apart. Nothing shipped
//! uses this crate. PINs pass through `softhsm2-util`'s command line, which other users of the machine can read: good enough
//! for tokens whose keys lie in files beside them, and never for others.
#![forbid(unsafe_code)]

pub mod nss;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

/// Where distributions put the module; the first that exists is taken.
const MODULES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// Most tokens: no key has more custodians.
pub const TOKENS_MAX: usize = 16;

/// One provisioned token.
#[derive(Debug, Clone, Serialize)]
pub struct TokenDir {
    /// The custodian's id: `a`, `b`, …
    pub id: String,
    /// The token's directory.
    pub dir: PathBuf,
    /// The configuration that `SOFTHSM2_CONF` must name.
    pub conf: PathBuf,
    /// The file with the user PIN, mode 0600.
    pub pin_file: PathBuf,
    /// The token's label: `tacit-a`, …
    pub label: String,
    /// The PKCS#11 module.
    pub module: PathBuf,
}

/// Why tokens could not be provisioned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoftHsmError {
    /// A module or its tool is not there.
    #[error("{missing} is missing: apt-get install {package}")]
    NotInstalled {
        /// What was looked for.
        missing: &'static str,
        /// Debian's package with it.
        package: &'static str,
    },
    /// Too many tokens, or none.
    #[error("1 to {TOKENS_MAX} tokens can be made, not {0}")]
    Count(usize),
    /// A file or directory cannot be used.
    #[error("cannot {what} {path}")]
    File {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The module's tool failed.
    #[error("{tool} could not {what} in {dir}: {said}")]
    Util {
        /// The tool.
        tool: &'static str,
        /// What was being done.
        what: &'static str,
        /// For which token.
        dir: PathBuf,
        /// Its message.
        said: String,
    },
}

/// The installed SoftHSM module.
///
/// # Errors
/// It is in none of the usual places.
pub fn module() -> Result<PathBuf, SoftHsmError> {
    let found = MODULES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file());
    found.ok_or(SoftHsmError::NotInstalled {
        missing: "libsofthsm2.so",
        package: "softhsm2",
    })
}

/// Makes sure that `dir` holds `count` initialised tokens, and says where. A second run changes nothing.
///
/// # Errors
/// [`SoftHsmError`] names the file or the step; what was made so far stays and is used by the next run.
pub fn up(dir: &Path, count: usize) -> Result<Vec<TokenDir>, SoftHsmError> {
    if !(1..=TOKENS_MAX).contains(&count) {
        return Err(SoftHsmError::Count(count));
    }
    let module = module()?;
    ('a'..)
        .take(count)
        .map(|letter| token(dir, &letter.to_string(), &module))
        .collect()
}

fn token(parent: &Path, id: &str, module: &Path) -> Result<TokenDir, SoftHsmError> {
    let dir = std::path::absolute(parent.join(id)).map_err(file("find", parent))?;
    let token = TokenDir {
        id: id.to_owned(),
        conf: dir.join("softhsm2.conf"),
        pin_file: dir.join("pin"),
        label: format!("tacit-{id}"),
        module: module.to_owned(),
        dir,
    };
    let tokens = token.dir.join("tokens");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&tokens)
        .map_err(file("create", &tokens))?;
    let conf = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
        tokens.display()
    );
    if fs::read_to_string(&token.conf).ok().as_deref() != Some(conf.as_str()) {
        fs::write(&token.conf, conf).map_err(file("write", &token.conf))?;
    }
    // PINs first: a token whose PIN was lost in a crash would be useless, a PIN without a token is not.
    let pin = pin(&token.pin_file)?;
    let so_pin = self::pin(&token.dir.join("so-pin"))?;
    if !is_initialised(&token)? {
        util(
            &token,
            "initialise the token",
            &[
                "--init-token",
                "--free",
                "--label",
                &token.label,
                "--so-pin",
                &so_pin,
                "--pin",
                &pin,
            ],
        )?;
    }
    Ok(token)
}

/// Whether the token is there with its user PIN set; an interrupted initialisation shows as not.
fn is_initialised(token: &TokenDir) -> Result<bool, SoftHsmError> {
    let slots = util(token, "list the slots", &["--show-slots"])?;
    let is = |line: &str, name: &str, value: &str| {
        line.trim()
            .strip_prefix(name)
            .is_some_and(|rest| rest.trim_start_matches(':').trim() == value)
    };
    Ok(slots.split("\nSlot ").any(|slot| {
        slot.lines().any(|line| is(line, "Label", &token.label))
            && slot.lines().any(|line| is(line, "User PIN init.", "yes"))
    }))
}

fn util(token: &TokenDir, what: &'static str, arguments: &[&str]) -> Result<String, SoftHsmError> {
    run(
        Command::new("softhsm2-util")
            .args(arguments)
            .env("SOFTHSM2_CONF", &token.conf),
        "softhsm2-util",
        "softhsm2",
        what,
        &token.dir,
    )
}

/// Runs a module's tool, from that Debian package; what it printed.
fn run(
    command: &mut Command,
    tool: &'static str,
    package: &'static str,
    what: &'static str,
    dir: &Path,
) -> Result<String, SoftHsmError> {
    let output = command.output().map_err(|_| SoftHsmError::NotInstalled {
        missing: tool,
        package,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(SoftHsmError::Util {
        tool,
        what,
        dir: dir.to_owned(),
        said,
    })
}

/// The PIN in this file, made at random when the file is not there.
fn pin(path: &Path) -> Result<String, SoftHsmError> {
    match fs::read_to_string(path) {
        Ok(pin) => return Ok(pin.trim_end().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file("read", path)(error)),
    }
    let mut random = [0; 12];
    io::Read::read_exact(
        &mut fs::File::open("/dev/urandom").map_err(file("open", Path::new("/dev/urandom")))?,
        &mut random,
    )
    .map_err(file("read", Path::new("/dev/urandom")))?;
    let pin = hex::encode(random);
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(file("create", path))?;
    out.write_all(pin.as_bytes()).map_err(file("write", path))?;
    Ok(pin)
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SoftHsmError {
    let path = path.to_owned();
    move |source| SoftHsmError::File { what, path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_run_changes_nothing_and_a_third_adds_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let first = up(dir.path(), 2).unwrap();
        let contents = |token: &TokenDir| -> Vec<_> {
            let serials = fs::read_dir(token.dir.join("tokens"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name());
            serials
                .chain([fs::read_to_string(&token.pin_file).unwrap().into()])
                .collect()
        };
        let before: Vec<_> = first.iter().map(contents).collect();
        let second = up(dir.path(), 3).unwrap();
        assert_eq!(second.len(), 3);
        assert_eq!(before, second[..2].iter().map(contents).collect::<Vec<_>>());
        assert_eq!(
            fs::metadata(&second[2].pin_file)
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
    }

    #[test]
    fn none_and_seventeen_tokens_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(up(dir.path(), 0), Err(SoftHsmError::Count(0))));
        assert!(matches!(up(dir.path(), 17), Err(SoftHsmError::Count(17))));
    }
}
