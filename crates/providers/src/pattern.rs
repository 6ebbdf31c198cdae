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
        "vertex" => vertex(key),
        "bedrock" => bedrock(key),
        // Its old ones.
        "together" if key.len() == 64 && key.iter().all(|b| is_hex(*b)) => Plausible,
        _ => FORMATS
            .iter()
            .find(|format| format.provider == provider)
            .map_or(Plausible, |format| format.check(key)),
    }
}

/// Keys that are a prefix and a number of characters of one kind.
struct Format {
    provider: &'static str,
    prefix: &'static str,
    alphabet: fn(u8) -> bool,
    /// How many characters may stand behind the prefix.
    lengths: &'static [std::ops::RangeInclusive<usize>],
    /// What such keys look like, for whoever pasted another one.
    wanted: &'static str,
}

impl Format {
    fn check(&self, key: &[u8]) -> Plausibility {
        let fits = key
            .strip_prefix(self.prefix.as_bytes())
            .is_some_and(|rest| {
                rest.iter().all(|b| (self.alphabet)(*b))
                    && self
                        .lengths
                        .iter()
                        .any(|lengths| lengths.contains(&rest.len()))
            });
        if fits {
            Plausible
        } else {
            Unlikely(self.wanted)
        }
    }
}

const fn format(
    provider: &'static str,
    prefix: &'static str,
    alphabet: fn(u8) -> bool,
    lengths: &'static [std::ops::RangeInclusive<usize>],
    wanted: &'static str,
) -> Format {
    Format {
        provider,
        prefix,
        alphabet,
        lengths,
        wanted,
    }
}

const FORMATS: [Format; 10] = [
    format(
        "azure",
        "",
        is_letter_or_digit,
        &[32..=32, 84..=84],
        "Azure resource keys have 32 hexadecimal digits or 84 letters and digits; a token of Entra expires within hours",
    ),
    format(
        "mistral",
        "",
        is_letter_or_digit,
        &[32..=32],
        "Mistral keys have 32 letters and digits",
    ),
    format(
        "cohere",
        "",
        is_letter_or_digit,
        &[40..=40],
        "Cohere keys have 40 letters and digits",
    ),
    format(
        "groq",
        "gsk_",
        is_letter_or_digit,
        &[52..=52],
        "Groq keys are gsk_ and 52 letters and digits",
    ),
    format(
        "deepseek",
        "sk-",
        is_hex,
        &[32..=32],
        "DeepSeek keys are sk- and 32 hexadecimal digits",
    ),
    format(
        "xai",
        "xai-",
        is_wordlike,
        &[70..=120],
        "xAI keys are xai- and about 80 letters, digits, - and _; keys of its management API begin differently",
    ),
    format(
        "together",
        "tgp_v1_",
        is_wordlike,
        &[43..=43],
        "Together keys are tgp_v1_ and 43 letters, digits, - and _, or 64 hexadecimal digits",
    ),
    format(
        "fireworks",
        "fw_",
        is_letter_or_digit,
        &[22..=128],
        "Fireworks keys are fw_ and 22 or more letters and digits",
    ),
    format(
        "openrouter",
        "sk-or-v1-",
        is_hex,
        &[64..=64],
        "OpenRouter keys are sk-or-v1- and 64 hexadecimal digits",
    ),
    format(
        "perplexity",
        "pplx-",
        is_letter_or_digit,
        &[48..=48],
        "Perplexity keys are pplx- and 48 letters and digits",
    ),
];

fn is_letter_or_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'a'..=b'f')
}

fn is_wordlike(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Letters, digits, `_` and `-`.
fn wordlike(key: &[u8]) -> bool {
    key.iter().all(|b| is_wordlike(*b))
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

/// Express mode takes API keys. Everything else is a token that a service account made.
fn vertex(key: &[u8]) -> Plausibility {
    if key.starts_with(b"ya29.") {
        return Unlikely("it is a Google OAuth token, which expires within an hour");
    }
    match gemini(key) {
        Plausible => Plausible,
        Unlikely(_) => Unlikely("Vertex API keys (express mode) begin with AIza or AQ."),
    }
}

fn bedrock(key: &[u8]) -> Plausibility {
    const IDS: [&[u8]; 4] = [b"AKIA", b"ASIA", b"ABIA", b"ACCA"];
    if key.starts_with(b"bedrock-api-key-") {
        return Unlikely("it is a short-term Bedrock key, which expires within 12 hours");
    }
    if key.len() == 20 && IDS.iter().any(|id| key.starts_with(id)) {
        return Unlikely("it is the id of an AWS access key, not a Bedrock API key (ABSK)");
    }
    let Some(rest) = key.strip_prefix(b"ABSK") else {
        return Unlikely("Bedrock API keys begin with ABSK");
    };
    let digits = rest.strip_suffix(b"==").or_else(|| rest.strip_suffix(b"="));
    let digits = digits.unwrap_or(rest);
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    if !digits.iter().all(is_base64) || !(109..=269).contains(&digits.len()) {
        return Unlikely(
            "Bedrock API keys have more than 110 characters of base64; this may be cut off",
        );
    }
    Plausible
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
        assert!(plausible("vertex", &format!("AQ.Ab8RN6{}", "x".repeat(44))));
        assert!(plausible("bedrock", &format!("ABSK{}==", "x".repeat(128))));
        let x = |n| "x".repeat(n);
        let a = |n| "a".repeat(n);
        for (provider, key) in [
            ("azure", a(32)),
            ("azure", x(84)),
            ("mistral", x(32)),
            ("cohere", x(40)),
            ("groq", format!("gsk_{}", x(52))),
            ("deepseek", format!("sk-{}", a(32))),
            ("xai", format!("xai-{}", x(80))),
            ("together", format!("tgp_v1_{}", x(43))),
            ("together", a(64)),
            ("fireworks", format!("fw_{}", x(22))),
            ("openrouter", format!("sk-or-v1-{}", a(64))),
            ("perplexity", format!("pplx-{}", x(48))),
        ] {
            assert!(plausible(provider, &key), "{provider}");
        }
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
            ("vertex", "ya29.abcdef".to_owned()),
            ("vertex", format!("sk-proj-{a}T3BlbkFJ{a}")),
            ("bedrock", format!("bedrock-api-key-{a}")),
            ("bedrock", format!("AKIA{}", "A".repeat(16))),
            ("bedrock", format!("ABSK{a}")),
            ("bedrock", format!("ABSK{}", "-".repeat(128))),
            ("azure", "a".repeat(33)),
            ("azure", format!("eyJ{a}.{a}.{a}")),
            ("mistral", "x".repeat(31)),
            ("cohere", "x".repeat(32)),
            ("groq", format!("gsk_{}", "x".repeat(51))),
            ("deepseek", format!("sk-{}", "x".repeat(32))),
            ("xai", "x".repeat(84)),
            ("together", "x".repeat(64)),
            ("fireworks", format!("fw-{}", "x".repeat(22))),
            ("openrouter", format!("sk-or-v1-{}", "a".repeat(63))),
            ("perplexity", "x".repeat(53)),
            ("llm-internal", "two words".to_owned()),
            ("llm-internal", String::new()),
        ] {
            assert!(!plausible(provider, &key), "{provider}");
        }
    }
}
