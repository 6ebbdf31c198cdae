//! Gemini (AI Studio) and Vertex AI. The model is in the path, and in some bodies again.

use super::{Mount, openai};
use crate::Permission as P;
use crate::Shape;
use crate::Shape::{Anthropic, Gemini as Usage};
use crate::inspect::layout::{ANTHROPIC, GOOGLE, GOOGLE_FRAME, OPENAI, OPENAI_UNNAMED, PARTNER};
use crate::rule::{ANY, Content, POST, READ, Resource, Rule};

pub(crate) const GEMINI: &[Mount] = &[
    // The OpenAI-compatible layer, in every version that has one.
    Mount::at("/v1/openai/", COMPAT),
    Mount::at("/v1beta/openai/", COMPAT),
    Mount::at("/v1alpha/openai/", COMPAT),
    Mount::with_verbs("/", &[GEMINI_MODELS, GEMINI_REST]),
];

const COMPAT: &[&[Rule]] = &[
    openai::ASKED_CHAT,
    openai::CHAT,
    openai::EMBEDDINGS,
    openai::IMAGES,
    openai::AUDIO,
    openai::FILES,
    openai::BATCHES,
    openai::MODELS,
    openai::REALTIME,
    openai::TOKENS,
];

/// `models/m` is called `m`, `tunedModels/m` is called so.
const MODEL: Resource = Resource {
    plain: Some("models"),
    kept: "tunedModels",
};

const fn gemini(pattern: &'static str, needs: P) -> Rule {
    Rule::new(POST, pattern, needs)
        .resource(MODEL, &GOOGLE)
        .reports(Usage)
}

const GEMINI_MODELS: &[Rule] = &[
    gemini("{v}/models/{model}:generateContent", P::Chat),
    gemini("{v}/models/{model}:streamGenerateContent", P::Chat),
    gemini("{v}/models/{model}:countTokens", P::Chat),
    gemini("{v}/models/{model}:computeTokens", P::Chat),
    gemini("{v}/models/{model}:generateAnswer", P::Chat),
    gemini("{v}/models/{model}:embedContent", P::Embeddings),
    gemini("{v}/models/{model}:batchEmbedContents", P::Embeddings),
    gemini("{v}/models/{model}:asyncBatchEmbedContent", P::Embeddings),
    gemini("{v}/models/{model}:batchGenerateContent", P::Batches),
    gemini("{v}/models/{model}:predict", P::Images),
    gemini("{v}/models/{model}:predictLongRunning", P::Images),
    gemini("{v}/models/{model}:fetchPredictOperation", P::Images),
    gemini("{v}/tunedModels/{model}:generateContent", P::Chat),
    gemini("{v}/tunedModels/{model}:streamGenerateContent", P::Chat),
    gemini("{v}/tunedModels/{model}:countTokens", P::Chat),
    gemini("{v}/tunedModels/{model}:batchGenerateContent", P::Batches),
];

const GEMINI_REST: &[Rule] = &[
    Rule::new(READ, "{v}/models/*/operations/**", P::Images),
    Rule::new(READ, "{v}/models/**", P::Models),
    Rule::new(READ, "{v}/tunedModels/**", P::Models),
    Rule::new(POST, "{v}/tunedModels/**", P::FineTuning)
        .json(&GOOGLE)
        .optional(),
    Rule::new(ANY, "{v}/tunedModels/**", P::FineTuning),
    Rule::new(POST, "{v}/interactions", P::Chat)
        .json(&GOOGLE)
        .reports(Usage),
    Rule::new(ANY, "{v}/interactions/**", P::Chat),
    Rule::new(POST, "{v}/cachedContents", P::Chat).json(&GOOGLE),
    Rule::new(ANY, "{v}/cachedContents/**", P::Chat),
    Rule::new(POST, "{v}/batches/*:cancel", P::Batches),
    Rule::new(
        "PATCH",
        "{v}/batches/*:updateGenerateContentBatch",
        P::Batches,
    )
    .unseen(),
    Rule::new("PATCH", "{v}/batches/*:updateEmbedContentBatch", P::Batches).unseen(),
    Rule::new("GET|HEAD|DELETE", "{v}/batches/**", P::Batches),
    Rule::new(POST, "upload/{v}/files", P::Files),
    Rule::new(
        POST,
        "upload/{v}/fileSearchStores/*:uploadToFileSearchStore",
        P::Files,
    ),
    Rule::new(READ, "download/{v}/files/*:download", P::Files),
    Rule::new(READ, "{v}/files/*:download", P::Files),
    Rule::new(POST, "{v}/files:register", P::Files),
    Rule::new(ANY, "{v}/files/**", P::Files),
    Rule::new(POST, "{v}/fileSearchStores/*:importFile", P::Files),
    Rule::new(ANY, "{v}/fileSearchStores/**", P::Files),
    Rule::new(POST, "{v}/corpora/*:query", P::Files),
    Rule::new(ANY, "{v}/corpora/**", P::Files),
    Rule::new(ANY, "{v}/generatedFiles/**", P::Files),
    Rule::new(ANY, "{v}/auth_tokens/**", P::EphemeralKeys).unseen(),
    Rule::new(
        READ,
        "ws/google.ai.generativelanguage.*.GenerativeService.BidiGenerateContent",
        P::Realtime,
    )
    .frames(&GOOGLE_FRAME)
    .reports(Usage),
    Rule::new(
        READ,
        "ws/google.ai.generativelanguage.*.GenerativeService.BidiGenerateMusic",
        P::Realtime,
    )
    .frames(&GOOGLE_FRAME)
    .reports(Usage),
];

pub(crate) const VERTEX: &[Mount] = &[Mount::with_verbs(
    "/",
    &[
        VERTEX_ANTHROPIC,
        VERTEX_MODELS,
        VERTEX_EXPRESS,
        VERTEX_ENDPOINTS,
        VERTEX_REST,
    ],
)];

/// Claude. Its body is that of Anthropic without a model, but for the count of tokens, whose "model" is in the body.
const VERTEX_ANTHROPIC: &[Rule] = &[
    Rule::new(
        POST,
        "{v}/projects/*/locations/*/publishers/anthropic/models/count-tokens:rawPredict",
        P::Chat,
    )
    .json(&ANTHROPIC),
    Rule::new(
        POST,
        "{v}/projects/*/locations/*/publishers/anthropic/models/{model}:rawPredict",
        P::Chat,
    )
    .segment(Content::Json(&ANTHROPIC))
    .reports(Anthropic),
    Rule::new(
        POST,
        "{v}/projects/*/locations/*/publishers/anthropic/models/{model}:streamRawPredict",
        P::Chat,
    )
    .segment(Content::Json(&ANTHROPIC))
    .reports(Anthropic),
];

const fn vertex(pattern: &'static str, needs: P) -> Rule {
    Rule::new(POST, pattern, needs)
        .segment(Content::Json(&GOOGLE))
        .reports(Usage)
}

const VERTEX_MODELS: &[Rule] = &[
    vertex(
        "{v}/projects/*/locations/*/publishers/*/models/{model}:generateContent",
        P::Chat,
    ),
    vertex(
        "{v}/projects/*/locations/*/publishers/*/models/{model}:streamGenerateContent",
        P::Chat,
    ),
    vertex(
        "{v}/projects/*/locations/*/publishers/*/models/{model}:countTokens",
        P::Chat,
    ),
    vertex(
        "{v}/projects/*/locations/*/publishers/*/models/{model}:computeTokens",
        P::Chat,
    ),
    vertex(
        "{v}/projects/*/locations/*/publishers/*/models/{model}:embedContent",
        P::Embeddings,
    ),
    vertex(
        "{v}/projects/*/locations/*/publishers/*/models/{model}:predict",
        P::Embeddings,
    ),
    vertex(
        "{v}/projects/*/locations/*/publishers/*/models/{model}:predictLongRunning",
        P::Images,
    ),
    vertex(
        "{v}/projects/*/locations/*/publishers/*/models/{model}:fetchPredictOperation",
        P::Images,
    ),
    // Partner models (Mistral, Llama) in their own format, which may name the model again without its date.
    Rule::new(
        POST,
        "{v}/projects/*/locations/*/publishers/*/models/{model}:rawPredict",
        P::Chat,
    )
    .segment(Content::Json(&PARTNER))
    .reports(Shape::Openai),
    Rule::new(
        POST,
        "{v}/projects/*/locations/*/publishers/*/models/{model}:streamRawPredict",
        P::Chat,
    )
    .segment(Content::Json(&PARTNER))
    .reports(Shape::Openai),
];

/// Express mode: an API key instead of a project.
const VERTEX_EXPRESS: &[Rule] = &[
    vertex(
        "{v}/publishers/google/models/{model}:generateContent",
        P::Chat,
    ),
    vertex(
        "{v}/publishers/google/models/{model}:streamGenerateContent",
        P::Chat,
    ),
    vertex("{v}/publishers/google/models/{model}:countTokens", P::Chat),
    vertex(
        "{v}/publishers/google/models/{model}:computeTokens",
        P::Chat,
    ),
    vertex(
        "{v}/publishers/google/models/{model}:embedContent",
        P::Embeddings,
    ),
    vertex(
        "{v}/publishers/google/models/{model}:predict",
        P::Embeddings,
    ),
];

/// A model that was deployed is called `endpoints/ID`.
const ENDPOINT: Resource = Resource {
    plain: None,
    kept: "endpoints",
};

const fn endpoint(pattern: &'static str, needs: P) -> Rule {
    Rule::new(POST, pattern, needs)
        .resource(ENDPOINT, &GOOGLE)
        .reports(Usage)
}

const VERTEX_ENDPOINTS: &[Rule] = &[
    Rule::new(
        POST,
        "{v}/projects/*/locations/*/endpoints/openapi/chat/completions",
        P::Chat,
    )
    .json(&OPENAI)
    .reports(Shape::Openai)
    .asks_usage(),
    Rule::new(
        POST,
        "{v}/projects/*/locations/*/endpoints/openapi/embeddings",
        P::Embeddings,
    )
    .json(&OPENAI)
    .reports(Shape::Openai),
    endpoint(
        "{v}/projects/*/locations/*/endpoints/{model}:generateContent",
        P::Chat,
    ),
    endpoint(
        "{v}/projects/*/locations/*/endpoints/{model}:streamGenerateContent",
        P::Chat,
    ),
    endpoint(
        "{v}/projects/*/locations/*/endpoints/{model}:countTokens",
        P::Chat,
    ),
    endpoint(
        "{v}/projects/*/locations/*/endpoints/{model}:predict",
        P::Embeddings,
    ),
    endpoint(
        "{v}/projects/*/locations/*/endpoints/{model}:rawPredict",
        P::Chat,
    ),
    endpoint(
        "{v}/projects/*/locations/*/endpoints/{model}:streamRawPredict",
        P::Chat,
    ),
    Rule::new(
        POST,
        "{v}/projects/*/locations/*/endpoints/{model}/chat/completions",
        P::Chat,
    )
    .resource(ENDPOINT, &OPENAI_UNNAMED)
    .reports(Shape::Openai)
    .asks_usage(),
];

const VERTEX_REST: &[Rule] = &[
    Rule::new(READ, "{v}/publishers/*/models/**", P::Models),
    Rule::new(
        READ,
        "{v}/projects/*/locations/*/publishers/*/models/*/operations/**",
        P::Images,
    ),
    Rule::new(
        READ,
        "{v}/projects/*/locations/*/publishers/*/models/**",
        P::Models,
    ),
    Rule::new(READ, "{v}/projects/*/locations/*/models/**", P::Models),
    Rule::new(POST, "{v}/projects/*/locations/*/interactions", P::Chat)
        .json(&GOOGLE)
        .reports(Usage),
    Rule::new(ANY, "{v}/projects/*/locations/*/interactions/**", P::Chat),
    Rule::new(POST, "{v}/projects/*/locations/*/cachedContents", P::Chat).json(&GOOGLE),
    Rule::new(ANY, "{v}/projects/*/locations/*/cachedContents/**", P::Chat),
    Rule::new(
        POST,
        "{v}/projects/*/locations/*/batchPredictionJobs",
        P::Batches,
    )
    .json(&GOOGLE),
    Rule::new(
        POST,
        "{v}/projects/*/locations/*/batchPredictionJobs/*:cancel",
        P::Batches,
    ),
    Rule::new(
        "GET|HEAD|DELETE",
        "{v}/projects/*/locations/*/batchPredictionJobs/**",
        P::Batches,
    ),
    Rule::new(POST, "{v}/projects/*/locations/*/tuningJobs", P::FineTuning).json(&GOOGLE),
    Rule::new(
        POST,
        "{v}/projects/*/locations/*/tuningJobs/*:cancel",
        P::FineTuning,
    ),
    Rule::new(
        READ,
        "{v}/projects/*/locations/*/tuningJobs/**",
        P::FineTuning,
    ),
    Rule::new(
        READ,
        "ws/google.cloud.aiplatform.*.LlmBidiService/BidiGenerateContent",
        P::Realtime,
    )
    .frames(&GOOGLE_FRAME)
    .reports(Usage),
];
