//! Which values of a document are worth keeping, by their path.
//!
//! The whole path from the top decides, never a name alone: answers echo what apps sent (tool schemas, `metadata`), and a field `usage` in
//! there must not become the bill.

use crate::Shape;

/// A name that means something somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// No name: an element of an array, or a container whose first name has not come yet.
    None,
    /// A name without meaning.
    Other,
    /// Text of the model, in whichever API.
    Text,
    /// Why the model stopped. A text there means that it did.
    Finish,
    Bytes,
    Choices,
    Delta,
    Embeddings,
    Error,
    Generation,
    Interaction,
    InvocationMetrics,
    Message,
    Meta,
    Metadata,
    Model,
    Predictions,
    PromptTokens,
    Response,
    Results,
    ServerContent,
    Statistics,
    Status,
    TokenCount,
    TurnComplete,
    Type,
    Usage,
    UsageMetadata,
    XGroq,
}

impl Key {
    /// Longer names mean nothing.
    pub(super) const LEN_MAX: usize = 32;

    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"content" | b"text" | b"reasoning_content" | b"reasoning" | b"thinking"
            | b"partial_json" | b"arguments" | b"refusal" | b"transcript" | b"input"
            | b"outputText" | b"completion" | b"thought" | b"plan" => Self::Text,
            b"finish_reason" | b"finishReason" | b"stop_reason" | b"stopReason" => Self::Finish,
            b"bytes" => Self::Bytes,
            b"choices" => Self::Choices,
            b"delta" => Self::Delta,
            b"embeddings" => Self::Embeddings,
            b"error" => Self::Error,
            b"generation_token_count" | b"totalOutputTextTokenCount" => Self::Generation,
            b"interaction" => Self::Interaction,
            b"amazon-bedrock-invocationMetrics" => Self::InvocationMetrics,
            b"message" => Self::Message,
            b"meta" => Self::Meta,
            b"metadata" => Self::Metadata,
            b"model" | b"modelVersion" => Self::Model,
            b"predictions" => Self::Predictions,
            b"prompt_token_count" | b"inputTextTokenCount" => Self::PromptTokens,
            b"response" => Self::Response,
            b"results" => Self::Results,
            b"serverContent" => Self::ServerContent,
            b"statistics" => Self::Statistics,
            b"status" => Self::Status,
            b"token_count" | b"tokenCount" => Self::TokenCount,
            b"turnComplete" => Self::TurnComplete,
            b"type" | b"event_type" => Self::Type,
            b"usage" => Self::Usage,
            b"usageMetadata" => Self::UsageMetadata,
            b"x_groq" => Self::XGroq,
            _ => Self::Other,
        }
    }

    /// Whether a text under this name is the model's writing. `delta` is: the Responses and Realtime APIs put the text itself there.
    pub(super) fn is_writing(self) -> bool {
        matches!(self, Self::Text | Self::Delta)
    }
}

/// A value that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The report of usage, in the words of the API.
    Usage,
    /// Bedrock's own counts at the end of a stream.
    Metrics,
    /// A bare count of input, added up over the document.
    Input,
    /// A bare count of output, added up over the document.
    Output,
    /// The model's name.
    Model,
    /// What kind of event this is.
    Kind,
    /// How a response ended.
    Status,
    /// Whether a turn of a session is over.
    Turn,
    /// An error: its presence counts.
    Error,
    /// The choices of a chat chunk: their absence counts.
    Choices,
    /// An event inside an event.
    Bytes,
}

impl Field {
    /// The value at `path` of a document, when it is one to keep.
    pub(super) fn at(shape: Shape, path: &[Key]) -> Option<Self> {
        use Key as K;
        Some(match (shape, path) {
            (Shape::Silent, _) => return None,
            (_, [K::Model]) => Self::Model,
            (_, [K::Type]) => Self::Kind,
            (_, [K::Error]) => Self::Error,

            (Shape::Anthropic, [K::Usage] | [K::Message, K::Usage]) => Self::Usage,
            (Shape::Anthropic, [K::Message, K::Model]) => Self::Model,

            (Shape::BedrockConverse, [K::Usage]) => Self::Usage,

            (
                Shape::BedrockInvoke,
                [K::Usage] | [K::Message, K::Usage] | [K::Metadata, K::Usage],
            ) => Self::Usage,
            (Shape::BedrockInvoke, [K::Message, K::Model]) => Self::Model,
            (Shape::BedrockInvoke, [K::InvocationMetrics]) => Self::Metrics,
            (Shape::BedrockInvoke, [K::PromptTokens]) => Self::Input,
            (Shape::BedrockInvoke, [K::Generation] | [K::Results, K::None, K::TokenCount]) => {
                Self::Output
            }
            (Shape::BedrockInvoke, [K::Bytes]) => Self::Bytes,

            (Shape::Cohere, [K::Usage] | [K::Delta, K::Usage] | [K::Meta]) => Self::Usage,
            (Shape::Cohere, [K::Response, K::Meta]) => Self::Usage,

            (Shape::Gemini, [K::Usage | K::UsageMetadata] | [K::Interaction, K::Usage]) => {
                Self::Usage
            }
            (Shape::Gemini, [K::Interaction, K::Model]) => Self::Model,
            (Shape::Gemini, [K::ServerContent, K::TurnComplete]) => Self::Turn,
            (
                Shape::Gemini,
                [
                    K::Predictions,
                    K::None,
                    K::Embeddings,
                    K::Statistics,
                    K::TokenCount,
                ],
            ) => Self::Input,

            (Shape::Openai, [K::Usage] | [K::Response | K::XGroq, K::Usage]) => Self::Usage,
            (Shape::Openai, [K::Response, K::Model]) => Self::Model,
            (Shape::Openai, [K::Response, K::Status]) => Self::Status,
            (Shape::Openai, [K::Choices]) => Self::Choices,
            _ => return None,
        })
    }

    /// How many bytes of the value are kept. A longer value is not read, and counts as present.
    pub(super) fn len_max(self) -> usize {
        match self {
            // The richest report known, with every detail by modality, has less than 2 KiB.
            Self::Usage | Self::Metrics => 8 * 1024,
            // Long enough for a Bedrock ARN in full.
            Self::Model => 256,
            Self::Kind => 96,
            // Long enough for every count that fits 64 bits.
            Self::Input | Self::Output | Self::Status => 24,
            // `null`, `true`, `[ ]`: anything longer is something.
            Self::Turn | Self::Error | Self::Choices => 8,
            // A model's event in base64: deltas have a few hundred bytes.
            Self::Bytes => 64 * 1024,
        }
    }
}
