//! The two configuration files of a development stack, written once and the user's from then on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use toml::{Table, Value};

use crate::files;

/// Where apps find the agent unless something else is asked for.
const LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4100);

/// A Unix socket's path has room for 107 bytes and the final NUL; `run/admin.sock` is the longest one here.
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// The ids of the tokens.
pub(super) const TOKENS: [&str; 3] = ["a", "b", "c"];

/// Where everything lies under the directory.
#[derive(Debug, Clone)]
pub(super) struct Layout(PathBuf);

impl Layout {
    /// For an existing directory, given as an absolute path.
    pub(super) fn new(dir: PathBuf) -> anyhow::Result<Self> {
        let layout = Self(dir);
        let longest = layout.admin_socket();
        anyhow::ensure!(
            longest.as_os_str().len() <= SOCKET_PATH_MAX_BYTES,
            "{} is too long for a Unix socket ({SOCKET_PATH_MAX_BYTES} bytes at most); choose a shorter --dir",
            longest.display()
        );
        anyhow::ensure!(
            layout.0.to_str().is_some(),
            "{} is not UTF-8, which the configuration files need; choose another --dir",
            layout.0.display()
        );
        Ok(layout)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }
    pub(super) fn run(&self) -> PathBuf {
        self.0.join("run")
    }
    pub(super) fn state(&self) -> PathBuf {
        self.0.join("state")
    }
    pub(super) fn lock(&self) -> PathBuf {
        self.run().join("lock")
    }
    pub(super) fn trust(&self) -> PathBuf {
        self.state().join("custodians.json")
    }
    pub(super) fn sealer(&self) -> PathBuf {
        self.0.join("sealer.key")
    }
    pub(super) fn hsmd_toml(&self) -> PathBuf {
        self.0.join("hsmd.toml")
    }
    pub(super) fn agent_toml(&self) -> PathBuf {
        self.0.join("agent.toml")
    }
    pub(super) fn admin_socket(&self) -> PathBuf {
        self.run().join("admin.sock")
    }
    pub(super) fn workload_socket(&self) -> PathBuf {
        self.run().join("hsmd.sock")
    }
    pub(super) fn announcement(&self, of: &str) -> PathBuf {
        self.run().join(format!("{of}.json"))
    }
    pub(super) fn token(&self, id: &str) -> PathBuf {
        self.0.join(format!("softhsm-{id}"))
    }
}

fn text(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned()) // UTF-8: checked in Layout::new
}

fn list(values: &[&str]) -> Value {
    Value::Array(
        values
            .iter()
            .map(|one| Value::String((*one).to_owned()))
            .collect(),
    )
}

/// Writes hsmd.toml unless there is one.
pub(super) fn write_hsmd(layout: &Layout, module: &Path) -> anyhow::Result<()> {
    let head = "# Written by `tacit dev`, for development only: any upstream, one user for everything.\n\
                # It is yours from now on: edit it, and it is left alone.\n";
    let uid = nix::unistd::geteuid().as_raw();
    write_once(&layout.hsmd_toml(), head, &hsmd(layout, module, uid)).map(drop)
}

fn hsmd(layout: &Layout, module: &Path, uid: u32) -> Table {
    let mut defaults = Table::new();
    defaults.insert("environments".to_owned(), list(&["development"]));
    for wide in ["teams", "models", "upstreams"] {
        defaults.insert(wide.to_owned(), list(&["*"]));
    }
    let permissions = [
        "chat",
        "responses",
        "embeddings",
        "models",
        "files",
        "images",
        "audio",
        "batches",
        "realtime",
    ];
    defaults.insert("permissions".to_owned(), list(&permissions));

    let mut admin = Table::new();
    admin.insert(
        "uids".to_owned(),
        Value::Array(vec![Value::Integer(uid.into())]),
    );
    let mut caller = Table::new();
    caller.insert("uid".to_owned(), Value::Integer(uid.into()));
    caller.insert("environments".to_owned(), list(&["development"]));
    caller.insert("teams".to_owned(), list(&["*"]));

    // One user for everything is what development is; a kernel of an older distribution must do.
    let mut attest = Table::new();
    attest.insert("danger_shared_uid".to_owned(), Value::Boolean(true));
    attest.insert(
        "old_kernel".to_owned(),
        Value::String("start-time".to_owned()),
    );

    let custodian = |id: &&str| {
        let directory = layout.token(id);
        let mut env = Table::new();
        env.insert(
            "SOFTHSM2_CONF".to_owned(),
            text(&directory.join("softhsm2.conf")),
        );
        let mut one = Table::new();
        one.insert("id".to_owned(), Value::String((*id).to_owned()));
        one.insert("module".to_owned(), text(module));
        one.insert(
            "token_label".to_owned(),
            Value::String(format!("tacit-{id}")),
        );
        one.insert("pin_file".to_owned(), text(&directory.join("pin")));
        one.insert("env".to_owned(), Value::Table(env));
        Value::Table(one)
    };

    let mut file = Table::new();
    file.insert("state_dir".to_owned(), text(&layout.state()));
    file.insert(
        "workload_socket".to_owned(),
        text(&layout.workload_socket()),
    );
    file.insert("admin_socket".to_owned(), text(&layout.admin_socket()));
    file.insert(
        "admin_listen".to_owned(),
        Value::String("127.0.0.1:0".to_owned()),
    );
    file.insert("threshold".to_owned(), Value::Integer(2));
    file.insert("defaults".to_owned(), Value::Table(defaults));
    file.insert("admin".to_owned(), Value::Table(admin));
    file.insert("attest".to_owned(), Value::Table(attest));
    file.insert(
        "caller".to_owned(),
        Value::Array(vec![Value::Table(caller)]),
    );
    file.insert(
        "custodian".to_owned(),
        Value::Array(TOKENS.iter().map(custodian).collect()),
    );
    file
}

/// Writes agent.toml unless there is one; a remark when `--listen` cannot have its way.
pub(super) fn write_agent(
    layout: &Layout,
    listen: Option<SocketAddr>,
) -> anyhow::Result<Option<String>> {
    let head = "# Written by `tacit dev`, for development. It is yours from now on: edit it, and it is left alone.\n";
    let path = layout.agent_toml();
    if write_once(&path, head, &agent(layout, listen.unwrap_or(LISTEN)))? {
        return Ok(None);
    }
    let kept = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let kept = kept.parse::<Table>().ok();
    let kept = kept
        .as_ref()
        .and_then(|table| table.get("listen")?.as_str()?.parse().ok());
    match listen {
        Some(asked) if kept != Some(asked) => Ok(Some(format!(
            "{} is kept as it is, and its `listen` holds, not --listen {asked}",
            path.display()
        ))),
        _ => Ok(None),
    }
}

fn agent(layout: &Layout, listen: SocketAddr) -> Table {
    let provider = |name: &str| {
        let mut reference = Table::new();
        reference.insert("store".to_owned(), Value::String(format!("{name}-prod")));
        let mut one = Table::new();
        one.insert("secret_key_ref".to_owned(), Value::Table(reference));
        (name.to_owned(), Value::Table(one))
    };
    let mut file = Table::new();
    file.insert("listen".to_owned(), Value::String(listen.to_string()));
    file.insert(
        "admin_listen".to_owned(),
        Value::String("127.0.0.1:0".to_owned()),
    );
    file.insert(
        "hsmd".to_owned(),
        Value::Array(vec![text(&layout.workload_socket())]),
    );
    file.insert("custodians".to_owned(), text(&layout.trust()));
    let providers = ["openai", "anthropic", "gemini"].map(provider);
    file.insert(
        "providers".to_owned(),
        Value::Table(providers.into_iter().collect()),
    );
    file
}

/// True when the file was written, false when there was one.
fn write_once(path: &Path, head: &str, table: &Table) -> anyhow::Result<bool> {
    let body = toml::to_string(table).context("the settings do not fit TOML")?;
    match files::create_new(path, format!("{head}\n{body}").as_bytes(), 0o644) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path().to_owned()).expect("short enough");
        (dir, layout)
    }

    #[test]
    fn hsmd_toml_gives_development_its_wide_defaults() {
        let (_dir, layout) = layout();
        write_hsmd(&layout, Path::new("/usr/lib/softhsm/libsofthsm2.so")).expect("written");
        let text = std::fs::read_to_string(layout.hsmd_toml()).expect("read");
        let file: Table = text.parse().expect("TOML");
        assert_eq!(file["defaults"]["upstreams"][0].as_str(), Some("*"));
        assert_eq!(
            file["defaults"]["environments"][0].as_str(),
            Some("development")
        );
        assert_eq!(file["defaults"]["models"][0].as_str(), Some("*"));
        let permissions = file["defaults"]["permissions"].as_array().expect("a list");
        let permissions: Vec<_> = permissions.iter().filter_map(Value::as_str).collect();
        for wide in [
            "chat", "models", "files", "images", "audio", "batches", "realtime",
        ] {
            assert!(permissions.contains(&wide), "{wide}");
        }
        for named in ["ephemeral-keys", "mcp"] {
            assert!(!permissions.contains(&named), "{named} is in no default");
        }
        assert_eq!(file["custodian"].as_array().map(Vec::len), Some(3));
        assert_eq!(
            file["custodian"][1]["token_label"].as_str(),
            Some("tacit-b")
        );
        let own = i64::from(nix::unistd::geteuid().as_raw());
        assert_eq!(file["admin"]["uids"][0].as_integer(), Some(own));
    }

    #[test]
    fn an_edited_agent_toml_stays_as_it_is() {
        let (_dir, layout) = layout();
        let one: SocketAddr = "127.0.0.1:4199".parse().expect("an address");
        let other: SocketAddr = "127.0.0.1:4198".parse().expect("an address");
        assert_eq!(write_agent(&layout, Some(one)).expect("written"), None);
        let before = std::fs::read(layout.agent_toml()).expect("read");
        assert_eq!(write_agent(&layout, Some(one)).expect("kept"), None);
        let remark = write_agent(&layout, Some(other))
            .expect("kept")
            .expect("a remark");
        assert!(remark.contains("--listen 127.0.0.1:4198"), "{remark}");
        assert_eq!(std::fs::read(layout.agent_toml()).expect("read"), before);
    }

    #[test]
    fn a_directory_too_deep_for_a_socket_is_told() {
        let deep = PathBuf::from(format!("/{}", "d".repeat(100)));
        let error = Layout::new(deep).expect_err("refused").to_string();
        assert!(error.contains("shorter --dir"), "{error}");
    }
}
