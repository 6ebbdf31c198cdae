//! What is known of each LLM provider: where it lives, where its credential goes on the wire, what its keys look like, what its endpoints
//! need, how its errors look.
//!
//! Pure data and pure functions: no I/O, no clock, and never a secret in a return value. The agent, the daemon and the command line read
//! the same table, so that they cannot disagree about a provider. A new provider is one entry in [`all`] and, if its API is new, a [`Family`].
#![forbid(unsafe_code)]

mod endpoint;
mod fault;
mod pattern;
mod permission;
mod refusal;
mod slot;

pub use endpoint::Endpoint;
pub use fault::UpstreamFault;
pub use pattern::Plausibility;
pub use permission::{Permission, UnknownPermission};
pub use slot::{Slot, is_credential_header, is_credential_parameter};

/// The API that a provider speaks: decides slot, endpoints, error envelope and error classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Anthropic's Messages API.
    Anthropic,
    /// Google's Generative Language API (AI Studio).
    Gemini,
    /// OpenAI's API and everything that copies it.
    Openai,
}

impl Family {
    /// The name by which configuration files call this family.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Openai => "openai",
        }
    }

    /// Finds a family by its configuration name.
    pub fn find(name: &str) -> Option<Self> {
        [Self::Anthropic, Self::Gemini, Self::Openai]
            .into_iter()
            .find(|family| family.name() == name)
    }
}

/// One provider as the world knows it.
#[derive(Debug)]
pub struct Provider {
    /// Name in configuration, in key headers and in the path prefix of the agent: `openai`.
    pub name: &'static str,
    /// The API that it speaks.
    pub family: Family,
    /// Where its keys may go when nothing else was said at sealing: scheme and host, no path.
    pub default_origin: &'static str,
}

impl Provider {
    /// Says whether `key` looks like a key of this provider. Advice only: formats change without notice, so nobody may refuse on it.
    pub fn check_key(&self, key: &[u8]) -> Plausibility {
        pattern::check(self.name, key)
    }
}

/// Every provider that Tacit knows by name.
pub fn all() -> &'static [Provider] {
    &[
        Provider {
            name: "openai",
            family: Family::Openai,
            default_origin: "https://api.openai.com",
        },
        Provider {
            name: "anthropic",
            family: Family::Anthropic,
            default_origin: "https://api.anthropic.com",
        },
        Provider {
            name: "gemini",
            family: Family::Gemini,
            default_origin: "https://generativelanguage.googleapis.com",
        },
    ]
}

/// Finds a provider by name.
pub fn find(name: &str) -> Option<&'static Provider> {
    all().iter().find(|provider| provider.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_provider_by_its_name_and_no_other() {
        for provider in all() {
            assert_eq!(
                find(provider.name).map(|p| p.default_origin),
                Some(provider.default_origin)
            );
        }
        assert!(find("OpenAI").is_none());
        assert!(find("").is_none());
    }

    #[test]
    fn default_origins_are_https_and_carry_no_path() {
        for provider in all() {
            let host = provider
                .default_origin
                .strip_prefix("https://")
                .unwrap_or("");
            assert!(!host.is_empty() && !host.contains('/'), "{}", provider.name);
        }
    }
}
