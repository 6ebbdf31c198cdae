//! Holds one secret in its memory: the positive control of the memory scan.
//!
//! `plant FILE` reads the file into its heap, prints `ready`, and waits until standard input ends.
//! `plant --nothing FILE` reads it too but overwrites its copy, which is the counter-example: a
//! process that had the secret and cleaned up is not accused.

#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let keep = arguments
        .next_if(|argument| argument == "--nothing")
        .is_none();
    let file = arguments
        .next()
        .ok_or_else(|| std::io::Error::other("usage: plant [--nothing] FILE"))?;
    let mut secret = std::fs::read(file)?;
    if !keep {
        secret.fill(0);
    }
    // Seen by the optimiser as used, so that neither copy nor overwriting can be left out.
    std::hint::black_box(&secret);
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    let mut rest = Vec::new();
    std::io::stdin().lock().read_to_end(&mut rest)?;
    std::hint::black_box(&secret);
    Ok(())
}
