//! The path of one provider's API as another of the same family has it, for a request that another provider takes over.

use crate::Api;
use crate::provider::Vendor;

impl Api {
    /// `path` of this API, as `to` has it. Both are of one family; a path below none of this API's bases stays as it is, and is judged by
    /// `to` like any other.
    pub fn translate(self, to: Self, path: &str) -> String {
        if self.vendor() == to.vendor() {
            return path.to_owned();
        }
        let below = bases(self.vendor())
            .iter()
            .find_map(|base| path.strip_prefix(base).filter(|rest| rest.starts_with('/')));
        match (below, bases(to.vendor()).first()) {
            (Some(rest), Some(base)) => format!("{base}{rest}"),
            _ => path.to_owned(),
        }
    }
}

/// Where the endpoints of an OpenAI-like API begin: first the one to write, then what else is read, the longest first. Families of one
/// provider have nothing to translate.
fn bases(vendor: Vendor) -> &'static [&'static str] {
    match vendor {
        Vendor::Openai | Vendor::Mistral | Vendor::Xai | Vendor::Together => &["/v1"],
        Vendor::Deepseek => &["/v1", "/beta", ""],
        Vendor::Groq => &["/openai/v1"],
        Vendor::Fireworks => &["/inference/v1", "/v1"],
        Vendor::Openrouter => &["/api/v1"],
        // Chat stands at the root; what is below /v1 is found there by its own name.
        Vendor::Perplexity => &["", "/v1"],
        Vendor::Anthropic
        | Vendor::Azure
        | Vendor::Bedrock
        | Vendor::Cohere
        | Vendor::Gemini
        | Vendor::Vertex => &[],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Family;

    #[test]
    fn a_path_is_found_where_the_other_provider_has_it() {
        for (from, to, path, there) in [
            (
                "openai",
                "groq",
                "/v1/chat/completions",
                "/openai/v1/chat/completions",
            ),
            ("groq", "openai", "/openai/v1/models", "/v1/models"),
            ("openai", "openrouter", "/v1/responses", "/api/v1/responses"),
            (
                "openai",
                "perplexity",
                "/v1/chat/completions",
                "/chat/completions",
            ),
            (
                "perplexity",
                "openai",
                "/chat/completions",
                "/v1/chat/completions",
            ),
            ("fireworks", "together", "/v1/embeddings", "/v1/embeddings"),
            (
                "fireworks",
                "xai",
                "/inference/v1/embeddings",
                "/v1/embeddings",
            ),
            (
                "deepseek",
                "openai",
                "/chat/completions",
                "/v1/chat/completions",
            ),
            ("openai", "groq", "/v1beta/x", "/v1beta/x"),
            ("openai", "openai", "/v1/x", "/v1/x"),
        ] {
            let (from_api, to_api) = (Api::known(from).unwrap(), Api::known(to).unwrap());
            assert_eq!(from_api.translate(to_api, path), there, "{from} {to}");
        }
        let own = Api::own(Family::Openai);
        assert_eq!(
            own.translate(Api::known("groq").unwrap(), "/v1/models"),
            "/openai/v1/models"
        );
    }
}
