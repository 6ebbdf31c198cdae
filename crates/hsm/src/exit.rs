//! The exit codes of `tacit-token`, so that a supervisor (ours or systemd) can tell ends apart.

/// Ended in order: EOF on the socket, `Shutdown`.
pub const OK: i32 = 0;
/// The arguments are wrong, or a file named in them cannot be used (EX_USAGE).
pub const USAGE: i32 = 64;
/// The process could not be protected (dumps) or its state directory not be used (EX_OSERR).
pub const SYSTEM: i32 = 71;
/// A PKCS#11 call passed its deadline (EX_TEMPFAIL): replace the process.
pub const HANG: i32 = 75;
/// The token failed its self-test after an error: replace the process.
pub const SELF_TEST: i32 = 76;
