//! Keys from a file or a variable: for development only, so that an app can be tried before there is a daemon.
//!
//! The value is read once, when the configuration is, and lives in the arena like any other.

use std::sync::Arc;
use std::time::Duration;

use custody::Upstream;
use secret::{Arena, ArenaError, Secret};

use super::{KeySource, Lease, Leasing, Terms, Wanted};

/// One key that never changes.
#[derive(Debug)]
pub struct Fixed {
    lease: Arc<Lease>,
}

impl Fixed {
    /// Moves `key` into the arena, bound to the route's own origin.
    ///
    /// # Errors
    /// [`ArenaError`] when the arena is full.
    #[expect(
        clippy::disallowed_methods,
        reason = "moves a development key into the arena"
    )]
    pub fn new(wanted: &Wanted, key: Secret<[u8]>, arena: &Arena) -> Result<Self, ArenaError> {
        let mut slot = arena.slot(key.len())?;
        slot.expose_mut().copy_from_slice(key.expose());
        let lease = Lease {
            key_id: wanted.key_id.clone(),
            version: 0,
            sources: Vec::new(),
            provider: wanted.provider.clone(),
            upstreams: vec![Upstream::Origin(wanted.origin.clone())],
            ttl: Duration::MAX,
            offline_grace: Duration::ZERO,
            terms: Arc::new(Terms::open()),
            secret: slot,
        };
        Ok(Self {
            lease: Arc::new(lease),
        })
    }
}

impl KeySource for Fixed {
    fn lease<'a>(&'a self, _wanted: &'a Wanted) -> Leasing<'a> {
        Box::pin(std::future::ready(Ok(Arc::clone(&self.lease))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use providers::Permission;

    use super::*;

    #[tokio::test]
    async fn a_development_key_is_for_everything_that_need_not_be_named() {
        let wanted = Wanted {
            key_id: "dev".parse().unwrap(),
            provider: "openai".to_owned(),
            origin: "https://api.openai.com".parse().unwrap(),
        };
        let arena = Arena::new(4096).unwrap();
        let key = Secret::from(b"development".to_vec());
        let fixed = Fixed::new(&wanted, key, &arena).unwrap();
        let terms = Arc::clone(&fixed.lease(&wanted).await.unwrap().terms);
        assert!(terms.allows_model("anything") && terms.allows_endpoint(Permission::Chat));
        assert!(!terms.allows_endpoint(Permission::EphemeralKeys));
        assert!(terms.attributes.is_empty());
    }
}
