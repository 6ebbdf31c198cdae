//! Runs the SDK stories: real SDKs, two generations, in processes that hold only a placeholder.
//!
//! A story is a program in two parts (`tests/sdk/*/story.*`): after each it prints what the SDK was told about
//! tokens, and between them it waits, so that whoever runs it can compare counts that do not move.

mod plan;
mod told;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::upstream::{Fleet, Provider};

pub use plan::{Language, Listener, STORIES, Story, Tree};
pub use told::{Broken, Whole};

/// Where the SDKs send their requests.
pub struct Target {
    /// The base of each provider, without version: for stories that speak plain HTTP, and for those that insist on TLS.
    bases: Vec<(Provider, Listener, String)>,
    /// Trusted beside the system's roots, where TLS is spoken.
    ca: Option<PathBuf>,
}

impl Target {
    /// Straight to the providers.
    pub fn direct(fleet: &Fleet, ca: &Path) -> Self {
        let base = |provider: Provider| match provider {
            // Its SDK leaves this out when it is given a base; an agent puts it back.
            Provider::Fireworks => format!("{}/inference", fleet.of(provider).url()),
            _ => fleet.of(provider).url(),
        };
        let bases = Provider::ALL.into_iter().flat_map(|provider| {
            Listener::ALL.map(|listener| (provider, listener, base(provider)))
        });
        Target {
            bases: bases.collect(),
            ca: Some(ca.to_owned()),
        }
    }

    /// Through an agent at `plain` (`http://127.0.0.1:PORT`), as its documentation says.
    pub fn agent(plain: &str) -> Self {
        let at = |provider: Provider| {
            let base = format!("{plain}/{}", provider.name());
            (provider, Listener::Plain, base)
        };
        Target {
            bases: Provider::ALL.map(at).into(),
            ca: None,
        }
    }

    /// And through its TLS listener at `tls` (`https://127.0.0.1:PORT`), whose authority is in `ca`.
    #[must_use]
    pub fn with_tls(mut self, tls: &str, ca: &Path) -> Self {
        let at = |provider: Provider| {
            let base = format!("{tls}/{}", provider.name());
            (provider, Listener::Tls, base)
        };
        self.bases.extend(Provider::ALL.map(at));
        self.ca = Some(ca.to_owned());
        self
    }

    fn base(&self, story: &Story) -> anyhow::Result<&str> {
        let found = self.bases.iter().find(|(provider, listener, _)| {
            *provider == story.provider && *listener == story.listener
        });
        let (_, _, base) = found.with_context(|| format!("{story} has nowhere to go"))?;
        Ok(base)
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

    /// Starts a story with `key` in its hands.
    pub fn start(
        &self,
        story: &'static Story,
        target: &Target,
        key: &str,
    ) -> anyhow::Result<Running> {
        let complaints = tempfile::tempfile()?;
        let mut child = self
            .command(story, target, key)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {story}"))?;
        let input = child.stdin.take().context("stdin is piped")?;
        let output = child.stdout.take().context("stdout is piped")?;
        Ok(Running {
            story,
            child,
            input,
            output: BufReader::new(output),
            complaints,
        })
    }

    /// The version that is pinned for a package, to compare with what a story says it ran on.
    pub fn pinned(&self, story: &Story, package: &str) -> anyhow::Result<String> {
        let tree = story.tree.name();
        match story.language {
            Language::Python => {
                let pins =
                    std::fs::read_to_string(self.scripts.join(format!("python/{tree}.txt")))?;
                let pin = pins
                    .lines()
                    .find_map(|line| line.strip_prefix(package)?.strip_prefix("=="));
                Ok(pin
                    .with_context(|| format!("{package} is not pinned"))?
                    .to_owned())
            }
            Language::Node => {
                let pins = std::fs::read(self.scripts.join(format!("node/{tree}/package.json")))?;
                let pins: Value = serde_json::from_slice(&pins)?;
                Ok(pins["dependencies"][package]
                    .as_str()
                    .with_context(|| format!("{package} is not pinned"))?
                    .to_owned())
            }
        }
    }

    fn command(&self, story: &Story, target: &Target, key: &str) -> anyhow::Result<Command> {
        let (tree, script) = (story.tree.name(), story.script);
        let mut command = match story.language {
            Language::Python => {
                let mut python = Command::new(self.cache.join(format!("python-{tree}/bin/python")));
                let script = format!("{script}_story.py");
                python
                    .arg("-B")
                    .arg(self.scripts.join("python").join(script));
                python
            }
            Language::Node => {
                let tree = self.cache.join(format!("node-{tree}"));
                let mut node = Command::new(self.cache.join("node-runtime/bin/node"));
                // The scripts are linked into the tree of each generation; the link decides which SDK they find.
                node.args(["--preserve-symlinks", "--preserve-symlinks-main"]);
                node.arg(tree.join("stories").join(format!("{script}_story.mjs")))
                    .current_dir(tree);
                node
            }
        };
        // A story gets what is set here and nothing else: no proxy, no key of the developer's own shell.
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.cache)
            .env("STORY_KEY", key)
            .env("STORY_PROVIDER", story.provider.name())
            .env(
                story.variable,
                format!("{}{}", target.base(story)?, story.version),
            );
        // What these SDKs insist on. The organisation is OpenAI's affair; no other provider may hear of it.
        command
            .env("OPENAI_ORG_ID", "org-of-the-app")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_BEARER_TOKEN_BEDROCK", key);
        if let Some(ca) = &target.ca {
            for variable in ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE"] {
                command.env(variable, ca);
            }
        }
        Ok(command)
    }
}

/// A story under way. Dropping it ends the process.
pub struct Running {
    story: &'static Story,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    complaints: std::fs::File,
}

impl Running {
    /// Waits for the end of the first part: calls that were served whole, or refused at once.
    pub fn whole(&mut self) -> anyhow::Result<Whole> {
        let line = self.line("whole")?;
        Whole::read(&line).with_context(|| format!("{}: {line}", self.story))
    }

    /// Lets the second part run and waits for its end: streams that were left, or failed.
    pub fn broken(mut self) -> anyhow::Result<Broken> {
        self.input.write_all(b"go on\n")?;
        let line = self.line("broken")?;
        let broken = Broken::read(&line).with_context(|| format!("{}: {line}", self.story))?;
        let (status, said) = (self.child.wait()?, self.said()?);
        ensure!(status.success(), "{}: {status}\n{said}", self.story);
        Ok(broken)
    }

    fn line(&mut self, part: &str) -> anyhow::Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            let (status, said) = (self.child.wait()?, self.said()?);
            bail!("{}: {status}\n{said}", self.story);
        }
        let value: Value = serde_json::from_str(&line)
            .with_context(|| format!("{} printed no JSON: {line}", self.story))?;
        ensure!(
            value["part"] == part,
            "{}: not the part {part}: {line}",
            self.story
        );
        Ok(value)
    }

    /// What the story said on standard error.
    fn said(&mut self) -> anyhow::Result<String> {
        use std::io::{Seek as _, SeekFrom};
        let mut text = Vec::new();
        self.complaints.seek(SeekFrom::Start(0))?;
        self.complaints.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
