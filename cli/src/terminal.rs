//! Asking a person: yes or no, and a secret without echo. Both on the terminal itself, so that pipes stay free.

use std::fs::File;
use std::io::{self, Read, Write};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::output::clean;

/// Longest line read without echo; longer ones are refused by the rule for credentials.
const LINE_MAX_BYTES: usize = 8 * 1024 + 2;

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TerminalError {
    #[error("there is no terminal to ask on; {0}")]
    NoTerminal(&'static str),
    #[error("cannot read from the terminal")]
    Read(#[source] io::Error),
    #[error("the input on the terminal was ended or is too long")]
    Ended,
    #[error("not confirmed; nothing was changed")]
    Declined,
}

fn open(otherwise: &'static str) -> Result<File, TerminalError> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|_| TerminalError::NoTerminal(otherwise))
}

/// Goes on when the person types `yes`. `otherwise` names the option that answers where there is no terminal.
pub(crate) fn confirm(question: &str, otherwise: &'static str) -> Result<(), TerminalError> {
    let mut terminal = open(otherwise)?;
    write!(terminal, "{} [yes/no] ", clean(question)).map_err(TerminalError::Read)?;
    let line = read_line(&mut terminal)?;
    match line.trim_ascii() {
        b"yes" | b"y" => Ok(()),
        _ => Err(TerminalError::Declined),
    }
}

/// Reads one line that is not shown.
pub(crate) fn read_hidden(
    prompt: &str,
    otherwise: &'static str,
) -> Result<Zeroizing<Vec<u8>>, TerminalError> {
    let mut terminal = open(otherwise)?;
    write!(terminal, "{prompt}").map_err(TerminalError::Read)?;
    let silence = Silence::on(&terminal)?;
    let line = read_line(&mut terminal);
    drop(silence);
    let _ = writeln!(terminal); // the person's own line end was not shown
    line
}

/// Byte by byte: what follows the line belongs to the next question, and a buffer of std would keep the secret.
fn read_line(from: &mut impl Read) -> Result<Zeroizing<Vec<u8>>, TerminalError> {
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_MAX_BYTES)); // never regrows
    let mut byte = Zeroizing::new([0u8; 1]);
    loop {
        match from.read(&mut *byte) {
            Ok(0) => return Err(TerminalError::Ended),
            Ok(_) if byte[0] == b'\n' => return Ok(line),
            Ok(_) if line.len() == LINE_MAX_BYTES => return Err(TerminalError::Ended),
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TerminalError::Read(error)),
        }
    }
}

/// While this lives the terminal echoes nothing.
struct Silence {
    terminal: File,
    before: Termios,
}

impl Silence {
    fn on(terminal: &File) -> Result<Self, TerminalError> {
        let failed = |error: nix::Error| TerminalError::Read(error.into());
        let terminal = terminal.try_clone().map_err(TerminalError::Read)?;
        let before = tcgetattr(&terminal).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        // Ctrl-C would leave the terminal mute: without ISIG it ends up in the line, which the rule then refuses.
        quiet.local_flags.remove(LocalFlags::ISIG);
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &quiet).map_err(failed)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_its_end_and_leaves_the_next_alone() {
        let mut input: &[u8] = b"first\nsecond\n";
        assert_eq!(read_line(&mut input).expect("read").as_slice(), b"first");
        assert_eq!(read_line(&mut input).expect("read").as_slice(), b"second");
        assert!(matches!(read_line(&mut input), Err(TerminalError::Ended)));
    }

    #[test]
    fn a_line_has_a_bound() {
        let long = [vec![b'a'; LINE_MAX_BYTES + 1], b"\n".to_vec()].concat();
        assert!(read_line(&mut long.as_slice()).is_err());
        assert!(read_line(&mut &long[1..]).is_ok());
    }
}
