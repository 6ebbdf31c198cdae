//! OpenAI, in groups that others take from: few copy all of it.

use super::Mount;
use crate::Permission as P;
use crate::Shape::Openai as Usage;
use crate::inspect::layout::{OPENAI, OPENAI_FRAME};
use crate::rule::{ANY, POST, READ, Rule};

pub(crate) const MOUNTS: &[Mount] = &[Mount::at(
    "/v1/",
    &[
        ASKED_CHAT,
        CHAT,
        RESPONSES,
        ASSISTANTS,
        EMBEDDINGS,
        IMAGES,
        AUDIO,
        FILES,
        UPLOADS,
        BATCHES,
        FINE_TUNING,
        MODELS,
        MODERATION,
        REALTIME,
        TOKENS,
    ],
)];

/// Chat whose streams report usage only when asked. Stands before [`CHAT`].
pub(crate) const ASKED_CHAT: &[Rule] = &[
    Rule::new(POST, "chat/completions", P::Chat)
        .json(&OPENAI)
        .reports(Usage)
        .asks_usage(),
    Rule::new(POST, "completions", P::Chat)
        .json(&OPENAI)
        .reports(Usage)
        .asks_usage(),
];

pub(crate) const CHAT: &[Rule] = &[
    Rule::new(POST, "chat/completions", P::Chat)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(POST, "completions", P::Chat)
        .json(&OPENAI)
        .reports(Usage),
    // Stored completions: read, tag, delete.
    Rule::new(ANY, "chat/completions/**", P::Chat),
];

pub(crate) const RESPONSES: &[Rule] = &[
    Rule::new(READ, "responses", P::Responses)
        .frames(&OPENAI_FRAME)
        .reports(Usage),
    Rule::new(POST, "responses", P::Responses)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(POST, "responses/*/cancel", P::Responses),
    Rule::new(POST, "responses/**", P::Responses)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(ANY, "responses/**", P::Responses),
    Rule::new(ANY, "conversations/**", P::Responses),
];

const ASSISTANTS: &[Rule] = &[
    Rule::new(POST, "assistants", P::Responses).json(&OPENAI),
    Rule::new(POST, "assistants/**", P::Responses)
        .json(&OPENAI)
        .optional(),
    Rule::new(ANY, "assistants/**", P::Responses),
    // A run without a model takes that of its assistant.
    Rule::new(POST, "threads/runs", P::Responses)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(POST, "threads/*/runs", P::Responses)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(POST, "threads/**", P::Responses)
        .json(&OPENAI)
        .optional()
        .reports(Usage),
    Rule::new(ANY, "threads/**", P::Responses),
];

pub(crate) const EMBEDDINGS: &[Rule] = &[Rule::new(POST, "embeddings", P::Embeddings)
    .json(&OPENAI)
    .reports(Usage)];

pub(crate) const RERANK: &[Rule] = &[Rule::new(POST, "rerank", P::Embeddings)
    .json(&OPENAI)
    .reports(Usage)];

pub(crate) const IMAGES: &[Rule] = &[
    Rule::new(POST, "images/**", P::Images)
        .form(&OPENAI)
        .reports(Usage),
    Rule::new(POST, "videos", P::Images)
        .form(&OPENAI)
        .reports(Usage),
    Rule::new(POST, "videos/**", P::Images)
        .optional()
        .form(&OPENAI)
        .reports(Usage),
    Rule::new(ANY, "images/**", P::Images),
    Rule::new(ANY, "videos/**", P::Images),
];

pub(crate) const AUDIO: &[Rule] = &[
    Rule::new(POST, "audio/**", P::Audio)
        .form(&OPENAI)
        .reports(Usage),
    Rule::new(ANY, "audio/**", P::Audio),
];

pub(crate) const FILES: &[Rule] = &[
    Rule::new(POST, "files", P::Files).upload(&OPENAI),
    Rule::new(ANY, "files/**", P::Files),
];

const UPLOADS: &[Rule] = &[
    // Arrives in parts, which nobody can read as lines: see `purpose` in the inspection.
    Rule::new(POST, "uploads", P::Files).upload(&OPENAI),
    Rule::new(ANY, "uploads/**", P::Files),
    Rule::new(ANY, "vector_stores/**", P::Files),
    Rule::new(ANY, "containers/**", P::Files),
    Rule::new(ANY, "skills/**", P::Files),
];

pub(crate) const BATCHES: &[Rule] = &[
    // The models are in the file, which was read when it was uploaded; Together can name one for all of it.
    Rule::new(POST, "batches", P::Batches)
        .json(&OPENAI)
        .optional(),
    Rule::new(ANY, "batches/**", P::Batches),
    // Graders and data sources name models in many places.
    Rule::new(POST, "evals/**", P::Batches)
        .json(&OPENAI)
        .unseen(),
    Rule::new(ANY, "evals/**", P::Batches),
];

pub(crate) const FINE_TUNING: &[Rule] = &[
    Rule::new(POST, "fine_tuning/**", P::FineTuning)
        .json(&OPENAI)
        .unseen(),
    Rule::new(ANY, "fine_tuning/**", P::FineTuning),
];

pub(crate) const MODELS: &[Rule] = &[
    Rule::new(READ, "models", P::Models),
    Rule::new(READ, "models/{id}", P::Models),
    Rule::new(READ, "models/*/*", P::Models),
    Rule::new("DELETE", "models/{id}", P::FineTuning),
];

pub(crate) const MODERATION: &[Rule] = &[Rule::new(POST, "moderations", P::Moderation)
    .json(&OPENAI)
    .optional()];

pub(crate) const REALTIME: &[Rule] = &[Rule::new(READ, "realtime", P::Realtime)
    .query("model", &OPENAI_FRAME)
    .reports(Usage)];

/// All of these answer with `ek_…` keys, or open a call outside of us; so may whatever is added below the session itself.
pub(crate) const TOKENS: &[Rule] = &[
    Rule::new(POST, "realtime/**", P::EphemeralKeys).form(&OPENAI_FRAME),
    Rule::new(ANY, "realtime/**", P::EphemeralKeys),
    Rule::new(ANY, "chatkit/**", P::EphemeralKeys).unseen(),
];
