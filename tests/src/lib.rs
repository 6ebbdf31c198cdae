//! End-to-end stories: what stands around the built binaries when they are driven from outside.
//!
//! `upstream` is the provider (TLS, strict about the key), `sdk` runs the real SDKs, `process` and
//! `stack` start our binaries and end them, `canary` hunts secrets in files and in memory. Nothing
//! here is shipped, nothing depends on it, and it must never make a story pass that the user would
//! see fail: it waits on conditions, never on time, and every check has its counter-example.

#![forbid(unsafe_code)]

pub mod canary;
pub mod daemon;
pub mod fixture;
pub mod http;
pub mod metered;
pub mod parts;
pub mod plain_tls;
pub mod process;
pub mod raw;
pub mod scene;
pub mod sdk;
pub mod seal;
pub mod stack;
pub mod tap;
pub mod upstream;
pub mod vault;
pub mod workload;
