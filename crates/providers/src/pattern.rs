//! Does a pasted secret look like a key of the provider that it was declared for?
//!
//! Catches the frequent slips (wrong provider's key, an admin key, a cut-off paste) before a key is sealed. The text never contains any part
//! of the value. Advice only.

/// What the pattern check thinks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plausibility {
    /// Looks like a key of this provider.
    Plausible,
    /// Does not; the text says why, without any part of the value.
    Unlikely(&'static str),
}

use Plausibility::{Plausible, Unlikely};

pub(crate) fn check(provider: &str, key: &[u8]) -> Plausibility {
    if key.is_empty() {
        return Unlikely("it is empty");
    }
    if key.iter().any(|b| !b.is_ascii_graphic()) {
        return Unlikely(
            "it contains blanks, control characters or non-ASCII bytes, which no provider key does",
        );
    }
    if key.starts_with(b"-----BEGIN") || key.first() == Some(&b'{') {
        return Unlikely("it looks like a key file, not like an API key");
    }
    match provider {
        "openai" => openai(key),
        "anthropic" => anthropic(key),
        "gemini" => gemini(key),
        _ => Plausible,
    }
}

/// Letters, digits, `_` and `-`: the alphabet of all three.
fn wordlike(key: &[u8]) -> bool {
    key.iter()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn openai(key: &[u8]) -> Plausibility {
    if key.starts_with(b"sk-ant-") {
        return Unlikely("it begins like an Anthropic key (sk-ant-)");
    }
    if key.starts_with(b"sk-or-") {
        return Unlikely("it begins like an OpenRouter key (sk-or-)");
    }
    if key.starts_with(b"sk-admin-") {
        return Unlikely("it is an OpenAI admin key; applications need a project key (sk-proj-)");
    }
    if key.starts_with(b"ek_") {
        return Unlikely("it is an ephemeral OpenAI key, which expires within minutes");
    }
    if !key.starts_with(b"sk-") {
        return Unlikely("OpenAI keys begin with sk-");
    }
    if !wordlike(key) || key.len() < 40 {
        return Unlikely(
            "OpenAI keys have 40 or more letters, digits, - and _; this may be cut off",
        );
    }
    if !key.windows(8).any(|part| part == b"T3BlbkFJ") {
        return Unlikely("it lacks the marker that OpenAI keys carry in the middle");
    }
    Plausible
}

fn anthropic(key: &[u8]) -> Plausibility {
    if !key.starts_with(b"sk-ant-") {
        return Unlikely("Anthropic keys begin with sk-ant-");
    }
    if key.starts_with(b"sk-ant-admin") {
        return Unlikely(
            "it is an Anthropic admin key; applications need an API key (sk-ant-api03-)",
        );
    }
    if key.starts_with(b"sk-ant-oat") {
        return Unlikely("it is an Anthropic OAuth token, which expires within hours");
    }
    if !wordlike(key) || key.len() < 33 {
        return Unlikely(
            "Anthropic keys have about 108 letters, digits, - and _; this may be cut off",
        );
    }
    Plausible
}

fn gemini(key: &[u8]) -> Plausibility {
    if key.starts_with(b"ya29.") {
        return Unlikely("it is a Google OAuth token, which expires within an hour");
    }
    if key.starts_with(b"auth_tokens/") {
        return Unlikely("it is an ephemeral Gemini token, which expires within minutes");
    }
    if let Some(rest) = key.strip_prefix(b"AIza") {
        return if rest.len() == 35 && wordlike(rest) {
            Plausible
        } else {
            Unlikely("Google API keys have 39 characters; this may be cut off")
        };
    }
    match key.strip_prefix(b"AQ.") {
        Some(rest) if rest.len() >= 30 && wordlike(rest) => Plausible,
        Some(_) => Unlikely("Google keys that begin with AQ. are longer; this may be cut off"),
        None => Unlikely("Gemini keys begin with AIza or AQ."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plausible(provider: &str, key: &str) -> bool {
        check(provider, key.as_bytes()) == Plausible
    }

    #[test]
    fn accepts_the_shapes_that_providers_hand_out() {
        let a = "a".repeat(30);
        assert!(plausible("openai", &format!("sk-proj-{a}T3BlbkFJ{a}")));
        assert!(plausible(
            "openai",
            &format!("sk-{}T3BlbkFJ{}", &a[..20], &a[..20])
        ));
        assert!(plausible(
            "anthropic",
            &format!("sk-ant-api03-{}AA", "x".repeat(93))
        ));
        assert!(plausible("gemini", &format!("AIza{}", "x".repeat(35))));
        assert!(plausible("gemini", &format!("AQ.Ab8RN6{}", "x".repeat(44))));
        assert!(plausible("llm-internal", "anything-goes"));
    }

    #[test]
    fn warns_about_the_nearest_neighbours() {
        let a = "a".repeat(30);
        for (provider, key) in [
            ("openai", format!("sk-admin-{a}T3BlbkFJ{a}")),
            ("openai", format!("sk-ant-api03-{a}{a}")),
            ("openai", format!("sk-proj-{a}T3BlbkF{a}")),
            ("openai", format!("sk-proj-{a} T3BlbkFJ{a}")),
            ("anthropic", format!("sk-proj-{a}T3BlbkFJ{a}")),
            ("anthropic", format!("sk-ant-admin01-{a}{a}{a}")),
            ("gemini", format!("AIza{}", "x".repeat(34))),
            ("gemini", "ya29.abcdef".to_owned()),
            ("llm-internal", "two words".to_owned()),
            ("llm-internal", String::new()),
        ] {
            assert!(!plausible(provider, &key), "{provider}");
        }
    }
}
