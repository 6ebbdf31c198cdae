//! A route: path prefix → provider, keys, origin. Everything about where a request goes is decided here, from configuration alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use custody::Origin;
use providers::Api;

use crate::targets::Targets;
use crate::upstream::Upstream;

/// One `[providers.NAME]` of the configuration.
pub struct Route {
    /// The path prefix, without slashes; also the provider's name in metrics and in the keys' headers.
    pub name: String,
    /// The API that it speaks.
    pub api: Api,
    /// Names by which apps may call models.
    pub aliases: BTreeMap<String, String>,
    /// Routes that take over, in order.
    pub fallback: Vec<String>,
    /// Where answers come from.
    pub source: Source,
}

/// Where the answers of a route come from.
pub enum Source {
    /// The provider, with one of several keys.
    Live {
        /// The keys.
        targets: Targets,
        /// Where requests go.
        upstream: Arc<Upstream>,
    },
    /// This process, in the provider's own format, without a key.
    Mock,
}

impl Route {
    /// Where its requests go, if they go anywhere.
    pub fn origin(&self) -> Option<&Origin> {
        match &self.source {
            Source::Live { upstream, .. } => Some(upstream.origin()),
            Source::Mock => None,
        }
    }

    /// The key that its metrics name when no key was chosen yet.
    pub fn first_key(&self) -> &str {
        match &self.source {
            Source::Live { targets, .. } => targets
                .iter()
                .next()
                .map_or("", |target| target.wanted.key_id.as_str()),
            Source::Mock => "mock",
        }
    }

    /// Its keys.
    pub fn targets(&self) -> Option<&Targets> {
        match &self.source {
            Source::Live { targets, .. } => Some(targets),
            Source::Mock => None,
        }
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The routes of one configuration.
#[derive(Debug, Default)]
pub struct Routes {
    /// In order of the configuration; a handful.
    pub list: Vec<Arc<Route>>,
}

impl Routes {
    /// The route whose prefix the path has, and the rest of the path.
    pub fn find<'a>(&self, path: &'a str) -> Option<(&Arc<Route>, &'a str)> {
        let path = path.strip_prefix('/')?;
        let (prefix, _) = path.split_once('/')?;
        Some((self.named(prefix)?, &path[prefix.len()..]))
    }

    /// The route of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Route>> {
        self.list.iter().find(|route| route.name == name)
    }
}
