//! The providers that copy OpenAI in part, with what each has of its own; and Cohere.

use super::{Mount, anthropic, openai};
use crate::Permission as P;
use crate::Shape;
use crate::Shape::Openai as Usage;
use crate::inspect::layout::{self, OPENAI, OPENAI_FRAME};
use crate::rule::{ANY, POST, READ, Rule};

/// A POST with a model in its JSON and usage like OpenAI's.
const fn post(pattern: &'static str, needs: P) -> Rule {
    Rule::new(POST, pattern, needs).json(&OPENAI).reports(Usage)
}

/// Usage stands in the last chunk unasked, and unknown `stream_options` are refused: nothing is asked for.
pub(crate) const MISTRAL: &[Mount] = &[Mount::at(
    "/v1/",
    &[
        MISTRAL_OWN,
        openai::CHAT,
        openai::EMBEDDINGS,
        openai::AUDIO,
        openai::FILES,
        openai::FINE_TUNING,
        openai::MODELS,
        openai::MODERATION,
    ],
)];

const MISTRAL_OWN: &[Rule] = &[
    Rule::new(READ, "audio/transcriptions/realtime", P::Realtime)
        .query("model", &OPENAI_FRAME)
        .reports(Usage),
    post("fim/completions", P::Chat),
    // Names an agent, whose model is stored with it.
    post("agents/completions", P::Chat),
    post("agents/**", P::Chat),
    Rule::new(ANY, "agents/**", P::Chat),
    post("conversations/**", P::Chat),
    Rule::new(ANY, "conversations/**", P::Chat),
    post("ocr", P::Chat),
    post("chat/moderations", P::Moderation),
    post("classifications", P::Moderation),
    post("chat/classifications", P::Moderation),
    Rule::new(POST, "batch/jobs", P::Batches).json(&OPENAI),
    Rule::new(ANY, "batch/jobs/**", P::Batches),
    Rule::new(ANY, "libraries/**", P::Files),
];

pub(crate) const COHERE: &[Mount] = &[
    Mount::at("/compatibility/v1/", &[openai::CHAT, openai::EMBEDDINGS]),
    Mount::at("/v1/", &[COHERE_BOTH, COHERE_V1]),
    Mount::at("/v2/", &[COHERE_BOTH]),
];

const fn cohere(pattern: &'static str, needs: P) -> Rule {
    Rule::new(POST, pattern, needs)
        .json(&layout::COHERE)
        .reports(Shape::Cohere)
}

const COHERE_BOTH: &[Rule] = &[
    cohere("chat", P::Chat),
    cohere("embed", P::Embeddings),
    cohere("rerank", P::Embeddings),
    Rule::new(POST, "audio/transcriptions", P::Audio)
        .form(&layout::COHERE)
        .reports(Shape::Cohere),
];

const COHERE_V1: &[Rule] = &[
    cohere("generate", P::Chat),
    cohere("summarize", P::Chat),
    cohere("tokenize", P::Chat),
    cohere("detokenize", P::Chat),
    cohere("classify", P::Moderation),
    cohere("embed-jobs", P::Batches),
    Rule::new(POST, "embed-jobs/*/cancel", P::Batches),
    Rule::new(READ, "embed-jobs/**", P::Batches),
    Rule::new(ANY, "datasets/**", P::Files),
    // Names what it begins with in a place of its own.
    Rule::new(POST, "finetuning/**", P::FineTuning).unseen(),
    Rule::new(ANY, "finetuning/**", P::FineTuning),
    Rule::new(READ, "models/**", P::Models),
    Rule::new(POST, "check-api-key", P::Models),
];

/// Its last chunk has `x_groq.usage` unasked.
pub(crate) const GROQ: &[Mount] = &[Mount::at(
    "/openai/v1/",
    &[
        openai::CHAT,
        openai::RESPONSES,
        openai::EMBEDDINGS,
        openai::AUDIO,
        openai::FILES,
        openai::BATCHES,
        openai::FINE_TUNING,
        openai::MODELS,
    ],
)];

pub(crate) const DEEPSEEK: &[Mount] = &[
    Mount::at("/anthropic/v1/", &[anthropic::MESSAGES]),
    Mount::at("/beta/", DEEPSEEK_ALL),
    Mount::at("/v1/", DEEPSEEK_ALL),
    Mount::at("/", DEEPSEEK_ALL),
];

const DEEPSEEK_ALL: &[&[Rule]] = &[openai::ASKED_CHAT, DEEPSEEK_MODELS];

const DEEPSEEK_MODELS: &[Rule] = &[
    Rule::new(READ, "models", P::Models),
    Rule::new(READ, "models/*", P::Models),
];

/// Usage stands in the last chunk unasked.
pub(crate) const XAI: &[Mount] = &[Mount::at(
    "/v1/",
    &[
        openai::CHAT,
        openai::RESPONSES,
        anthropic::MESSAGES,
        openai::EMBEDDINGS,
        openai::IMAGES,
        openai::AUDIO,
        openai::FILES,
        XAI_OWN,
        openai::MODELS,
        openai::REALTIME,
        openai::TOKENS,
    ],
)];

const XAI_OWN: &[Rule] = &[
    Rule::new(READ, "language-models/**", P::Models),
    Rule::new(READ, "embedding-models/**", P::Models),
    Rule::new(READ, "image-generation-models/**", P::Models),
    Rule::new(READ, "video-generation-models/**", P::Models),
    Rule::new(READ, "chat/deferred-completion/*", P::Chat),
    post("tokenize-text", P::Chat),
    post("documents/search", P::Files),
    // Requests are put into a batch one by one, each in an envelope of its own.
    Rule::new(POST, "batches/*/requests", P::Batches)
        .json(&OPENAI)
        .unseen(),
    Rule::new(ANY, "batches/**", P::Batches),
];

pub(crate) const TOGETHER: &[Mount] = &[Mount::at(
    "/v1/",
    &[
        TOGETHER_OWN,
        openai::ASKED_CHAT,
        openai::CHAT,
        openai::EMBEDDINGS,
        openai::RERANK,
        openai::IMAGES,
        openai::AUDIO,
        openai::FILES,
        openai::BATCHES,
        openai::MODELS,
        openai::REALTIME,
    ],
)];

const TOGETHER_OWN: &[Rule] = &[
    Rule::new(READ, "audio/speech/websocket", P::Realtime)
        .query("model", &OPENAI_FRAME)
        .reports(Usage),
    Rule::new(POST, "files/upload", P::Files).upload(&OPENAI),
    Rule::new(POST, "fine-tunes/**", P::FineTuning).json(&OPENAI),
    Rule::new(ANY, "fine-tunes/**", P::FineTuning),
];

/// The SDK with an overridden base URL leaves out `/inference`; what stands below `/v1/` at the provider itself is account management.
pub(crate) const FIREWORKS: &[Mount] = &[
    Mount::at("/inference/v1/", FIREWORKS_ALL),
    Mount::rewritten("/v1/", "/inference/v1/", FIREWORKS_ALL),
];

/// Usage stands in the last chunk unasked.
const FIREWORKS_ALL: &[&[Rule]] = &[
    openai::CHAT,
    openai::RESPONSES,
    anthropic::MESSAGES,
    openai::EMBEDDINGS,
    openai::RERANK,
    openai::AUDIO,
    FIREWORKS_OWN,
    FIREWORKS_MODELS,
];

const FIREWORKS_OWN: &[Rule] = &[
    Rule::new(
        POST,
        "workflows/accounts/fireworks/models/{model}/**",
        P::Images,
    )
    .segment(crate::rule::Content::Opaque),
    Rule::new(
        POST,
        "image_generation/accounts/fireworks/models/{model}",
        P::Images,
    )
    .segment(crate::rule::Content::Opaque),
];

const FIREWORKS_MODELS: &[Rule] = &[
    Rule::new(READ, "models", P::Models),
    Rule::new(READ, "models/{id}", P::Models),
    Rule::new(READ, "models/accounts/*/models/*", P::Models),
];

/// Usage stands in the last chunk unasked.
pub(crate) const OPENROUTER: &[Mount] = &[Mount::at(
    "/api/v1/",
    &[
        openai::CHAT,
        openai::RESPONSES,
        anthropic::MESSAGES,
        openai::EMBEDDINGS,
        openai::RERANK,
        openai::IMAGES,
        openai::AUDIO,
        OPENROUTER_OWN,
    ],
)];

const OPENROUTER_OWN: &[Rule] = &[
    Rule::new(READ, "models/**", P::Models),
    Rule::new(READ, "embeddings/models", P::Models),
    Rule::new(READ, "providers", P::Models),
    // What one of the app's own requests cost.
    Rule::new(READ, "generation", P::Chat),
];

/// Usage and cost stand in every chunk unasked.
pub(crate) const PERPLEXITY: &[Mount] = &[
    Mount::at("/v1/", PERPLEXITY_ALL),
    Mount::at("/", PERPLEXITY_ALL),
];

const PERPLEXITY_ALL: &[&[Rule]] = &[
    openai::CHAT,
    openai::RESPONSES,
    openai::EMBEDDINGS,
    PERPLEXITY_OWN,
];

const PERPLEXITY_OWN: &[Rule] = &[
    post("contextualizedembeddings", P::Embeddings),
    post("sonar", P::Chat),
    Rule::new(POST, "search", P::Chat),
    Rule::new(POST, "async/chat/completions", P::Batches).json(&OPENAI),
    Rule::new(READ, "async/chat/completions/**", P::Batches),
    Rule::new(POST, "async/sonar", P::Batches).json(&OPENAI),
    Rule::new(READ, "async/sonar/**", P::Batches),
    Rule::new(READ, "models", P::Models),
];
