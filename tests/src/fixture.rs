//! Keys that look like the providers' own, made at run time and good nowhere, and a test provider that takes them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rand_core::TryRng as _;

use crate::upstream::{Options, Provider};

/// What an app holds.
pub const PLACEHOLDER: &str = "sk-placeholder-not-a-key";

/// The key of each provider: of the shape that the provider gives its keys, made anew by each run, good nowhere.
pub fn key(provider: Provider) -> &'static str {
    static KEYS: LazyLock<HashMap<Provider, String>> = LazyLock::new(|| {
        Provider::ALL
            .into_iter()
            .map(|provider| (provider, made(provider)))
            .collect()
    });
    &KEYS[&provider]
}

/// A new key of the shape that this provider gives its keys.
fn made(provider: Provider) -> String {
    match provider {
        Provider::OpenAi => openai(),
        Provider::Anthropic => format!("sk-ant-api03-{}AA", noise(93)),
        Provider::Gemini => format!("AQ.Ab8RN6{}", noise(44)),
        Provider::Vertex => format!("ya29.{}", noise(120)),
        Provider::Azure => noise(84),
        Provider::Bedrock => format!("ABSK{}", noise(128)),
        Provider::Mistral => noise(32),
        Provider::Cohere => noise(40),
        Provider::Groq => format!("gsk_{}", noise(52)),
        Provider::DeepSeek => format!("sk-{}", noise(32).to_lowercase()),
        Provider::Xai => format!("xai-{}", noise(80)),
        Provider::Together => format!("tgp_v1_{}", noise(43)),
        Provider::Fireworks => format!("fw_{}", noise(22)),
        Provider::OpenRouter => format!("sk-or-v1-{}", noise(64).to_lowercase()),
        Provider::Perplexity => format!("pplx-{}", noise(48)),
    }
}

/// A key as OpenAI makes them, another one each time.
pub fn openai() -> String {
    format!("sk-proj-{}{}{}", noise(24), "T3BlbkFJ", noise(24))
}

/// Random letters and digits.
fn noise(length: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = custody::SystemRandom::new();
    let mut letter = || {
        let mut byte = [0];
        let Ok(()) = random.try_fill_bytes(&mut byte);
        char::from(LETTERS[usize::from(byte[0]) % LETTERS.len()])
    };
    (0..length).map(|_| letter()).collect()
}

/// A test provider that takes the keys of those that one listener tells apart.
pub fn provider() -> Options {
    Provider::SHARED
        .into_iter()
        .fold(Options::default(), |options, provider| {
            options.key(provider, key(provider))
        })
}

/// Writes a key to a file that only its owner reads.
pub fn key_file(dir: &Path, provider: Provider) -> anyhow::Result<PathBuf> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = dir.join(format!("{}.key", provider.name()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(key(provider).as_bytes())?;
    Ok(path)
}
