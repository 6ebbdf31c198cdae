//! What tests of the store share: real tokens, a store on disk, changes to write.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use custody::Trust;
use custody::record::Kind;
use custody::trust::PinnedCustodian;
use hsm::{TokenClient, TokenConfig};
use hsmd::audit::{Audit, Category, Event};
use hsmd::custodians::Custodians;
use hsmd::ledger::{Change, Ledger, LedgerError, Rollback, View};
use hsmd::model::{KeyBody, encode};
use hsmd::store::{Sqlite, Store, Vault};

/// The token process of this build: the workspace puts all programs into one directory.
fn program() -> PathBuf {
    let hsmd = PathBuf::from(env!("CARGO_BIN_EXE_hsmd"));
    let token = hsmd.with_file_name("tacit-token");
    assert!(
        token.exists(),
        "{} is missing: cargo build --workspace",
        token.display()
    );
    token
}

/// Initialised tokens, their clients, and the file that pins them.
pub struct Tokens {
    pub clients: Vec<TokenClient>,
    pub trust: Trust,
}

impl Tokens {
    pub async fn up(dir: &Path, count: u8) -> Self {
        let mut clients = Vec::new();
        for token in softhsm::up(&dir.join("tokens"), count.into()).unwrap() {
            let mut config = TokenConfig::new(
                &token.id,
                &token.module,
                &token.pin_file,
                dir.join("latch").join(&token.id),
            );
            std::fs::create_dir_all(&config.state_dir).unwrap();
            config.token_label = Some(token.label);
            config.env = [("SOFTHSM2_CONF".to_owned(), token.conf.display().to_string())].into();
            config.program = Some(program());
            clients.push(TokenClient::start(config));
        }
        let mut custodians = Vec::new();
        for client in &clients {
            let encoded = client.init().await.unwrap();
            let current = custody::SignedDescriptor::parse(&encoded).unwrap();
            custodians.push(PinnedCustodian {
                current,
                superseded: Vec::new(),
            });
        }
        let trust = Trust {
            threshold: 2,
            custodians,
            sealers: Vec::new(),
        };
        Self { clients, trust }
    }

    /// Those of these indices, as a daemon sees them to which no other one answers; two of them are needed.
    pub async fn only(&self, which: &[usize]) -> Arc<Custodians> {
        let clients = which.iter().map(|at| self.clients[*at].clone()).collect();
        let custodians = Arc::new(Custodians::new(clients, 2));
        for one in custodians.all() {
            let mut health = one.client.health();
            health.wait_for(hsm::Health::is_up).await.unwrap();
            one.examine(&self.trust).await.unwrap();
        }
        custodians
    }

    pub async fn all(&self) -> Arc<Custodians> {
        let all: Vec<usize> = (0..self.clients.len()).collect();
        self.only(&all).await
    }
}

pub fn file(dir: &Path) -> PathBuf {
    dir.join("store.sqlite")
}

pub fn vault(store: Box<dyn Store>) -> Arc<Mutex<Vault>> {
    Arc::new(Mutex::new(Vault::new(store)))
}

pub fn open(dir: &Path) -> Arc<Mutex<Vault>> {
    vault(Box::new(Sqlite::open(&file(dir)).unwrap()))
}

pub async fn load(
    store: Arc<Mutex<Vault>>,
    custodians: &Arc<Custodians>,
) -> Result<Arc<Ledger>, LedgerError> {
    let views = tokio::sync::watch::Sender::<Arc<View>>::default();
    let loaded = Ledger::load(store, Arc::clone(custodians), views, Rollback::Refused).await;
    loaded.map(|(ledger, _)| ledger)
}

pub fn audit(dir: &Path) -> Audit {
    Audit::open(&dir.join("audit"), 365).unwrap()
}

pub fn event() -> Event {
    Event::new(Category::SecretManagement, "key.add", "ok", "test")
}

/// A key without material; `description` and the team `TEAM` are what a thief would look for.
pub fn key(id: &str, description: &str) -> Change {
    let body = KeyBody {
        provider: "openai".into(),
        environments: None,
        teams: Some(vec![TEAM.to_owned()]),
        description: description.to_owned(),
        created_at: 0,
        current: 0,
        last_action: "added".into(),
        last_action_at: 0,
        terms: hsmd::terms::KeyTerms::default(),
    };
    Change {
        put: vec![(Kind::Key, id.to_owned(), encode(&body))],
        remove: Vec::new(),
    }
}

pub const TEAM: &str = "planted-team-of-the-ledger";

pub fn ids(ledger: &Ledger) -> Vec<String> {
    ledger.view().keys.0.keys().cloned().collect()
}
