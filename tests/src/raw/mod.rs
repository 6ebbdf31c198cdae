//! What an attack needs: both ends of the agent's wires, byte by byte.
//!
//! `app` is the app that may be hostile, `upstream` the provider that may be careless or hostile, `trap` a place where no byte may
//! ever arrive, `agent` the built binary between them, `forms` the dresses in which a key could come back and the hunt for all of
//! them, `scene` the whole with the property that every attack must leave true. Nothing here repairs, reorders or hides what was
//! sent: an end that is kind to the agent would hide what an attacker sees.

pub mod agent;
pub mod app;
pub mod authority;
pub mod forms;
pub mod gzip;
pub mod request;
pub mod scene;
pub mod script;
pub mod trap;
pub mod upstream;

use std::future::Future;
use std::time::Duration;

/// How long anything may take that should happen at once. Only a failing test uses it up.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Waits for what should come soon; panics with `what` when it does not.
pub async fn patient<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("gave up after {PATIENCE:?}: {what}"),
    }
}

/// Where `needle` begins in `bytes`.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, needle)
}

/// How often `needle` stands in `bytes`.
pub fn count(bytes: &[u8], needle: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, needle).count()
}

/// The values of every field of this name in a head.
pub fn fields(head: &str, name: &str) -> Vec<String> {
    lines(head)
        .filter(|(have, _)| have.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.to_owned())
        .collect()
}

/// Every field of a head, name as sent and value trimmed.
pub fn lines(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
}
