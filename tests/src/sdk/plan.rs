//! Which stories there are: SDK, generation, provider, and how each is told where to go.

use std::fmt;

use crate::upstream::Provider;

/// A language with its SDKs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// The SDKs from PyPI.
    Python,
    /// The SDKs from npm.
    Node,
}

/// What the SDKs are installed into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Today's majors.
    Current,
    /// The ones before: older headers and paths.
    Previous,
    /// Fireworks' SDK, which does not get along with the others' pydantic.
    Fireworks,
}

impl Tree {
    /// As in the names of pin files and directories.
    pub fn name(self) -> &'static str {
        match self {
            Tree::Current => "current",
            Tree::Previous => "previous",
            Tree::Fireworks => "fireworks",
        }
    }
}

/// Which of an agent's listeners a story needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Plain HTTP does.
    Plain,
    /// The SDK insists on `https://` or `wss://`.
    Tls,
}

impl Listener {
    /// Both.
    pub const ALL: [Listener; 2] = [Listener::Plain, Listener::Tls];
}

/// A program of an app developer.
#[derive(Debug)]
pub struct Story {
    /// Whom it talks to.
    pub provider: Provider,
    /// What it is written in.
    pub language: Language,
    /// Which SDKs it finds.
    pub tree: Tree,
    /// The name of its file, without `_story` and ending.
    pub script: &'static str,
    /// The variable from which the SDK, or the story, takes the base URL.
    pub variable: &'static str,
    /// What follows the provider's base in it.
    pub version: &'static str,
    /// Where it wants to be listened to.
    pub listener: Listener,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (provider, tree) = (self.provider.name(), self.tree.name());
        write!(
            f,
            "{} to {provider} ({:?}, {tree})",
            self.script, self.language
        )
    }
}

/// A story that plain HTTP serves; the others say so with `over_tls`.
const fn story(
    provider: Provider,
    (language, tree): (Language, Tree),
    script: &'static str,
    (variable, version): (&'static str, &'static str),
) -> Story {
    Story {
        provider,
        language,
        tree,
        script,
        variable,
        version,
        listener: Listener::Plain,
    }
}

const fn over_tls(mut story: Story) -> Story {
    story.listener = Listener::Tls;
    story
}

const PYTHON: (Language, Tree) = (Language::Python, Tree::Current);
const PYTHON_BEFORE: (Language, Tree) = (Language::Python, Tree::Previous);
const NODE: (Language, Tree) = (Language::Node, Tree::Current);
const NODE_BEFORE: (Language, Tree) = (Language::Node, Tree::Previous);

const OPENAI: (&str, &str) = ("OPENAI_BASE_URL", "/v1");
const ANTHROPIC: (&str, &str) = ("ANTHROPIC_BASE_URL", "");
const GEMINI: (&str, &str) = ("GOOGLE_GEMINI_BASE_URL", "");
const VERTEX: (&str, &str) = ("GOOGLE_VERTEX_BASE_URL", "");
const AZURE: (&str, &str) = ("AZURE_OPENAI_ENDPOINT", "");
const BEDROCK: (&str, &str) = ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "");
const MISTRAL: (&str, &str) = ("MISTRAL_BASE_URL", "");
const COHERE: (&str, &str) = ("CO_API_URL", "");
const GROQ: (&str, &str) = ("GROQ_BASE_URL", "");
const TOGETHER: (&str, &str) = ("TOGETHER_BASE_URL", "");
const FIREWORKS: (&str, &str) = ("FIREWORKS_BASE_URL", "");
const PERPLEXITY: (&str, &str) = ("PERPLEXITY_BASE_URL", "");
const COMPATIBLE: &str = "COMPATIBLE_BASE_URL";

/// Every story. Not here: `xai-sdk`, which speaks gRPC to a host of its own and does not pass through an agent.
pub static STORIES: &[Story] = &[
    story(Provider::OpenAi, PYTHON, "openai", OPENAI),
    story(Provider::OpenAi, PYTHON_BEFORE, "openai", OPENAI),
    story(Provider::OpenAi, NODE, "openai", OPENAI),
    story(Provider::OpenAi, NODE_BEFORE, "openai", OPENAI),
    story(Provider::OpenAi, PYTHON, "openai_realtime", OPENAI),
    story(Provider::OpenAi, PYTHON_BEFORE, "openai_realtime", OPENAI),
    over_tls(story(Provider::OpenAi, NODE, "openai_realtime", OPENAI)),
    over_tls(story(
        Provider::OpenAi,
        NODE_BEFORE,
        "openai_realtime",
        OPENAI,
    )),
    story(Provider::Anthropic, PYTHON, "anthropic", ANTHROPIC),
    story(Provider::Anthropic, PYTHON_BEFORE, "anthropic", ANTHROPIC),
    story(Provider::Anthropic, NODE, "anthropic", ANTHROPIC),
    story(Provider::Anthropic, NODE_BEFORE, "anthropic", ANTHROPIC),
    story(Provider::Gemini, PYTHON, "gemini", GEMINI),
    story(Provider::Gemini, PYTHON_BEFORE, "gemini", GEMINI),
    story(Provider::Gemini, NODE, "gemini", GEMINI),
    story(Provider::Gemini, NODE_BEFORE, "gemini", GEMINI),
    story(Provider::Gemini, PYTHON, "gemini_upload", GEMINI),
    story(Provider::Gemini, PYTHON_BEFORE, "gemini_upload", GEMINI),
    story(Provider::Gemini, NODE, "gemini_upload", GEMINI),
    story(Provider::Gemini, NODE_BEFORE, "gemini_upload", GEMINI),
    over_tls(story(Provider::Gemini, PYTHON, "gemini_live", GEMINI)),
    over_tls(story(
        Provider::Gemini,
        PYTHON_BEFORE,
        "gemini_live",
        GEMINI,
    )),
    story(Provider::Gemini, NODE, "gemini_live", GEMINI),
    story(Provider::Gemini, NODE_BEFORE, "gemini_live", GEMINI),
    story(Provider::Vertex, PYTHON, "vertex", VERTEX),
    story(Provider::Vertex, PYTHON_BEFORE, "vertex", VERTEX),
    story(Provider::Azure, PYTHON, "azure", AZURE),
    story(Provider::Azure, NODE, "azure", AZURE),
    over_tls(story(Provider::Bedrock, PYTHON, "bedrock", BEDROCK)),
    story(Provider::Mistral, PYTHON, "mistral", MISTRAL),
    story(Provider::Cohere, PYTHON, "cohere", COHERE),
    story(Provider::Groq, PYTHON, "groq", GROQ),
    story(
        Provider::Groq,
        NODE,
        "compatible",
        (COMPATIBLE, "/openai/v1"),
    ),
    story(Provider::DeepSeek, PYTHON, "compatible", (COMPATIBLE, "")),
    story(Provider::DeepSeek, NODE, "compatible", (COMPATIBLE, "/v1")),
    story(Provider::Xai, PYTHON, "compatible", (COMPATIBLE, "/v1")),
    story(Provider::Together, PYTHON, "together", TOGETHER),
    story(
        Provider::Together,
        PYTHON_BEFORE,
        "together",
        ("TOGETHER_BASE_URL", "/v1"),
    ),
    story(
        Provider::Fireworks,
        (Language::Python, Tree::Fireworks),
        "fireworks",
        FIREWORKS,
    ),
    story(
        Provider::OpenRouter,
        PYTHON,
        "compatible",
        (COMPATIBLE, "/api/v1"),
    ),
    story(
        Provider::OpenRouter,
        NODE,
        "compatible",
        (COMPATIBLE, "/api/v1"),
    ),
    story(Provider::Perplexity, PYTHON, "perplexity", PERPLEXITY),
];
