//! What speaks behind a route: a provider that Tacit knows, or an operator's own server of some family.

use crate::Family;
use crate::provider::{self, Vendor};

/// What speaks behind a route. Small and `Copy`: every question about a provider is a method here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Api {
    who: Who,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Known(Vendor),
    Own(Family),
}

impl Api {
    /// The API of a provider that Tacit knows by this name.
    pub fn known(name: &str) -> Option<Self> {
        provider::find(name).map(provider::Provider::api)
    }

    /// The API of an operator's own server that speaks like `family`.
    pub fn own(family: Family) -> Self {
        Self {
            who: Who::Own(family),
        }
    }

    pub(crate) const fn of(vendor: Vendor) -> Self {
        Self {
            who: Who::Known(vendor),
        }
    }

    /// The family, which decides the error envelope.
    pub fn family(self) -> Family {
        match self.who {
            Who::Own(family) => family,
            Who::Known(vendor) => match vendor {
                Vendor::Anthropic => Family::Anthropic,
                Vendor::Azure => Family::Azure,
                Vendor::Bedrock => Family::Bedrock,
                Vendor::Cohere => Family::Cohere,
                Vendor::Gemini => Family::Gemini,
                Vendor::Vertex => Family::Vertex,
                Vendor::Openai
                | Vendor::Mistral
                | Vendor::Groq
                | Vendor::Deepseek
                | Vendor::Xai
                | Vendor::Together
                | Vendor::Fireworks
                | Vendor::Openrouter
                | Vendor::Perplexity => Family::Openai,
            },
        }
    }

    /// The provider whose tables apply: an operator's own server has those of the provider that its family is named after.
    pub(crate) fn vendor(self) -> Vendor {
        match self.who {
            Who::Known(vendor) => vendor,
            Who::Own(family) => match family {
                Family::Anthropic => Vendor::Anthropic,
                Family::Azure => Vendor::Azure,
                Family::Bedrock => Vendor::Bedrock,
                Family::Cohere => Vendor::Cohere,
                Family::Gemini => Vendor::Gemini,
                Family::Openai => Vendor::Openai,
                Family::Vertex => Vendor::Vertex,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_the_family_of_the_table() {
        for provider in provider::all() {
            assert_eq!(Api::known(provider.name), Some(provider.api()));
            assert_eq!(
                provider.api().family(),
                provider.family,
                "{}",
                provider.name
            );
        }
        assert_eq!(Api::known("llm-internal"), None);
        assert_ne!(Api::known("openai"), Some(Api::own(Family::Openai)));
        assert_eq!(Api::own(Family::Openai).vendor(), Vendor::Openai);
    }
}
