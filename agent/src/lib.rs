//! `tacit-agent`, the sidecar.
#![forbid(unsafe_code)]

pub mod http1;
