//! What is known of each LLM provider: where it lives, where its credential goes on the wire, what its keys look like, what its endpoints
//! need, how its errors look.
//!
//! Pure data and pure functions: no I/O, no clock, and never a secret in a return value. The agent, the daemon and the command line read
//! the same table, so that they cannot disagree about a provider. A new provider is one entry in [`all`], a table of
//! endpoints and, if its API is new, a [`Family`].
#![forbid(unsafe_code)]

mod api;
mod call;
mod endpoint;
mod fault;
mod inspect;
pub mod mock;
mod pattern;
mod percent;
mod permission;
mod pin;
mod probe;
mod provider;
mod refusal;
mod retry;
mod rule;
mod shape;
mod slot;
mod table;
mod translate;
mod usage;

pub use api::Api;
pub use call::{Call, ModelPlace};
pub use endpoint::Endpoint;
pub use fault::UpstreamFault;
pub use inspect::{BodyFault, Edit, Inspected, Scope, apply, inspect, inspect_frame};
pub use pattern::Plausibility;
pub use permission::{Permission, UnknownPermission};
pub use pin::{PinFault, Pinned, Pins};
pub use probe::{Probe, Verdict};
pub use provider::{Provider, all, find};
pub use retry::retry_after;
pub use shape::Shape;
pub use slot::{Slot, is_credential_header, is_credential_parameter, is_credential_subprotocol};
pub use usage::{Meter, Metered, Usage, estimate_tokens};

/// The API that a provider speaks: decides slot, endpoints, error envelope and error classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Anthropic's Messages API.
    Anthropic,
    /// Azure OpenAI and Foundry: OpenAI's API behind deployments.
    Azure,
    /// Amazon Bedrock with an API key.
    Bedrock,
    /// Cohere's API.
    Cohere,
    /// Google's Generative Language API (AI Studio).
    Gemini,
    /// OpenAI's API and everything that copies it.
    Openai,
    /// Google's Vertex AI.
    Vertex,
}

impl Family {
    /// Every family there is.
    pub const ALL: [Self; 7] = [
        Self::Anthropic,
        Self::Azure,
        Self::Bedrock,
        Self::Cohere,
        Self::Gemini,
        Self::Openai,
        Self::Vertex,
    ];

    /// The name by which configuration files call this family.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Azure => "azure",
            Self::Bedrock => "bedrock",
            Self::Cohere => "cohere",
            Self::Gemini => "gemini",
            Self::Openai => "openai",
            Self::Vertex => "vertex",
        }
    }

    /// Finds a family by its configuration name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_known_by_their_names() {
        for family in Family::ALL {
            assert_eq!(Family::find(family.name()), Some(family));
        }
        assert_eq!(Family::find("Openai"), None);
    }
}
