//! Which input was being worked on when the process died, so that no input kills the token twice and gets a third chance.
//!
//! Before the token sees an input its hash is written to a small file; a process that starts and finds one there knows what
//! killed its predecessor. An input that was merely in the way of a SIGKILL clears itself by succeeding once. The file is in
//! the page cache, not synced: it must survive the process, not the machine.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use custody::sha256;

/// Deaths after which an input is refused.
const DEATHS_MAX: u8 = 2;
/// Suspects remembered; the oldest gives way. An attacker who can name inputs at all can only push out suspects of his own.
const SUSPECTS_MAX: usize = 64;
const ENTRY: usize = 33;
const IDLE: [u8; 32] = [0; 32];

/// The journal of one token process.
#[derive(Debug)]
pub struct Journal {
    /// `None` in tests of the kernel alone.
    files: Option<(File, File)>,
    suspects: Vec<([u8; 32], u8)>,
}

impl Journal {
    /// A journal that forgets: for the fake and for tests.
    #[must_use]
    pub fn forgetful() -> Journal {
        Journal {
            files: None,
            suspects: Vec::new(),
        }
    }

    /// Opens the journal in this directory and takes note of what killed the last process, if anything did.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn open(directory: &Path) -> io::Result<Journal> {
        let open = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(directory.join(name))
        };
        let (current, list) = (open("current-input")?, open("suspect-inputs")?);
        let mut journal = Journal {
            suspects: read_suspects(&list)?,
            files: Some((current, list)),
        };
        if let Some(culprit) = journal.interrupted()? {
            journal.blame(culprit);
            journal.save()?;
            journal.write_current(&IDLE)?;
        }
        Ok(journal)
    }

    /// The name of an input: what it is and its bytes.
    #[must_use]
    pub fn name(kind: u8, bytes: &[u8]) -> [u8; 32] {
        let mut input = Vec::with_capacity(bytes.len() + 1);
        input.push(kind);
        input.extend_from_slice(bytes);
        sha256(&input)
    }

    /// Whether this input killed the token process often enough to be refused.
    #[must_use]
    pub fn is_poisoned(&self, input: &[u8; 32]) -> bool {
        self.suspects
            .iter()
            .any(|(suspect, deaths)| suspect == input && *deaths >= DEATHS_MAX)
    }

    /// Notes that the token is about to see this input. A journal that cannot be written costs the protection, not the request.
    pub fn begin(&mut self, input: &[u8; 32]) {
        let _ = self.write_current(input);
    }

    /// Notes that the token survived it.
    pub fn end(&mut self, input: &[u8; 32]) {
        let _ = self.write_current(&IDLE);
        if let Some(at) = self
            .suspects
            .iter()
            .position(|(suspect, _)| suspect == input)
        {
            self.suspects.remove(at);
            let _ = self.save();
        }
    }

    /// Forgets all suspects: the operator says that the cause is gone.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forgive(&mut self) -> io::Result<()> {
        self.suspects.clear();
        self.save()
    }

    fn interrupted(&self) -> io::Result<Option<[u8; 32]>> {
        let Some((current, _)) = &self.files else {
            return Ok(None);
        };
        let mut input = IDLE;
        match current.read_exact_at(&mut input, 0) {
            Ok(()) => Ok((input != IDLE).then_some(input)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn blame(&mut self, culprit: [u8; 32]) {
        if let Some((_, deaths)) = self
            .suspects
            .iter_mut()
            .find(|(suspect, _)| *suspect == culprit)
        {
            *deaths = deaths.saturating_add(1);
            return;
        }
        if self.suspects.len() >= SUSPECTS_MAX {
            self.suspects.remove(0);
        }
        self.suspects.push((culprit, 1));
    }

    fn write_current(&self, input: &[u8; 32]) -> io::Result<()> {
        match &self.files {
            Some((current, _)) => current.write_all_at(input, 0),
            None => Ok(()),
        }
    }

    fn save(&self) -> io::Result<()> {
        let Some((_, list)) = &self.files else {
            return Ok(());
        };
        let mut bytes = Vec::with_capacity(self.suspects.len() * ENTRY);
        for (suspect, deaths) in &self.suspects {
            bytes.extend_from_slice(suspect);
            bytes.push(*deaths);
        }
        list.write_all_at(&bytes, 0)?;
        list.set_len(bytes.len() as u64)
    }
}

fn read_suspects(mut list: &File) -> io::Result<Vec<([u8; 32], u8)>> {
    let mut bytes = Vec::new();
    list.by_ref()
        .take((SUSPECTS_MAX * ENTRY) as u64)
        .read_to_end(&mut bytes)?;
    // A cut-off last entry (the machine died in between) is dropped: it costs one more death.
    let entries = bytes.chunks_exact(ENTRY);
    Ok(entries
        .filter_map(|entry| Some((*entry.first_chunk()?, *entry.last()?)))
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_input_that_was_in_work_at_two_deaths_is_poisoned_and_its_neighbour_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let killer = Journal::name(1, b"killer");
        for deaths in 0..2 {
            let mut journal = Journal::open(directory.path()).unwrap();
            assert!(!journal.is_poisoned(&killer), "after {deaths} deaths");
            journal.begin(&killer);
        }
        let mut journal = Journal::open(directory.path()).unwrap();
        assert!(journal.is_poisoned(&killer));
        assert!(!journal.is_poisoned(&Journal::name(1, b"neighbour")));
        assert!(!journal.is_poisoned(&Journal::name(2, b"killer")));
        drop(journal);
        journal = Journal::open(directory.path()).unwrap();
        assert!(
            journal.is_poisoned(&killer),
            "it survives an orderly restart"
        );
        journal.forgive().unwrap();
        assert!(
            !Journal::open(directory.path())
                .unwrap()
                .is_poisoned(&killer)
        );
    }

    #[test]
    fn an_innocent_input_clears_itself() {
        let directory = tempfile::tempdir().unwrap();
        let innocent = Journal::name(1, b"innocent");
        Journal::open(directory.path()).unwrap().begin(&innocent);
        let mut journal = Journal::open(directory.path()).unwrap();
        journal.begin(&innocent);
        journal.end(&innocent);
        Journal::open(directory.path()).unwrap().begin(&innocent);
        assert!(
            !Journal::open(directory.path())
                .unwrap()
                .is_poisoned(&innocent)
        );
    }
}
