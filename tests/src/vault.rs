//! The daemon's store from the inside: what code that runs as `hsmd` could read and write there, so that tests can show what
//! is believed when somebody did.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use custody::Trust;
use hsm::TokenClient;
use hsmd::config::Config;
use hsmd::custodians::Custodians;
use hsmd::store::{Loaded, Sqlite, Store as _, Vault};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::bin;

/// Somebody with the daemon's configuration, its tokens and their PINs.
pub struct Insider {
    /// Where the token clients run.
    pub runtime: Runtime,
    /// The tokens.
    pub custodians: Arc<Custodians>,
    /// The pins.
    pub trust: Trust,
    /// The configuration.
    pub config: Config,
    _latches: TempDir,
}

impl Insider {
    /// Starts token processes of its own over the tokens of this configuration.
    pub fn new(config: &Path) -> anyhow::Result<Self> {
        let config = Config::read(config)?;
        let trust = Trust::parse(&std::fs::read(config.trust_file())?)?;
        let (runtime, latches) = (Runtime::new()?, tempfile::tempdir()?);
        let mut tokens = config.tokens();
        for token in &mut tokens {
            token.program = Some(bin("tacit-token")?);
            token.state_dir = latches.path().join(&token.id);
            std::fs::create_dir(&token.state_dir)?;
        }
        let custodians = runtime.block_on(async {
            let clients = tokens.into_iter().map(TokenClient::start).collect();
            let custodians = Arc::new(Custodians::new(clients, config.threshold));
            for one in custodians.all() {
                let mut health = one.client.health();
                health.wait_for(hsm::Health::is_up).await?;
                one.examine(&trust).await?;
            }
            anyhow::Ok(custodians)
        })?;
        Ok(Self {
            runtime,
            custodians,
            trust,
            config,
            _latches: latches,
        })
    }

    fn open(&self, store: &Path) -> anyhow::Result<Vault> {
        let mut vault = Vault::new(Box::new(Sqlite::open(store)?));
        let lock = vault.lock()?;
        ensure!(!lock.parts.is_empty(), "the store has no key");
        let opened = hsmd::unlock::open(&lock, &self.custodians);
        vault.unlock(self.runtime.block_on(opened)?);
        Ok(vault)
    }

    /// Everything in the store, opened.
    pub fn read(&self, store: &Path) -> anyhow::Result<Loaded> {
        Ok(self.open(store)?.load()?)
    }

    /// Makes the store hold exactly this, every row sealed as the daemon would seal it.
    pub fn rewrite(&self, store: &Path, loaded: &Loaded) -> anyhow::Result<()> {
        let mut write = self.open(store)?.sealing(loaded)?;
        let mut raw = Sqlite::open(store)?;
        let rows = raw.read().context("the rows")?.rows;
        write.remove = rows.into_iter().map(|row| (row.area, row.name)).collect();
        Ok(raw.write(&write)?)
    }
}
