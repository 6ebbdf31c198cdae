//! NSS softokn databases for tests: a second, independent PKCS#11 module, to which every claim about modules is put.
//!
//! One directory, one database, one PIN per token, as with SoftHSM. NSS keeps keys in a file under a password and in ordinary
//! memory: nothing shipped uses this, either. `certutil` reads the password from the PIN file, not from its command line.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::{SoftHsmError, file, pin, run};

/// Where distributions put the module; the first that exists is taken.
const MODULES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/libsoftokn3.so",
    "/usr/lib/aarch64-linux-gnu/libsoftokn3.so",
    "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so",
    "/usr/lib64/libsoftokn3.so",
    "/usr/lib/libsoftokn3.so",
];

/// A variable for `env` that makes NSS derive keys from the PIN in one round: its tens of thousands for each object that is
/// read cost a test seconds, and a test's PIN protects nothing. Never outside of tests.
pub const QUICK: (&str, &str) = ("NSS_MAX_MP_PBE_ITERATION_COUNT", "1");

/// One provisioned token.
#[derive(Debug, Clone)]
pub struct NssDir {
    /// The custodian's id.
    pub id: String,
    /// The database's directory.
    pub dir: PathBuf,
    /// The file with the PIN, mode 0600.
    pub pin_file: PathBuf,
    /// The token's label: `tacit-` and the id.
    pub label: String,
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// What `init_args` must say.
    pub init_args: String,
}

/// The installed module.
///
/// # Errors
/// It is in none of the usual places.
pub fn module() -> Result<PathBuf, SoftHsmError> {
    let found = MODULES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file());
    found.ok_or(SoftHsmError::NotInstalled {
        missing: "libsoftokn3.so",
        package: "libnss3",
    })
}

/// Makes sure that `parent` holds an initialised database for custodian `id`. A second run changes nothing.
///
/// # Errors
/// [`SoftHsmError`] names the file or the step.
pub fn up(parent: &Path, id: &str) -> Result<NssDir, SoftHsmError> {
    let module = module()?;
    let dir = std::path::absolute(parent.join(id)).map_err(file("find", parent))?;
    let database = dir.join("nss");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&database)
        .map_err(file("create", &database))?;
    let label = format!("tacit-{id}");
    let token = NssDir {
        id: id.to_owned(),
        pin_file: dir.join("pin"),
        module,
        init_args: format!(
            "configdir='sql:{}' certPrefix='' keyPrefix='' secmod='' flags=noModDB dbTokenDescription='{label}'",
            database.display()
        ),
        label,
        dir,
    };
    pin(&token.pin_file)?;
    // The database of keys is made last.
    if !database.join("key4.db").is_file() {
        let directory = format!("sql:{}", database.display());
        let pin_file = token.pin_file.display().to_string();
        let arguments = ["-N", "-d", &directory, "-f", &pin_file];
        run(
            std::process::Command::new("certutil")
                .args(arguments)
                .env(QUICK.0, QUICK.1),
            "certutil",
            "libnss3-tools",
            "make the database",
            &token.dir,
        )?;
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_second_run_changes_nothing_and_another_id_is_another_token() {
        let dir = tempfile::tempdir().unwrap();
        let first = up(dir.path(), "n").unwrap();
        let keys = |token: &NssDir| fs::read(token.dir.join("nss/key4.db")).unwrap();
        let before = keys(&first);
        let again = up(dir.path(), "n").unwrap();
        assert_eq!(keys(&again), before);
        assert_eq!(again.init_args, first.init_args);
        assert_ne!(keys(&up(dir.path(), "m").unwrap()), before);
    }
}
