//! A route: path prefix → provider, key, origin. Everything about where a request goes is decided here, from configuration alone.

use std::sync::Arc;

use providers::{Endpoint, Family, Permission};

use crate::http1::RequestHead;
use crate::keys::{KeySource, Wanted};
use crate::respond::{Code, Refusal};
use crate::upstream::Upstream;

/// One `[providers.NAME]` of the configuration.
pub struct Route {
    /// The path prefix, without slashes; also the provider's name in metrics and in the key's header.
    pub name: String,
    /// The API that it speaks.
    pub family: Family,
    /// Which key, for which origin.
    pub wanted: Wanted,
    /// Where leases come from.
    pub keys: Arc<dyn KeySource>,
    /// Where requests go.
    pub upstream: Arc<Upstream>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route")
            .field("name", &self.name)
            .field("key", &self.wanted.key_id)
            .finish_non_exhaustive()
    }
}

/// The routes of one configuration.
#[derive(Debug, Default)]
pub struct Routes {
    /// In order of the configuration; a handful.
    pub list: Vec<Arc<Route>>,
}

/// That method and path were checked against the route's API: needed to build an upstream request.
#[derive(Debug)]
pub struct Checked<'a> {
    /// The path as the provider will see it: canonical, checked, and exactly what is sent.
    path: &'a str,
}

impl Checked<'_> {
    /// The path as the provider will see it.
    pub fn path(&self) -> &str {
        self.path
    }
}

impl Routes {
    /// The route whose prefix the path has, and the rest of the path.
    pub fn find<'a>(&self, path: &'a str) -> Option<(&Arc<Route>, &'a str)> {
        let path = path.strip_prefix('/')?;
        let (prefix, _) = path.split_once('/')?;
        let route = self.list.iter().find(|route| route.name == prefix)?;
        Some((route, &path[prefix.len()..]))
    }
}

impl Route {
    /// Whether this endpoint may be asked for at all. Account management and unknown endpoints are refused before any key is touched.
    pub fn check<'a>(&self, head: &RequestHead, path: &'a str) -> Result<Checked<'a>, Refusal> {
        match self.family.endpoint(head.method, path) {
            // Whoever holds such a credential goes round this agent, and no revoke reaches it. Only a permission of the key itself may allow
            // that, and no lease carries permissions yet.
            Endpoint::Needs(Permission::EphemeralKeys) => Err(Refusal::new(
                Code::PermissionDenied,
                "this endpoint hands out a provider credential of its own, with which requests would go round Tacit; it is not allowed",
            )),
            Endpoint::Needs(_) => Ok(Checked { path }),
            Endpoint::Denied => Err(Refusal::new(
                Code::PermissionDenied,
                "this method and path are not among the provider's endpoints that may be used through Tacit",
            )),
        }
    }
}
