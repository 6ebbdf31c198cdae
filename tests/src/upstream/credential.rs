//! Is the real key in the right slot, once, and alone?

use super::wire::Request;
use super::{Provider, Shared, Slots};

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

/// Says why the request's credential is refused, if it is. Texts go to test reports, so they name
/// slots and counts, never values.
pub(super) fn refusal(shared: &Shared, provider: Provider, request: &Request) -> Option<String> {
    let present: Vec<&(String, Vec<u8>)> = request
        .headers
        .iter()
        .filter(|(name, _)| HEADERS.contains(&name.as_str()))
        .collect();
    for parameter in request.query.as_deref().unwrap_or_default().split('&') {
        let name = parameter.split('=').next().unwrap_or_default();
        if PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) {
            return Some(format!("credential in the query parameter {name}"));
        }
    }
    let [(name, value)] = present.as_slice() else {
        let names: Vec<&str> = present.iter().map(|(name, _)| name.as_str()).collect();
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
    let copies = request
        .raw
        .windows(key.len())
        .filter(|window| *window == key)
        .count();
    (copies != 1).then(|| format!("the key stands {copies} times in the request"))
}

/// The key, when the header is the slot where this API wants it.
fn in_slot<'a>(
    slots: Slots,
    provider: Provider,
    request: &Request,
    name: &str,
    value: &'a [u8],
) -> Option<&'a [u8]> {
    let bearer = || value.strip_prefix(b"Bearer ");
    match (provider, name) {
        (Provider::OpenAi, "authorization") => bearer(),
        (Provider::Anthropic, "x-api-key") => Some(value),
        (Provider::Anthropic, "authorization") if slots == Slots::AsTheProvider => bearer(),
        // Google's OpenAI layer wants a bearer; the native API its own header.
        (Provider::Gemini, "authorization") if request.path.starts_with("/v1beta/openai/") => {
            bearer()
        }
        (Provider::Gemini, "x-goog-api-key") => Some(value),
        _ => None,
    }
}

/// The key as OpenAI repeats it in its 401: first eight and last four characters, stars between.
pub(super) fn masked(request: &Request) -> String {
    let value = request.header("authorization").unwrap_or_default();
    let key: Vec<char> = value
        .strip_prefix("Bearer ")
        .unwrap_or(value)
        .chars()
        .collect();
    if key.len() <= 12 {
        return "*".repeat(key.len());
    }
    let (head, tail): (String, String) = (
        key[..8].iter().collect(),
        key[key.len() - 4..].iter().collect(),
    );
    format!("{head}{}{tail}", "*".repeat(key.len() - 12))
}
