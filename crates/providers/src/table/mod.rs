//! The endpoint tables: an allow-list per provider.
//!
//! What is not listed is denied, so that a new endpoint of a provider is closed until somebody has looked at it. Endpoints that manage the
//! account, deploy machines or mint credentials are in no table: no policy can open them. (OpenAI's and Google's ephemeral tokens are listed
//! under a permission of their own, which no default contains.)

pub(crate) mod anthropic;
pub(crate) mod azure;
pub(crate) mod bedrock;
pub(crate) mod google;
pub(crate) mod openai;
pub(crate) mod others;

use crate::provider::Vendor;
use crate::rule::Rule;

/// Rows below one path prefix.
#[derive(Debug)]
pub(crate) struct Mount {
    /// Begins and ends with a slash.
    pub prefix: &'static str,
    /// What the prefix becomes upstream.
    pub becomes: &'static str,
    /// Rows in groups; the first that fits counts.
    pub groups: &'static [&'static [Rule]],
    /// Whether `:` begins a verb in the last segment (Google).
    pub verbs: bool,
}

impl Mount {
    const fn at(prefix: &'static str, groups: &'static [&'static [Rule]]) -> Self {
        Self {
            prefix,
            becomes: prefix,
            groups,
            verbs: false,
        }
    }

    const fn rewritten(
        prefix: &'static str,
        becomes: &'static str,
        groups: &'static [&'static [Rule]],
    ) -> Self {
        Self {
            prefix,
            becomes,
            groups,
            verbs: false,
        }
    }

    const fn with_verbs(prefix: &'static str, groups: &'static [&'static [Rule]]) -> Self {
        Self {
            prefix,
            becomes: prefix,
            groups,
            verbs: true,
        }
    }
}

/// The tables of a provider, in the order in which they are tried.
pub(crate) fn mounts(vendor: Vendor) -> &'static [Mount] {
    match vendor {
        Vendor::Openai => openai::MOUNTS,
        Vendor::Anthropic => anthropic::MOUNTS,
        Vendor::Gemini => google::GEMINI,
        Vendor::Vertex => google::VERTEX,
        Vendor::Azure => azure::MOUNTS,
        Vendor::Bedrock => bedrock::MOUNTS,
        Vendor::Mistral => others::MISTRAL,
        Vendor::Cohere => others::COHERE,
        Vendor::Groq => others::GROQ,
        Vendor::Deepseek => others::DEEPSEEK,
        Vendor::Xai => others::XAI,
        Vendor::Together => others::TOGETHER,
        Vendor::Fireworks => others::FIREWORKS,
        Vendor::Openrouter => others::OPENROUTER,
        Vendor::Perplexity => others::PERPLEXITY,
    }
}
