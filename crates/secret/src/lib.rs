//! The unprintable secret, the locked arena it may live in, and reading one from a file.
//!
//! A value in [`Secret`] has no `Display`, no `Clone`, no serialisation, and a `Debug` that says only that it is
//! there. It leaves through [`Secret::expose`], at sites that the workspace's `clippy.toml` makes countable. What must
//! not reach swap, a core file or another process's `/proc/PID/mem` goes into the [`Arena`].
//!
//! `unsafe` stands in `arena.rs`: mapping, locking and wiping pages has no safe interface, and a copy kept by a safe wrapper
//! is exactly what the arena exists to prevent; and in one call of `process.rs`, which installs a system call filter with a
//! flag that no wrapper passes on. Nothing outside these may use it.
#![deny(unsafe_code)]

mod arena;
mod file;
pub mod process;
pub mod stack;
mod value;

pub use arena::{Arena, ArenaError, Slot, Tier, UnknownTier};
pub use file::{FileError, read_file};
pub use value::{Rule, Secret, check_header_safe};
