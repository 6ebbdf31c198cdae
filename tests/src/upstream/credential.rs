//! Is the real key in the right slot, once, and alone?

use super::wire::Request;
use super::{Provider, Shared, Slots, upload};

/// Headers in which a credential could travel. Any of them beside the right one is a leak.
const HEADERS: [&str; 9] = [
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "proxy-authorization",
    "x-amz-security-token",
    "cookie",
    "sec-websocket-protocol",
    "openai-api-key",
];

/// Query parameters in which a credential could travel.
const PARAMETERS: [&str; 5] = ["key", "api-key", "api_key", "access_token", "token"];

/// The WebSocket subprotocol in which a browser's key travels.
const PROTOCOL: &str = "openai-insecure-api-key.";

/// What OpenAI's clients say about themselves, and what no other provider may hear.
const OPENAI_ONLY: [&str; 2] = ["openai-organization", "openai-project"];

/// Says why the request's credential is refused, if it is. Texts go to test reports, so they name
/// slots and counts, never values.
pub(super) fn refusal(shared: &Shared, provider: Provider, request: &Request) -> Option<String> {
    let lenient = shared.slots == Slots::AsTheProvider;
    if lenient && request.parameter(upload::ID).is_some() {
        // Google's upload addresses are capabilities: they need no key, and SDKs send none.
        return None;
    }
    if !lenient
        && provider != Provider::OpenAi
        && let Some((name, _)) = request
            .headers
            .iter()
            .find(|(name, _)| OPENAI_ONLY.contains(&name.as_str()))
    {
        return Some(format!("{name} went to {}", provider.name()));
    }
    let mut present: Vec<(&str, &[u8])> = request
        .headers
        .iter()
        .filter(|(name, value)| HEADERS.contains(&name.as_str()) && !harmless(name, value))
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    for (name, value) in request.parameters() {
        let name_lower = name.to_ascii_lowercase();
        if !PARAMETERS.contains(&name_lower.as_str()) {
            continue;
        }
        if !(lenient && provider == Provider::Gemini && name == "key") {
            return Some(format!("credential in the query parameter {name}"));
        }
        present.push((name, value.as_bytes()));
    }
    let [(name, value)] = present.as_slice() else {
        let names: Vec<&str> = present.iter().map(|(name, _)| *name).collect();
        return Some(format!(
            "{} credential slots instead of one: {names:?}",
            names.len()
        ));
    };
    let Some(key) = in_slot(shared.slots, provider, request, name, value) else {
        return Some(format!(
            "the credential stands in {name}, which is not {}'s slot",
            provider.name()
        ));
    };
    if !shared.keys(provider).iter().any(|valid| valid == key) {
        return Some("not a valid key".to_owned());
    }
    let copies = copies(&request.raw, key);
    (copies != 1).then(|| format!("the key stands {copies} times in the request"))
}

/// Subprotocols are no credential unless one of them holds a key.
fn harmless(name: &str, value: &[u8]) -> bool {
    name == "sec-websocket-protocol" && copies(value, PROTOCOL.as_bytes()) == 0
}

/// How often `key` stands in `bytes`.
pub(super) fn copies(bytes: &[u8], key: &[u8]) -> usize {
    bytes
        .windows(key.len())
        .filter(|window| *window == key)
        .count()
}

/// The key, when it stands where this API wants it.
fn in_slot<'a>(
    slots: Slots,
    provider: Provider,
    request: &Request,
    name: &str,
    value: &'a [u8],
) -> Option<&'a [u8]> {
    let bearer = || value.strip_prefix(b"Bearer ");
    let lenient = slots == Slots::AsTheProvider;
    match (provider, name) {
        (Provider::Anthropic, "x-api-key") => Some(value),
        (Provider::Anthropic, "authorization") if lenient => bearer(),
        (Provider::Azure, "api-key") => Some(value),
        (Provider::Azure, "authorization") if lenient => bearer(),
        // Google's OpenAI layer wants a bearer; the native API its own header.
        (Provider::Gemini, "authorization") if request.path.starts_with("/v1beta/openai/") => {
            bearer()
        }
        (Provider::Gemini, "x-goog-api-key") => Some(value),
        (Provider::Gemini, "key") if lenient => Some(value),
        (Provider::OpenAi, "sec-websocket-protocol") if lenient => {
            let protocols = std::str::from_utf8(value).ok()?.split(',');
            let mut keys = protocols.filter_map(|protocol| protocol.trim().strip_prefix(PROTOCOL));
            keys.next().map(str::as_bytes)
        }
        (Provider::Anthropic | Provider::Azure | Provider::Gemini, _) => None,
        (
            Provider::OpenAi
            | Provider::Vertex
            | Provider::Bedrock
            | Provider::Mistral
            | Provider::Cohere
            | Provider::Groq
            | Provider::DeepSeek
            | Provider::Xai
            | Provider::Together
            | Provider::Fireworks
            | Provider::OpenRouter
            | Provider::Perplexity,
            "authorization",
        ) => bearer(),
        _ => None,
    }
}

/// The key as providers repeat it in a 401: the first `head` and the last `tail` characters, stars between.
pub(super) fn masked(request: &Request, head: usize, tail: usize) -> String {
    let value = request.header("authorization").unwrap_or_default();
    let key: Vec<char> = value
        .strip_prefix("Bearer ")
        .unwrap_or(value)
        .chars()
        .collect();
    if key.len() <= head + tail {
        return "*".repeat(key.len());
    }
    let (first, last): (String, String) = (
        key[..head].iter().collect(),
        key[key.len() - tail..].iter().collect(),
    );
    format!("{first}{}{last}", "*".repeat(key.len() - head - tail))
}
