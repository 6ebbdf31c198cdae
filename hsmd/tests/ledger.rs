//! The ledger on real tokens: a write that nobody waits for any more is whole or not there.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Tokens, audit, event, ids, load, open};
use hsmd::ledger::LedgerError;

fn key(id: &str) -> hsmd::ledger::Change {
    common::key(id, "")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_commit_is_whole_or_not_there_and_the_next_start_believes_it() {
    let dir = tempfile::tempdir().unwrap();
    let custodians = Tokens::up(dir.path(), 2).await.all().await;
    let audit = audit(dir.path());
    let store = open(dir.path());
    let ledger = load(Arc::clone(&store), &custodians).await.unwrap();
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
    let (revision, known) = (ledger.view().revision, ids(&ledger));
    assert!(
        dropped > 10,
        "{dropped} dropped, {finished} finished: the moments were badly chosen"
    );
    drop(ledger);

    let again = load(store, &custodians).await.unwrap();
    assert_eq!(again.view().revision, revision);
    assert_eq!(ids(&again), known);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_from_before_the_last_write_is_older_and_the_newest_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let custodians = Tokens::up(dir.path(), 2).await.all().await;
    let audit = audit(dir.path());
    let write = async |id: &str| {
        let ledger = load(open(dir.path()), &custodians).await.unwrap();
        ledger
            .commit(|_| Ok(key(id)), &audit, event(), |_| ())
            .await
            .unwrap();
    };
    write("one").await;
    let (file, copy) = (common::file(dir.path()), dir.path().join("copy"));
    std::fs::copy(&file, &copy).unwrap();
    write("two").await;
    assert!(load(open(dir.path()), &custodians).await.is_ok());
    std::fs::copy(&copy, &file).unwrap();
    let refused = load(open(dir.path()), &custodians).await;
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
