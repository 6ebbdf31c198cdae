//! The providers that the test provider can be, and their names.

use anyhow::Context as _;

/// An API that this server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    /// `/v1/chat/completions`, `/v1/responses`, `/v1/embeddings`, `/v1/files`, `/v1/audio/…`, `/v1/realtime`.
    OpenAi,
    /// `/v1/messages`, `/v1/models`.
    Anthropic,
    /// `/v1/models/…:generateContent` and siblings, also under `/v1beta/`; Live and uploads.
    Gemini,
    /// `/v1beta1/projects/…/publishers/{google,anthropic}/models/…`.
    Vertex,
    /// `/openai/deployments/…?api-version=` and `/openai/v1/…`.
    Azure,
    /// `/model/…/{converse,invoke}` and their streams.
    Bedrock,
    /// OpenAI-like below `/v1`; usage in the last chunk, unasked.
    Mistral,
    /// `/v2/chat`, `/v2/embed`.
    Cohere,
    /// OpenAI-like below `/openai/v1`.
    Groq,
    /// OpenAI-like below `/`, `/v1` and `/beta`.
    DeepSeek,
    /// OpenAI-like below `/v1`; says 400 for a bad key.
    Xai,
    /// OpenAI-like below `/v1`.
    Together,
    /// OpenAI-like below `/inference/v1`.
    Fireworks,
    /// OpenAI-like below `/api/v1`; reports its cost.
    OpenRouter,
    /// OpenAI-like below `/` and `/v1`; reports its cost.
    Perplexity,
}

impl Provider {
    /// All of them.
    pub const ALL: [Provider; 15] = [
        Provider::OpenAi,
        Provider::Anthropic,
        Provider::Gemini,
        Provider::Vertex,
        Provider::Azure,
        Provider::Bedrock,
        Provider::Mistral,
        Provider::Cohere,
        Provider::Groq,
        Provider::DeepSeek,
        Provider::Xai,
        Provider::Together,
        Provider::Fireworks,
        Provider::OpenRouter,
        Provider::Perplexity,
    ];

    /// Those that one listener tells apart by path and headers. The others' paths coincide, so each of
    /// them gets a listener of its own (`Options::alone`).
    pub const SHARED: [Provider; 3] = [Provider::OpenAi, Provider::Anthropic, Provider::Gemini];

    /// The name that configuration files use.
    pub fn name(self) -> &'static str {
        match self {
            Provider::OpenAi => "openai",
            Provider::Anthropic => "anthropic",
            Provider::Gemini => "gemini",
            Provider::Vertex => "vertex",
            Provider::Azure => "azure",
            Provider::Bedrock => "bedrock",
            Provider::Mistral => "mistral",
            Provider::Cohere => "cohere",
            Provider::Groq => "groq",
            Provider::DeepSeek => "deepseek",
            Provider::Xai => "xai",
            Provider::Together => "together",
            Provider::Fireworks => "fireworks",
            Provider::OpenRouter => "openrouter",
            Provider::Perplexity => "perplexity",
        }
    }
}

impl std::str::FromStr for Provider {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        Provider::ALL
            .into_iter()
            .find(|provider| provider.name() == name)
            .with_context(|| format!("unknown provider {name:?}"))
    }
}
