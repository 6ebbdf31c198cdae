//! Runs the SDK stories: real SDKs, two generations, in processes that hold only a placeholder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// A language with its SDKs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// The SDKs from PyPI.
    Python,
    /// The SDKs from npm.
    Node,
}

/// Which major the SDKs are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Today's.
    Current,
    /// The one before: older headers and paths.
    Previous,
}

impl Generation {
    fn name(self) -> &'static str {
        match self {
            Generation::Current => "current",
            Generation::Previous => "previous",
        }
    }
}

/// Every combination.
pub const MATRIX: [(Language, Generation); 4] = [
    (Language::Python, Generation::Current),
    (Language::Python, Generation::Previous),
    (Language::Node, Generation::Current),
    (Language::Node, Generation::Previous),
];

/// Where the SDKs send their requests.
pub struct Target {
    /// Ends in `/v1`.
    pub openai: String,
    /// Without a version.
    pub anthropic: String,
    /// Without a version.
    pub gemini: String,
    /// Trusted beside the system's roots, when the target is TLS.
    pub ca: Option<PathBuf>,
}

impl Target {
    /// Through an agent at `agent` (`http://127.0.0.1:PORT`), as its documentation says.
    pub fn agent(agent: &str) -> Self {
        Target {
            openai: format!("{agent}/openai/v1"),
            anthropic: format!("{agent}/anthropic"),
            gemini: format!("{agent}/gemini"),
            ca: None,
        }
    }

    /// Straight to a provider at `url`.
    pub fn direct(url: &str, ca: &Path) -> Self {
        Target {
            openai: format!("{url}/v1"),
            anthropic: url.to_owned(),
            gemini: url.to_owned(),
            ca: Some(ca.to_owned()),
        }
    }
}

/// The SDK environments, made by `tests/sdk/setup.sh`.
pub struct Sdks {
    cache: PathBuf,
    scripts: PathBuf,
}

impl Sdks {
    /// Runs the set-up script (quick when nothing changed).
    pub fn ready() -> anyhow::Result<Self> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk");
        let output = Command::new(scripts.join("setup.sh"))
            .output()
            .context("cannot run tests/sdk/setup.sh")?;
        if !output.status.success() {
            bail!(
                "tests/sdk/setup.sh failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let path = String::from_utf8(output.stdout).context("setup.sh prints a path")?;
        Ok(Sdks {
            cache: PathBuf::from(path.trim()),
            scripts,
        })
    }

    /// Runs one story (`openai`, `anthropic` or `gemini`) and returns the JSON it printed.
    pub fn story(
        &self,
        (language, generation): (Language, Generation),
        story: &str,
        target: &Target,
        key: &str,
    ) -> anyhow::Result<Value> {
        let output = self
            .command(language, generation, story, target, key)
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            bail!(
                "{language:?} {generation:?} {story}: {}\n{}{}",
                output.status,
                text(&output.stdout),
                text(&output.stderr)
            );
        }
        let stdout = text(&output.stdout);
        let line = stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("{story} printed no JSON: {stdout}"))
    }

    /// The version that is pinned for a package, to compare with what a story says it ran on.
    pub fn pinned(
        &self,
        (language, generation): (Language, Generation),
        package: &str,
    ) -> anyhow::Result<String> {
        let generation = generation.name();
        match language {
            Language::Python => {
                let pins =
                    std::fs::read_to_string(self.scripts.join(format!("python/{generation}.txt")))?;
                let pin = pins
                    .lines()
                    .find_map(|line| line.strip_prefix(package)?.strip_prefix("=="));
                Ok(pin
                    .with_context(|| format!("{package} is not pinned"))?
                    .to_owned())
            }
            Language::Node => {
                let pins =
                    std::fs::read(self.scripts.join(format!("node/{generation}/package.json")))?;
                let pins: Value = serde_json::from_slice(&pins)?;
                Ok(pins["dependencies"][package]
                    .as_str()
                    .with_context(|| format!("{package} is not pinned"))?
                    .to_owned())
            }
        }
    }

    fn command(
        &self,
        language: Language,
        generation: Generation,
        story: &str,
        target: &Target,
        key: &str,
    ) -> Command {
        let generation = generation.name();
        let mut command = match language {
            Language::Python => {
                let mut python =
                    Command::new(self.cache.join(format!("python-{generation}/bin/python")));
                python.arg("-B").arg(
                    self.scripts
                        .join("python")
                        .join(format!("{story}_story.py")),
                );
                python
            }
            Language::Node => {
                let tree = self.cache.join(format!("node-{generation}"));
                let mut node = Command::new(self.cache.join("node-runtime/bin/node"));
                // The scripts are linked into the tree of each generation; the link decides which SDK they find.
                node.args(["--preserve-symlinks", "--preserve-symlinks-main"]);
                node.arg(tree.join("stories").join(format!("{story}_story.mjs")))
                    .current_dir(tree);
                node
            }
        };
        // A story gets what is set here and nothing else: no proxy, no key of the developer's own shell.
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.cache);
        command
            .env("OPENAI_BASE_URL", &target.openai)
            .env("ANTHROPIC_BASE_URL", &target.anthropic);
        command
            .env("GOOGLE_GEMINI_BASE_URL", &target.gemini)
            .env("STORY_KEY", key);
        if let Some(ca) = &target.ca {
            command
                .env("SSL_CERT_FILE", ca)
                .env("NODE_EXTRA_CA_CERTS", ca);
        }
        command
    }
}
