//! The table of providers: one entry each, and nothing in it that a request could change.

use crate::pattern;
use crate::{Api, Family, Plausibility};

/// One provider as the world knows it.
#[derive(Debug)]
pub struct Provider {
    /// Name in configuration, in key headers and in the path prefix of the agent: `openai`.
    pub name: &'static str,
    /// The API that it speaks.
    pub family: Family,
    /// Where its keys may go when nothing else was said at sealing: scheme and host, no path. `None`: there is no such place, because the
    /// host names the customer's resource or region, so that the operator has to say it.
    pub default_origin: Option<&'static str>,
    pub(crate) vendor: Vendor,
}

/// The providers that Tacit knows, as a type: a `match` on it asks each of them every question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Vendor {
    Openai,
    Anthropic,
    Gemini,
    Vertex,
    Azure,
    Bedrock,
    Mistral,
    Cohere,
    Groq,
    Deepseek,
    Xai,
    Together,
    Fireworks,
    Openrouter,
    Perplexity,
}

impl Provider {
    /// What speaks behind its routes.
    pub fn api(&self) -> Api {
        Api::of(self.vendor)
    }

    /// Says whether `key` looks like a key of this provider. Advice only: formats change without notice, so nobody may refuse on it.
    pub fn check_key(&self, key: &[u8]) -> Plausibility {
        pattern::check(self.name, key)
    }
}

const fn entry(
    name: &'static str,
    vendor: Vendor,
    family: Family,
    default_origin: Option<&'static str>,
) -> Provider {
    Provider {
        name,
        family,
        default_origin,
        vendor,
    }
}

static ALL: [Provider; 15] = {
    use Family as F;
    use Vendor as V;
    [
        entry(
            "openai",
            V::Openai,
            F::Openai,
            Some("https://api.openai.com"),
        ),
        entry(
            "anthropic",
            V::Anthropic,
            F::Anthropic,
            Some("https://api.anthropic.com"),
        ),
        entry(
            "gemini",
            V::Gemini,
            F::Gemini,
            Some("https://generativelanguage.googleapis.com"),
        ),
        // The global endpoint. Regional ones, `{location}-aiplatform.googleapis.com`, are the operator's to name.
        entry(
            "vertex",
            V::Vertex,
            F::Vertex,
            Some("https://aiplatform.googleapis.com"),
        ),
        // `{resource}.openai.azure.com` or `{resource}.services.ai.azure.com`.
        entry("azure", V::Azure, F::Azure, None),
        // `bedrock-runtime.{region}.amazonaws.com` or `bedrock-mantle.{region}.api.aws`.
        entry("bedrock", V::Bedrock, F::Bedrock, None),
        entry(
            "mistral",
            V::Mistral,
            F::Openai,
            Some("https://api.mistral.ai"),
        ),
        entry(
            "cohere",
            V::Cohere,
            F::Cohere,
            Some("https://api.cohere.com"),
        ),
        entry("groq", V::Groq, F::Openai, Some("https://api.groq.com")),
        entry(
            "deepseek",
            V::Deepseek,
            F::Openai,
            Some("https://api.deepseek.com"),
        ),
        entry("xai", V::Xai, F::Openai, Some("https://api.x.ai")),
        entry(
            "together",
            V::Together,
            F::Openai,
            Some("https://api.together.ai"),
        ),
        entry(
            "fireworks",
            V::Fireworks,
            F::Openai,
            Some("https://api.fireworks.ai"),
        ),
        entry(
            "openrouter",
            V::Openrouter,
            F::Openai,
            Some("https://openrouter.ai"),
        ),
        entry(
            "perplexity",
            V::Perplexity,
            F::Openai,
            Some("https://api.perplexity.ai"),
        ),
    ]
};

/// Every provider that Tacit knows by name.
pub fn all() -> &'static [Provider] {
    &ALL
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
            assert_eq!(find(provider.name).map(|p| p.vendor), Some(provider.vendor));
        }
        assert!(find("OpenAI").is_none());
        assert!(find("").is_none());
    }

    #[test]
    fn default_origins_are_https_and_carry_no_path() {
        for provider in all() {
            let Some(origin) = provider.default_origin else {
                assert!(matches!(provider.name, "azure" | "bedrock"));
                continue;
            };
            let host = origin.strip_prefix("https://").unwrap_or("");
            assert!(!host.is_empty() && !host.contains('/'), "{}", provider.name);
        }
    }
}
