//! Where the provider key for a route comes from.
//!
//! One trait of one verb. The daemon's client, the cache around it and the development source all speak it, so that the pipeline cannot tell
//! them apart, and a test can stand in for any of them. Cleartext exists in the slot of a [`Lease`] alone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use custody::{KeyId, Origin, Upstream};

use crate::respond::Refusal;
pub use terms::Terms;

pub mod cache;
#[cfg(test)]
pub mod fake;
pub mod fixed;
pub mod hsmd;
pub mod terms;

/// What a route asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Id of the provider key.
    pub key_id: KeyId,
    /// The route's provider, which must stand in the key's header.
    pub provider: String,
    /// The route's origin, which must stand in the key's header.
    pub origin: Origin,
}

/// Time-bound permission to use one version of one key, with its cleartext in the locked arena.
#[derive(Debug)]
pub struct Lease {
    /// Which key.
    pub key_id: KeyId,
    /// Which version.
    pub version: u32,
    /// The daemons whose shares opened it, each with its store's revision at that time; revisions of different daemons have nothing to do
    /// with each other. None for development sources.
    pub sources: Vec<(usize, u64)>,
    /// The provider that the opened header names.
    pub provider: String,
    /// The origins that the opened header names.
    pub upstreams: Vec<Upstream>,
    /// How long it may be used from the moment it arrived.
    pub ttl: Duration,
    /// How long past that while no daemon is reachable.
    pub offline_grace: Duration,
    /// What it may be used for.
    pub terms: Arc<Terms>,
    /// The key. Wiped when the last holder of the lease is gone.
    pub secret: secret::Slot,
}

impl Lease {
    /// The store's revision of a daemon when it gave a share; none when it gave none.
    pub fn revision_of(&self, source: usize) -> Option<u64> {
        let mut sources = self.sources.iter();
        sources.find_map(|(one, revision)| (*one == source).then_some(*revision))
    }
}

/// A future behind a trait object.
pub type Leasing<'a> = Pin<Box<dyn Future<Output = Result<Arc<Lease>, Refusal>> + Send + 'a>>;

/// Something that grants leases.
pub trait KeySource: Send + Sync {
    /// A lease that may be used now, or why there is none.
    fn lease<'a>(&'a self, wanted: &'a Wanted) -> Leasing<'a>;
}
