//! Azure OpenAI (deployments in the path, or the v1 API) and Foundry.

use super::{Mount, anthropic, openai};
use crate::Permission as P;
use crate::Shape::Openai as Usage;
use crate::inspect::layout::{OPENAI, OPENAI_FRAME, OPENAI_UNNAMED};
use crate::rule::{ANY, Content, POST, READ, Rule};

pub(crate) const MOUNTS: &[Mount] = &[
    Mount::at("/openai/v1/", V1),
    Mount::at("/anthropic/v1/", &[anthropic::MESSAGES]),
    Mount::at("/", &[DEPLOYMENTS, CLASSIC, FOUNDRY]),
];

const V1: &[&[Rule]] = &[
    openai::ASKED_CHAT,
    openai::CHAT,
    openai::RESPONSES,
    openai::EMBEDDINGS,
    openai::IMAGES,
    openai::AUDIO,
    openai::FILES,
    VECTORS,
    openai::BATCHES,
    openai::FINE_TUNING,
    openai::MODELS,
    openai::REALTIME,
    openai::TOKENS,
];

const VECTORS: &[Rule] = &[
    Rule::new(ANY, "vector_stores/**", P::Files),
    Rule::new(ANY, "containers/**", P::Files),
];

/// What the body calls `model` here is ignored: the deployment decides.
const UNNAMED: Content = Content::Json(&OPENAI_UNNAMED);

/// Forms of a deployment hold nothing else that matters.
const FORM: Content = Content::Opaque;

const DEPLOYMENTS: &[Rule] = &[
    Rule::new(POST, "openai/deployments/{model}/chat/completions", P::Chat)
        .segment(UNNAMED)
        .reports(Usage)
        .asks_usage(),
    Rule::new(POST, "openai/deployments/{model}/completions", P::Chat)
        .segment(UNNAMED)
        .reports(Usage)
        .asks_usage(),
    Rule::new(POST, "openai/deployments/{model}/embeddings", P::Embeddings)
        .segment(UNNAMED)
        .reports(Usage),
    Rule::new(POST, "openai/deployments/{model}/audio/*", P::Audio)
        .segment(FORM)
        .reports(Usage),
    Rule::new(POST, "openai/deployments/{model}/images/*", P::Images)
        .segment(FORM)
        .reports(Usage),
];

const CLASSIC: &[Rule] = &[
    Rule::new(POST, "openai/responses/*/cancel", P::Responses),
    Rule::new(POST, "openai/responses/**", P::Responses)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(ANY, "openai/responses/**", P::Responses),
    Rule::new(POST, "openai/assistants", P::Responses).json(&OPENAI),
    Rule::new(POST, "openai/assistants/**", P::Responses)
        .json(&OPENAI)
        .optional(),
    Rule::new(ANY, "openai/assistants/**", P::Responses),
    Rule::new(POST, "openai/threads/runs", P::Responses)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(POST, "openai/threads/*/runs", P::Responses)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(POST, "openai/threads/**", P::Responses)
        .json(&OPENAI)
        .optional()
        .reports(Usage),
    Rule::new(ANY, "openai/threads/**", P::Responses),
    Rule::new(POST, "openai/files", P::Files).upload(&OPENAI),
    // A file by its address: its lines cannot be read here.
    Rule::new(POST, "openai/files/import", P::Files).unseen(),
    Rule::new(ANY, "openai/files/**", P::Files),
    Rule::new(ANY, "openai/vector_stores/**", P::Files),
    Rule::new(ANY, "openai/batches/**", P::Batches),
    Rule::new(POST, "openai/fine_tuning/**", P::FineTuning)
        .json(&OPENAI)
        .unseen(),
    Rule::new(ANY, "openai/fine_tuning/**", P::FineTuning),
    Rule::new(READ, "openai/models", P::Models),
    Rule::new(READ, "openai/models/*", P::Models),
    Rule::new(READ, "openai/realtime", P::Realtime)
        .query("deployment", &OPENAI_FRAME)
        .reports(Usage),
    Rule::new(POST, "openai/realtimeapi/sessions", P::EphemeralKeys).json(&OPENAI_FRAME),
];

const FOUNDRY: &[Rule] = &[
    Rule::new(POST, "models/chat/completions", P::Chat)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(POST, "models/embeddings", P::Embeddings)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(POST, "models/images/embeddings", P::Embeddings)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(READ, "models/info", P::Models),
    Rule::new(POST, "api/projects/*/openai/v1/chat/completions", P::Chat)
        .json(&OPENAI)
        .reports(Usage)
        .asks_usage(),
    Rule::new(
        POST,
        "api/projects/*/openai/v1/responses/*/cancel",
        P::Responses,
    ),
    Rule::new(POST, "api/projects/*/openai/v1/responses/**", P::Responses)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(ANY, "api/projects/*/openai/v1/responses/**", P::Responses),
    Rule::new(
        ANY,
        "api/projects/*/openai/v1/conversations/**",
        P::Responses,
    ),
    Rule::new(POST, "api/projects/*/openai/v1/embeddings", P::Embeddings)
        .json(&OPENAI)
        .reports(Usage),
    Rule::new(POST, "api/projects/*/openai/v1/files", P::Files).upload(&OPENAI),
    Rule::new(ANY, "api/projects/*/openai/v1/files/**", P::Files),
    Rule::new(ANY, "api/projects/*/openai/v1/vector_stores/**", P::Files),
    Rule::new(READ, "api/projects/*/openai/v1/models/**", P::Models),
];
