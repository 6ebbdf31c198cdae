//! Keys that look like the providers' own and are good nowhere, and a test provider that takes them.

use std::path::{Path, PathBuf};

use crate::upstream::{Options, Provider};

/// What an app holds.
pub const PLACEHOLDER: &str = "sk-placeholder-not-a-key";

/// A key as OpenAI makes them.
pub const OPENAI: &str = "sk-proj-Qm7vT2xK9bLw4Rz8NcYd1HfJT3BlbkFJu5Ge0PaSi6Vo3XtBqMnWy2Lk8D";
/// A key as Anthropic makes them.
pub const ANTHROPIC: &str = "sk-ant-api03-Zt5Wq8Rn2Kx7Lm4Vb9Cd1Fg6Hj3Ps0Ya-Ue8Ti2Ow5QrXc7Bn4Mk1Lj9Hg6Fd3Sa0Zp8Yo5Iu2Ty7Re4Wq1Ec6Vr3Bt0NmAA";
/// A key as Google makes them.
pub const GEMINI: &str = "AQ.Ab8RN6Lk3Jh7Gf2Ds9Aq1Zx5Cv8Bn4Mw6Ty0Ui3Op7El2Rj9Wq5";

/// The key of each provider.
pub fn key(provider: Provider) -> &'static str {
    match provider {
        Provider::OpenAi => OPENAI,
        Provider::Anthropic => ANTHROPIC,
        Provider::Gemini => GEMINI,
    }
}

/// A test provider that takes all three.
pub fn provider() -> Options {
    Provider::ALL
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
