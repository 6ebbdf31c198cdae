//! All providers at once: a listener each, one certificate authority for all.

use std::path::Path;

use anyhow::Context as _;

use super::{Authority, Options, Provider, Slots, Upstream};
use crate::fixture;

/// Every provider, each with its own key and address.
pub struct Fleet {
    authority: Authority,
    upstreams: Vec<(Provider, Upstream)>,
}

impl Fleet {
    /// Starts them with the keys of `fixture`.
    pub async fn start(slots: Slots) -> anyhow::Result<Self> {
        let authority = Authority::new()?;
        let mut upstreams = Vec::new();
        for provider in Provider::ALL {
            let options = Options::default()
                .alone(provider)
                .key(provider, fixture::key(provider))
                .slots(slots)
                .authority(authority.clone());
            upstreams.push((provider, Upstream::start(options).await?));
        }
        Ok(Fleet {
            authority,
            upstreams,
        })
    }

    /// The one that is this provider.
    pub fn of(&self, provider: Provider) -> &Upstream {
        let found = self.upstreams.iter().find(|(have, _)| *have == provider);
        let (_, upstream) = found.expect("a fleet has every provider: started from Provider::ALL");
        upstream
    }

    /// Writes the certificate that clients of all of them must trust.
    pub fn write_ca(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, self.authority.ca_pem())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
