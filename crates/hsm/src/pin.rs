//! The PIN file and the latch: one attempt per PIN file, across restarts.
//!
//! A token locks its PIN for good after a few wrong attempts, and a supervisor that restarts a process with a wrong PIN uses
//! them up in a second. So a refusal is written down beside the identity of the PIN file (path, device, inode, times, size,
//! never its content), and nothing is tried again until that file changes or the operator says `unlatch`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use secret::Secret;
use zeroize::Zeroizing;

use crate::error::{ErrorClass, HsmError};

/// Longest PIN: tokens take 255 bytes at most.
const PIN_MAX: usize = 255;
const LATCH: &str = "pin-latch";

/// Where the PIN is read from and where refusals are written down.
#[derive(Debug, Clone)]
pub struct PinFile {
    path: PathBuf,
    latch: PathBuf,
}

/// A PIN together with the identity of the file that it was read from.
#[derive(Debug)]
pub struct Pin {
    /// The PIN.
    pub value: Secret<[u8]>,
    identity: String,
}

impl PinFile {
    /// The PIN in `path`, with the latch in `state_dir`.
    #[must_use]
    pub fn new(path: &Path, state_dir: &Path) -> PinFile {
        PinFile {
            path: path.to_owned(),
            latch: state_dir.join(LATCH),
        }
    }

    /// Reads the PIN, unless an attempt with this very file was refused before.
    ///
    /// # Errors
    /// [`ErrorClass::PinLatched`], or [`ErrorClass::PinFile`] with the rule that the file breaks.
    pub fn read(&self) -> Result<Pin, HsmError> {
        let file = File::open(&self.path)
            .map_err(|error| self.refuse(&format!("cannot be read: {error}")))?;
        let metadata = file
            .metadata()
            .map_err(|error| self.refuse(&format!("cannot be examined: {error}")))?;
        self.check_owner_and_mode(&metadata)?;
        let identity = identity(&self.path, &metadata);
        self.check_latch(&identity)?;
        let value =
            read_pin(file).map_err(|error| self.refuse(&format!("cannot be read: {error}")))?;
        if value.is_empty() || value.len() > PIN_MAX {
            return Err(self.refuse(&format!(
                "must hold 1 to {PIN_MAX} bytes and one line end at most"
            )));
        }
        Ok(Pin { value, identity })
    }

    /// Writes a refusal down. What cannot be written is said: the next start would try again.
    ///
    /// # Errors
    /// The latch cannot be written.
    pub fn latch(&self, pin: &Pin, reason: &str) -> Result<(), HsmError> {
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&self.latch)?;
            writeln!(file, "{}", pin.identity)?;
            writeln!(file, "{}", reason.replace('\n', " "))?;
            file.sync_all()
        };
        write().map_err(|error| {
            let text = format!("{reason}; and the latch {} cannot be written ({error}): stop this service before it tries again", self.latch.display());
            HsmError::new(ErrorClass::PinIncorrect, text)
        })
    }

    /// Removes the latch.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn unlatch(&self) -> Result<(), HsmError> {
        match fs::remove_file(&self.latch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HsmError::new(
                ErrorClass::PinLatched,
                format!("cannot remove {}: {error}", self.latch.display()),
            )),
            _ => Ok(()),
        }
    }

    fn check_latch(&self, identity: &str) -> Result<(), HsmError> {
        let latched = match fs::read_to_string(&self.latch) {
            Ok(latched) => latched,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let text = format!(
                    "cannot read the PIN latch {}: {error}",
                    self.latch.display()
                );
                return Err(HsmError::new(ErrorClass::PinLatched, text));
            }
        };
        let (about, reason) = latched.split_once('\n').unwrap_or((latched.as_str(), ""));
        if about != identity {
            return Ok(());
        }
        let text = format!(
            "not trying the PIN in {} again, since the token refused it ({}): correct the file, or run `tacit custodian unlatch`",
            self.path.display(),
            reason.trim()
        );
        Err(HsmError::new(ErrorClass::PinLatched, text))
    }

    /// Root's or our own; nobody else may read it, save a group when root says so.
    fn check_owner_and_mode(&self, metadata: &fs::Metadata) -> Result<(), HsmError> {
        let own = nix::unistd::geteuid().as_raw();
        if !metadata.is_file() {
            return Err(self.refuse("is not a regular file"));
        }
        if metadata.uid() != 0 && metadata.uid() != own {
            return Err(self.refuse(&format!(
                "belongs to uid {}, not to root or to uid {own}",
                metadata.uid()
            )));
        }
        let mode = metadata.mode() & 0o777;
        let allowed = if metadata.uid() == 0 { 0o740 } else { 0o700 };
        if mode & !allowed != 0 {
            return Err(self.refuse(&format!(
                "has mode {mode:04o}: nobody else may read it (0600; group read, 0640, only when root owns it)"
            )));
        }
        Ok(())
    }

    fn refuse(&self, rule: &str) -> HsmError {
        HsmError::new(
            ErrorClass::PinFile,
            format!("the PIN file {} {rule}", self.path.display()),
        )
    }
}

/// What tells one PIN file from another without looking at the PIN.
fn identity(path: &Path, metadata: &fs::Metadata) -> String {
    format!(
        "{} {}:{} {}.{:09} {}",
        path.display().to_string().replace('\n', " "),
        metadata.dev(),
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len()
    )
}

fn read_pin(mut file: File) -> io::Result<Secret<[u8]>> {
    // Room for the longest PIN, a line end and one byte more, so that a longer file is seen to be longer.
    let mut buffer = Zeroizing::new([0u8; PIN_MAX + 3]);
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    let content = &buffer[..length];
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let content = content.strip_suffix(b"\r").unwrap_or(content);
    Ok(Secret::from(content.to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PinFile, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let pin = PinFile::new(&path, directory.path());
        (directory, pin, path)
    }

    #[test]
    fn a_private_file_passes_and_its_neighbours_are_refused_by_rule() {
        let (_directory, pin, _) = file(b"1234\n", 0o600);
        assert_eq!(pin.read().unwrap().value.len(), 4);
        for (content, mode) in [
            (&b"1234"[..], 0o604),
            (b"1234", 0o660),
            (b"", 0o600),
            (b"\n", 0o600),
            (&[b'1'; 256], 0o600),
        ] {
            let (_directory, pin, path) = file(content, mode);
            let error = pin.read().unwrap_err();
            assert_eq!(error.class, ErrorClass::PinFile);
            assert!(error.text.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn a_refused_pin_is_not_read_again_until_the_file_changes_or_the_latch_goes() {
        let (_directory, pin, path) = file(b"1234", 0o600);
        pin.latch(&pin.read().unwrap(), "CKR_PIN_INCORRECT")
            .unwrap();
        let error = pin.read().unwrap_err();
        assert_eq!(error.class, ErrorClass::PinLatched);
        assert!(
            error.text.contains("CKR_PIN_INCORRECT") && error.text.contains("unlatch"),
            "{error}"
        );
        pin.unlatch().unwrap();
        assert!(pin.read().is_ok());
        pin.latch(&pin.read().unwrap(), "CKR_PIN_LOCKED").unwrap();
        fs::write(&path, b"56789").unwrap();
        assert!(
            pin.read().is_ok(),
            "another file content is another attempt"
        );
    }
}
