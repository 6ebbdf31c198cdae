//! `tacit`, the command of operators and developers. The story is in the library; here it starts and ends.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
