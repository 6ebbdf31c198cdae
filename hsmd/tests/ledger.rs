//! The ledger on real tokens: a write that nobody waits for any more is whole or not there.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use custody::Trust;
use custody::record::Kind;
use custody::trust::PinnedCustodian;
use hsm::{TokenClient, TokenConfig};
use hsmd::audit::{Audit, Category, Event};
use hsmd::custodians::Custodians;
use hsmd::ledger::{Change, Ledger, LedgerError};
use hsmd::model::{KeyBody, encode};
use hsmd::store::{Sqlite, Store};

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

/// Two initialised tokens with their clients.
async fn custodians(dir: &Path) -> Arc<Custodians> {
    let mut clients = Vec::new();
    for token in softhsm::up(&dir.join("tokens"), 2).unwrap() {
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
    let mut pinned = Vec::new();
    for client in &clients {
        let encoded = client.init().await.unwrap();
        let current = custody::SignedDescriptor::parse(&encoded).unwrap();
        pinned.push(PinnedCustodian {
            current,
            superseded: Vec::new(),
        });
    }
    let trust = Trust {
        threshold: 2,
        custodians: pinned,
        sealers: Vec::new(),
    };
    let custodians = Arc::new(Custodians::new(clients, 2));
    for one in custodians.all() {
        one.client
            .health()
            .wait_for(hsm::Health::is_up)
            .await
            .unwrap();
        one.examine(&trust).await.unwrap();
    }
    custodians
}

fn open(dir: &Path) -> Arc<Mutex<Box<dyn Store>>> {
    Arc::new(Mutex::new(Box::new(
        Sqlite::open(&dir.join("store.sqlite")).unwrap(),
    )))
}

fn views() -> tokio::sync::watch::Sender<Arc<hsmd::ledger::View>> {
    tokio::sync::watch::Sender::default()
}

fn key(id: &str) -> Change {
    let body = KeyBody {
        provider: "openai".into(),
        environments: None,
        teams: None,
        description: String::new(),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_commit_is_whole_or_not_there_and_the_next_start_believes_it() {
    let dir = tempfile::tempdir().unwrap();
    let custodians = custodians(dir.path()).await;
    let audit = Audit::open(&dir.path().join("audit"), 365).unwrap();
    let store = open(dir.path());
    let (ledger, _) = Ledger::load(Arc::clone(&store), Arc::clone(&custodians), views())
        .await
        .unwrap();
    let event = || Event::new(Category::SecretManagement, "key.add", "ok", "test");
    let (mut dropped, mut finished) = (0, 0);
    for round in 0..120u64 {
        let id = format!("k{round}");
        let commit = ledger.commit(|_| Ok(key(&id)), &audit, event(), |_| ());
        // From "not begun" to past the end of an undisturbed write, in small steps.
        match tokio::time::timeout(Duration::from_micros(150 * (round % 40)), commit).await {
            Ok(result) => {
                result.unwrap();
                finished += 1;
                assert!(
                    ledger.view().keys.0.contains_key(&id),
                    "{id} was acknowledged"
                );
            }
            Err(_) => dropped += 1,
        }
    }
    ledger
        .commit(|_| Ok(key("last")), &audit, event(), |_| ())
        .await
        .unwrap();
    let view = ledger.view();
    assert!(
        dropped > 10,
        "{dropped} dropped, {finished} finished: the moments were badly chosen"
    );
    drop(ledger);

    let (again, _) = Ledger::load(store, custodians, views()).await.unwrap();
    let ids = |view: &hsmd::ledger::View| view.keys.0.keys().cloned().collect::<Vec<_>>();
    assert_eq!(again.view().revision, view.revision);
    assert_eq!(ids(&again.view()), ids(&view));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_from_before_the_last_write_is_older_and_the_newest_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let custodians = custodians(dir.path()).await;
    let audit = Audit::open(&dir.path().join("audit"), 365).unwrap();
    let event = || Event::new(Category::SecretManagement, "key.add", "ok", "test");
    let write = async |id: &str| {
        let (ledger, _) = Ledger::load(open(dir.path()), Arc::clone(&custodians), views())
            .await
            .unwrap();
        ledger
            .commit(|_| Ok(key(id)), &audit, event(), |_| ())
            .await
            .unwrap();
    };
    write("one").await;
    let (file, copy) = (dir.path().join("store.sqlite"), dir.path().join("copy"));
    std::fs::copy(&file, &copy).unwrap();
    write("two").await;
    assert!(
        Ledger::load(open(dir.path()), Arc::clone(&custodians), views())
            .await
            .is_ok()
    );
    std::fs::copy(&copy, &file).unwrap();
    let refused = Ledger::load(open(dir.path()), custodians, views()).await;
    assert!(
        matches!(
            refused,
            Err(LedgerError::StoreOlder {
                found: 1,
                remembered: 2,
                ..
            })
        ),
        "{refused:?}"
    );
}
