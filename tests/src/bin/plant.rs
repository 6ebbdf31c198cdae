//! Holds one secret in its memory: the positive control of the memory scan.
//!
//! Reads a line of hex on standard input, decodes it into the heap, prints `ready`, and waits until
//! standard input ends. The hex text itself is overwritten, so only the raw copy is there to find;
//! `plant --nothing` reads the line and keeps no copy, which is the counter-example.

#![forbid(unsafe_code)]

use std::io::{BufRead as _, Read as _, Write as _};

fn main() -> std::io::Result<()> {
    let keep = std::env::args().nth(1).as_deref() != Some("--nothing");
    let mut stdin = std::io::stdin().lock();
    let mut line = Vec::new();
    stdin.read_until(b'\n', &mut line)?;
    let mut secret = hex::decode(line.trim_ascii()).map_err(std::io::Error::other)?;
    line.fill(0);
    if !keep {
        secret.fill(0);
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    let mut rest = Vec::new();
    stdin.read_to_end(&mut rest)?;
    // Read after the wait, so that nothing may drop the buffers before it.
    std::hint::black_box((&secret, &line));
    Ok(())
}
