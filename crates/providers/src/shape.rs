//! How an API reports usage. The response's content type decides between document, event stream and the rest.

/// Where in a response the provider's token counts stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// It reports none.
    Silent,
    /// Anthropic Messages: `usage`, cumulative deltas.
    Anthropic,
    /// Bedrock Converse: `usage`, or the `metadata` event.
    BedrockConverse,
    /// Bedrock Invoke: response headers, or the last chunk's metrics.
    BedrockInvoke,
    /// Cohere: `usage.billed_units` or `meta.billed_units`.
    Cohere,
    /// Gemini and Vertex: `usageMetadata`.
    Gemini,
    /// OpenAI and everything that copies it: `usage`.
    Openai,
}
