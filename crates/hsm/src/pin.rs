//! The PIN file and the latch: one attempt per PIN file, across restarts.
//!
//! A token locks its PIN for good after a few wrong attempts, and a supervisor that restarts a process with a wrong PIN uses
//! them up in a second. So a refusal is written down beside the identity of the PIN file (path, device, inode, times, size,
//! never its content), and nothing is tried again until that file changes or the operator says `unlatch`.
//!
//! A process that is killed, or hangs, inside the login leaves no answer behind, yet the token may have counted an attempt.
//! So the attempt is written down before it is made and crossed out when it is answered. Of a PIN that the token never
//! accepted, [`UNANSWERED_MAX`] such attempts are made, and no more until the file changes or `unlatch`: one kill at the wrong
//! moment latches nothing. Of a PIN that the token did accept they are not counted: a right PIN locks no token, and an
//! outage in the middle of logins must not need an operator.

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
const TRYING: &str = "pin-trying";
const ACCEPTED: &str = "pin-accepted";
/// Unanswered attempts with one PIN file that was never accepted. Tokens lock at three or more.
pub const UNANSWERED_MAX: u32 = 2;

/// Where the PIN is read from and where refusals are written down.
#[derive(Debug, Clone)]
pub struct PinFile {
    path: PathBuf,
    state_dir: PathBuf,
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
            state_dir: state_dir.to_owned(),
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
        self.check_unanswered(&identity)?;
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
        let about = format!("{}\n{}\n", pin.identity, reason.replace('\n', " "));
        self.write(LATCH, &about).map_err(|error| {
            let text = format!("{reason}; and the latch {} cannot be written ({error}): stop this service before it tries again", self.latch.display());
            HsmError::new(ErrorClass::PinIncorrect, text)
        })?;
        // Not before the latch stands: what was accepted once is accepted no more.
        let _ = fs::remove_file(self.state_dir.join(ACCEPTED));
        self.answered();
        Ok(())
    }

    /// Writes down that a login is about to be tried. Without that no login: its end could not be known.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn trying(&self, pin: &Pin) -> Result<(), HsmError> {
        let attempts = self.unanswered(&pin.identity) + 1;
        self.write(TRYING, &format!("{}\n{attempts}\n", pin.identity))
            .map_err(|error| {
                let text = format!(
                    "not trying the PIN in {}: the attempt cannot be written down in {} ({error})",
                    self.path.display(),
                    self.state_dir.display()
                );
                HsmError::new(ErrorClass::PinFile, text)
            })
    }

    /// The token answered, whatever it was: the attempt is no longer in doubt.
    pub fn answered(&self) {
        // A mark that stays costs one of the unanswered attempts, nothing else.
        let _ = fs::remove_file(self.state_dir.join(TRYING));
    }

    /// The token took the PIN: later logins with this file are not counted.
    pub fn accepted(&self, pin: &Pin) {
        if self.noted(ACCEPTED).as_deref() != Some(&pin.identity) {
            // If it cannot be written, a later outage latches sooner.
            let _ = self.write(ACCEPTED, &pin.identity);
        }
        self.answered();
    }

    /// Removes the latch, and forgets unanswered attempts.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn unlatch(&self) -> Result<(), HsmError> {
        for path in [&self.latch, &self.state_dir.join(TRYING)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(HsmError::new(
                        ErrorClass::PinLatched,
                        format!("cannot remove {}: {error}", path.display()),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whole or not at all, and on the disk: a kill or a power cut in between must not look like another attempt's mark.
    fn write(&self, name: &str, content: &str) -> io::Result<()> {
        let (path, fresh) = (
            self.state_dir.join(name),
            self.state_dir.join(format!("{name}.new")),
        );
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&self.state_dir)?.sync_all()
    }

    fn noted(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.state_dir.join(name)).ok()
    }

    /// How many logins with this file were begun and never answered.
    fn unanswered(&self, identity: &str) -> u32 {
        let Some(trying) = self.noted(TRYING) else {
            return 0;
        };
        match trying.split_once('\n') {
            // A count that cannot be read was written by nobody we know: the careful reading is that none is left.
            Some((about, count)) if about == identity => {
                count.trim().parse().unwrap_or(UNANSWERED_MAX)
            }
            _ => 0,
        }
    }

    fn check_unanswered(&self, identity: &str) -> Result<(), HsmError> {
        if self.unanswered(identity) < UNANSWERED_MAX
            || self.noted(ACCEPTED).as_deref() == Some(identity)
        {
            return Ok(());
        }
        let text = format!(
            "not trying the PIN in {} again, since {UNANSWERED_MAX} logins with it were never answered (the process died or the token hung) and each may have counted: see that the token is well, then run `tacit custodian unlatch`, or write the file anew",
            self.path.display()
        );
        Err(HsmError::new(ErrorClass::PinLatched, text))
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
mod tests;
