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

/// Every name that means something, by length: most names mean nothing, and a name is compared with those of its length only.
const NAMES: [(&str, Key); 48] = [
    ("meta", Key::Meta),
    ("text", Key::Text),
    ("type", Key::Type),
    ("bytes", Key::Bytes),
    ("delta", Key::Delta),
    ("error", Key::Error),
    ("input", Key::Text),
    ("model", Key::Model),
    ("usage", Key::Usage),
    ("status", Key::Status),
    ("x_groq", Key::XGroq),
    ("choices", Key::Choices),
    ("content", Key::Text),
    ("message", Key::Message),
    ("refusal", Key::Text),
    ("results", Key::Results),
    ("metadata", Key::Metadata),
    ("response", Key::Response),
    ("thinking", Key::Text),
    ("arguments", Key::Text),
    ("reasoning", Key::Text),
    ("tool_plan", Key::Text),
    ("completion", Key::Text),
    ("embeddings", Key::Embeddings),
    ("event_type", Key::Type),
    ("generation", Key::Text),
    ("outputText", Key::Text),
    ("statistics", Key::Statistics),
    ("stopReason", Key::Finish),
    ("tokenCount", Key::TokenCount),
    ("transcript", Key::Text),
    ("interaction", Key::Interaction),
    ("predictions", Key::Predictions),
    ("stop_reason", Key::Finish),
    ("token_count", Key::TokenCount),
    ("finishReason", Key::Finish),
    ("modelVersion", Key::Model),
    ("partial_json", Key::Text),
    ("turnComplete", Key::TurnComplete),
    ("finish_reason", Key::Finish),
    ("serverContent", Key::ServerContent),
    ("usageMetadata", Key::UsageMetadata),
    ("reasoning_content", Key::Text),
    ("prompt_token_count", Key::PromptTokens),
    ("inputTextTokenCount", Key::PromptTokens),
    ("generation_token_count", Key::Generation),
    ("totalOutputTextTokenCount", Key::Generation),
    ("amazon-bedrock-invocationMetrics", Key::InvocationMetrics),
];

/// Where in [`NAMES`] the names of each length begin; the last one is where they end.
const BY_LEN: [usize; Key::LEN_MAX + 2] = {
    let mut begin = [0; Key::LEN_MAX + 2];
    let mut at = 0;
    let mut len = 0;
    while len < begin.len() {
        while at < NAMES.len() && NAMES[at].0.len() < len {
            at += 1;
        }
        begin[len] = at;
        len += 1;
    }
    assert!(at == NAMES.len(), "no name is longer than LEN_MAX");
    begin
};

impl Key {
    /// Longer names mean nothing.
    pub(super) const LEN_MAX: usize = 32;

    pub(super) fn of(name: &[u8]) -> Self {
        let (Some(&from), Some(&to)) = (BY_LEN.get(name.len()), BY_LEN.get(name.len() + 1)) else {
            return Self::Other;
        };
        NAMES[from..to]
            .iter()
            .find(|(known, _)| known.as_bytes() == name)
            .map_or(Self::Other, |(_, key)| *key)
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
    /// The value at `path` of a document, when it is one to keep. No such path may be the beginning of another: inside of a kept value
    /// nothing is looked for.
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
            (Shape::Cohere, [K::Delta, K::Error]) => Self::Error,

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

    /// This field in a set of them.
    pub(super) fn bit(self) -> u16 {
        1 << (self as u16)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_its_neighbours_are_not() {
        assert!(NAMES.is_sorted_by_key(|(name, _)| name.len()));
        for (name, key) in NAMES {
            assert_eq!(Key::of(name.as_bytes()), key, "{name}");
            let upper = name.to_ascii_uppercase();
            assert_eq!(Key::of(upper.as_bytes()), Key::Other, "{upper}");
        }
        for name in [
            &b""[..],
            b"usages",
            b"usag",
            &[b'x'; 32],
            &[b'x'; 33],
            &[b'x'; 34],
        ] {
            assert_eq!(Key::of(name), Key::Other);
        }
    }
}
