#![allow(clippy::unwrap_used)]

use super::*;
use crate::clock::FakeClock;
use crate::keys::Terms;
use crate::keys::fake::Fake;

const TTL: Duration = Duration::from_secs(100);
const DOWN: Refusal = Refusal::new(Code::HsmUnavailable, "down");
const NO: Refusal = Refusal::new(Code::KeyRevoked, "revoked");

struct Set {
    fake: Fake,
    clock: Arc<FakeClock>,
    cache: Cache,
    wanted: Wanted,
}

fn set(ttl: Duration, grace: Duration) -> Set {
    let fake = Fake::new(TTL, grace);
    let clock = Arc::new(FakeClock::default());
    let cache = Cache::new(Arc::new(fake.clone()), Arc::clone(&clock) as _, ttl);
    let wanted = Wanted {
        key_id: "k".parse().unwrap(),
        provider: "openai".to_owned(),
        origin: "https://api.openai.com".parse().unwrap(),
    };
    Set {
        fake,
        clock,
        cache,
        wanted,
    }
}

impl Set {
    async fn version(&self) -> Result<u32, Code> {
        self.cache
            .lease(&self.wanted)
            .await
            .map(|lease| lease.version)
            .map_err(|refusal| refusal.code)
    }

    /// Says of the key, at `revision`: not these versions.
    fn revoke(&self, revision: u64, versions: &[u32]) -> bool {
        let word = Word {
            source: 0,
            revision,
            usable: true,
            revoked: versions.to_vec(),
            ..Word::default()
        };
        self.hear(&word)
    }

    /// Takes a daemon at its word; whether a lease ended.
    fn hear(&self, word: &Word) -> bool {
        let ended = self.cache.hear(&self.wanted.key_id, word);
        assert!(ended.iter().all(|wanted| *wanted == self.wanted));
        !ended.is_empty()
    }

    /// Grants on these terms from now on.
    fn grants_on(&self, digest: u8) {
        self.fake.set_terms(Terms {
            digest: Some([digest; 32]),
            ..Terms::open()
        });
    }

    /// Says that the key is for that now.
    fn terms(&self, revision: u64, digest: u8) -> bool {
        self.hear(&Word {
            revision,
            terms: Some([digest; 32]),
            ..Word::default()
        })
    }

    /// The terms of the lease that is had now.
    async fn had(&self) -> Result<Option<u8>, Code> {
        self.cache
            .lease(&self.wanted)
            .await
            .map(|lease| lease.terms.digest.map(|digest| digest[0]))
            .map_err(|refusal| refusal.code)
    }

    /// Runs background work until the source has been asked `n` times and nothing is left to do.
    async fn settle(&self, n: usize) {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.fake.calls(), n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_used_until_its_time_and_not_after() {
    let set = set(TTL, Duration::ZERO);
    assert_eq!(set.version().await, Ok(1));
    set.clock.advance(Duration::from_secs(79));
    assert_eq!(set.version().await, Ok(1));
    set.settle(1).await;
    set.fake.then(Err(DOWN));
    set.clock.advance(Duration::from_secs(20));
    assert_eq!(set.version().await, Ok(1), "at 99 s the lease still lives");
    set.settle(2).await;
    set.clock.advance(Duration::from_secs(1));
    assert_eq!(
        set.version().await,
        Err(Code::HsmUnavailable),
        "at 100 s it does not"
    );
}

#[tokio::test(start_paused = true)]
async fn it_is_refreshed_in_the_background_before_its_time() {
    let set = set(TTL, Duration::ZERO);
    set.fake.then(Ok((1, 1)));
    set.fake.then(Ok((2, 2)));
    assert_eq!(set.version().await, Ok(1));
    set.clock.advance(Duration::from_secs(80));
    assert_eq!(set.version().await, Ok(1), "whoever notices does not wait");
    set.settle(2).await;
    assert_eq!(set.version().await, Ok(2));
    set.settle(2).await;
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_cause_one_grant() {
    let set = set(TTL, Duration::ZERO);
    set.fake.shut();
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let (cache, wanted) = (set.cache.clone(), set.wanted.clone());
            tokio::spawn(async move { cache.lease(&wanted).await.map(|lease| lease.version) })
        })
        .collect();
    set.settle(1).await;
    set.fake.open();
    for task in asking {
        assert_eq!(task.await.unwrap(), Ok(1));
    }
    assert_eq!(set.fake.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_share_one_failure() {
    let set = set(TTL, Duration::ZERO);
    set.fake.then(Err(DOWN));
    set.fake.shut();
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let (cache, wanted) = (set.cache.clone(), set.wanted.clone());
            tokio::spawn(async move { cache.lease(&wanted).await.map(|lease| lease.version) })
        })
        .collect();
    set.settle(1).await;
    set.fake.open();
    for task in asking {
        assert_eq!(task.await.unwrap(), Err(DOWN));
    }
    assert_eq!(set.fake.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_source_is_given_up() {
    let set = set(TTL, Duration::ZERO);
    set.fake.shut();
    assert_eq!(set.version().await, Err(Code::HsmUnavailable));
}

#[tokio::test(start_paused = true)]
async fn without_a_ttl_every_request_is_a_grant_and_nothing_is_kept() {
    let set = set(Duration::ZERO, Duration::from_secs(50));
    for n in 1..=3 {
        assert_eq!(set.version().await, Ok(1));
        assert_eq!(set.fake.calls(), n);
    }
    assert!(set.cache.in_use().is_empty());
    set.fake.then(Err(DOWN));
    assert_eq!(
        set.version().await,
        Err(Code::HsmUnavailable),
        "and nothing is left for a grace"
    );
}

#[tokio::test(start_paused = true)]
async fn grace_holds_while_the_daemon_is_away_and_no_longer() {
    let set = set(TTL, Duration::from_secs(50));
    assert_eq!(set.version().await, Ok(1));
    set.fake.then(Err(DOWN));
    set.clock.advance(Duration::from_secs(149));
    assert_eq!(set.version().await, Ok(1));
    let calls = set.fake.calls();
    assert_eq!(
        set.version().await,
        Ok(1),
        "and a dead daemon is not asked for every request"
    );
    assert_eq!(set.fake.calls(), calls);
    set.clock.advance(Duration::from_secs(1));
    assert_eq!(set.version().await, Err(Code::HsmUnavailable));
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_says_no_ends_the_grace() {
    let set = set(TTL, Duration::from_secs(50));
    assert_eq!(set.version().await, Ok(1));
    set.fake.then(Err(NO));
    set.clock.advance(Duration::from_secs(101));
    assert_eq!(set.version().await, Err(Code::KeyRevoked));
    assert!(set.cache.in_use().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_revoke_ends_its_version_at_once_and_leaves_others() {
    let set = set(TTL, Duration::from_secs(50));
    assert_eq!(set.version().await, Ok(1));
    assert!(!set.revoke(1, &[2]));
    assert_eq!(set.cache.in_use().len(), 1);
    set.fake.then(Err(NO));
    assert!(set.revoke(2, &[2, 1]));
    assert!(set.cache.in_use().is_empty());
    assert_eq!(set.version().await, Err(Code::KeyRevoked));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_crossed_with_a_revoke_is_not_kept() {
    let set = set(TTL, Duration::ZERO);
    set.fake.then(Ok((1, 1)));
    set.fake.then(Ok((2, 2)));
    set.fake.shut();
    let (cache, wanted) = (set.cache.clone(), set.wanted.clone());
    let asking = tokio::spawn(async move { cache.lease(&wanted).await.map(|lease| lease.version) });
    set.settle(1).await;
    set.revoke(2, &[1]);
    set.fake.open();
    assert_eq!(asking.await.unwrap(), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_crossed_with_a_revoke_is_not_used_without_a_cache_either() {
    let set = set(Duration::ZERO, Duration::ZERO);
    set.fake.then(Ok((1, 1)));
    set.fake.then(Ok((2, 2)));
    set.fake.shut();
    let (cache, wanted) = (set.cache.clone(), set.wanted.clone());
    let asking = tokio::spawn(async move { cache.lease(&wanted).await.map(|lease| lease.version) });
    set.settle(1).await;
    set.revoke(2, &[1]);
    set.fake.open();
    assert_eq!(asking.await.unwrap(), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_version_is_refused_whatever_its_grant_says() {
    for ttl in [TTL, Duration::ZERO] {
        let set = set(ttl, Duration::ZERO);
        assert_eq!(set.version().await, Ok(1));
        set.revoke(2, &[1]);
        // A daemon that grants it again, in knowledge of the revoke.
        set.fake.then(Ok((1, 3)));
        assert_eq!(set.version().await, Err(Code::KeyRevoked));
        assert!(set.cache.in_use().is_empty());
        // No state leads back from there, so a daemon that leaves it out has forgotten it, and we have not.
        set.revoke(4, &[]);
        set.fake.then(Ok((1, 4)));
        set.fake.then(Ok((1, 4)));
        assert_eq!(set.version().await, Err(Code::KeyRevoked));
        set.fake.then(Ok((2, 4)));
        assert_eq!(set.version().await, Ok(2), "the neighbour: not revoked");
    }
}

#[tokio::test(start_paused = true)]
async fn another_daemons_grant_is_held_against_the_last_word() {
    let set = set(TTL, Duration::ZERO);
    assert_eq!(set.version().await, Ok(1));
    // Daemon 1 is at a revision that says nothing about those of daemon 0.
    let word = |usable, revoked: &[u32]| Word {
        source: 1,
        revision: 90,
        usable,
        revoked: revoked.to_vec(),
        ..Word::default()
    };
    assert!(!set.hear(&word(true, &[2])));
    assert_eq!(set.version().await, Ok(1));
    assert!(set.hear(&word(true, &[1])));
    assert_eq!(set.version().await, Err(Code::KeyRevoked));
    set.hear(&word(true, &[]));
    assert_eq!(set.version().await, Err(Code::KeyRevoked), "for good");
}

#[tokio::test(start_paused = true)]
async fn other_terms_end_a_lease_at_once_and_the_same_do_not() {
    let set = set(TTL, Duration::from_secs(50));
    set.grants_on(1);
    assert_eq!(set.had().await, Ok(Some(1)));
    assert!(!set.terms(1, 1));
    assert_eq!((set.had().await, set.fake.calls()), (Ok(Some(1)), 1));
    set.grants_on(2);
    set.fake.then(Ok((1, 2)));
    assert!(set.terms(2, 2));
    assert_eq!((set.had().await, set.fake.calls()), (Ok(Some(2)), 2));
    // A daemon that is older again says nothing of terms.
    assert!(!set.revoke(3, &[]));
    assert_eq!((set.had().await, set.fake.calls()), (Ok(Some(2)), 2));
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_a_daemon_that_knew_no_terms_ends_when_it_learns_of_them() {
    let set = set(TTL, Duration::ZERO);
    assert_eq!(set.had().await, Ok(None));
    set.grants_on(1);
    assert!(set.terms(1, 1));
    assert_eq!(set.had().await, Ok(Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_other_terms_overtook_is_asked_for_once_more() {
    // By a new revision, and by a configuration that was read again, which makes none.
    for (revision, ttl) in [(2, TTL), (1, TTL), (1, Duration::ZERO)] {
        let set = set(ttl, Duration::ZERO);
        set.grants_on(1);
        set.fake.then(Ok((1, 1)));
        set.fake.then(Ok((1, revision)));
        set.fake.shut();
        let (cache, wanted) = (set.cache.clone(), set.wanted.clone());
        let asking = tokio::spawn(async move { cache.lease(&wanted).await });
        set.settle(1).await;
        set.grants_on(2);
        set.terms(revision, 2);
        set.fake.open();
        let lease = asking.await.unwrap().unwrap();
        assert_eq!((lease.terms.digest, set.fake.calls()), (Some([2; 32]), 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_newer_than_the_last_word_is_used() {
    let set = set(TTL, Duration::ZERO);
    // The configuration was read again, and the word about it is still on its way.
    set.terms(1, 1);
    set.grants_on(2);
    assert_eq!((set.had().await, set.fake.calls()), (Ok(Some(2)), 1));
    assert!(!set.terms(1, 2), "and the word ends nothing when it comes");
    // Of a lease without a share of its own, another daemon's terms say nothing.
    let other = Word {
        source: 1,
        revision: 9,
        terms: Some([3; 32]),
        ..Word::default()
    };
    assert!(!set.hear(&other));
    assert_eq!((set.had().await, set.fake.calls()), (Ok(Some(2)), 1));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_a_loss_of_the_key_overtook_is_not_used() {
    let set = set(TTL, Duration::ZERO);
    set.fake.then(Ok((1, 1)));
    set.fake.then(Err(NO));
    set.fake.shut();
    let (cache, wanted) = (set.cache.clone(), set.wanted.clone());
    let asking = tokio::spawn(async move { cache.lease(&wanted).await.map(|lease| lease.version) });
    set.settle(1).await;
    // No caller's rule allows it any more; that makes no new revision either.
    set.hear(&Word {
        revision: 1,
        usable: false,
        ..Word::default()
    });
    set.fake.open();
    assert_eq!(asking.await.unwrap(), Err(NO));
}

#[tokio::test(start_paused = true)]
async fn whoever_listens_hears_when_what_is_held_changes() {
    let set = set(TTL, Duration::ZERO);
    let mut changes = set.cache.changes();
    let mut changed = || {
        changes.has_changed().unwrap() && {
            changes.mark_unchanged();
            true
        }
    };
    set.fake.then(Ok((1, 1)));
    set.fake.then(Ok((1, 1)));
    set.fake.then(Ok((2, 2)));
    assert_eq!(set.version().await, Ok(1));
    assert!(changed(), "a first lease");
    set.cache.prefetch(&set.wanted).await.unwrap();
    assert!(!changed(), "the same version again");
    set.cache.prefetch(&set.wanted).await.unwrap();
    assert!(changed(), "a successor");
    set.revoke(3, &[2]);
    assert!(changed(), "a revoke");
    set.revoke(4, &[2]);
    assert!(!changed(), "nothing was held");
    set.revoke(5, &[]);
    set.fake.then(Ok((3, 5)));
    set.fake.then(Ok((3, 5)));
    assert_eq!(set.version().await, Ok(3));
    assert!(changed());
    set.clock.advance(TTL);
    set.cache.sweep();
    assert!(changed(), "the end of its time");
}

#[tokio::test(start_paused = true)]
async fn a_new_time_holds_at_once() {
    let set = set(TTL, Duration::ZERO);
    assert_eq!(set.version().await, Ok(1));
    set.cache.begin_anew(Duration::from_secs(10));
    assert!(set.cache.in_use().is_empty());
    assert_eq!(set.version().await, Ok(1));
    set.clock.advance(Duration::from_secs(7));
    assert_eq!(set.version().await, Ok(1));
    assert_eq!(set.fake.calls(), 2);
    set.clock.advance(Duration::from_secs(3));
    assert_eq!(set.version().await, Ok(1));
    assert_eq!(set.fake.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_successor_replaces_what_is_held_without_a_gap() {
    let set = set(TTL, Duration::ZERO);
    set.fake.then(Ok((1, 1)));
    set.fake.then(Ok((2, 2)));
    assert_eq!(set.version().await, Ok(1));
    assert_eq!(
        set.cache.behind(&set.wanted.key_id, 2),
        std::slice::from_ref(&set.wanted)
    );
    assert!(set.cache.behind(&set.wanted.key_id, 1).is_empty());
    set.cache.prefetch(&set.wanted).await.unwrap();
    assert_eq!(set.version().await, Ok(2));
    assert_eq!(set.fake.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn leases_past_their_grace_leave_memory() {
    let set = set(TTL, Duration::from_secs(50));
    assert_eq!(set.version().await, Ok(1));
    let held = Arc::downgrade(&set.cache.lease(&set.wanted).await.unwrap());
    set.clock.advance(Duration::from_secs(149));
    set.cache.sweep();
    assert!(held.upgrade().is_some());
    set.clock.advance(Duration::from_secs(1));
    set.cache.sweep();
    assert!(held.upgrade().is_none());
}

/// What a daemon says of the key.
fn word(source: usize) -> Word {
    Word {
        source,
        revision: 1,
        ..Word::default()
    }
}

#[tokio::test(start_paused = true)]
async fn each_daemon_whose_share_opened_a_lease_may_end_it_and_no_other_but_by_revoking() {
    for (source, ends) in [(0, true), (1, true), (2, false)] {
        let set = set(TTL, Duration::ZERO);
        set.fake.set_sources(&[0, 1]);
        set.grants_on(1);
        assert_eq!(set.version().await, Ok(1));
        let other_terms = Word {
            terms: Some([2; 32]),
            ..word(source)
        };
        assert_eq!(set.hear(&other_terms), ends, "terms of {source}");
        assert_eq!(set.version().await, Ok(1));
        let not_for_us = Word {
            usable: false,
            ..word(source)
        };
        assert_eq!(set.hear(&not_for_us), ends, "loss at {source}");
        set.hear(&word(source));
        assert_eq!(set.version().await, Ok(1));
        let revoked = Word {
            revoked: vec![1],
            ..word(source)
        };
        assert!(set.hear(&revoked), "revoked by {source}");
        assert_eq!(set.version().await, Err(Code::KeyRevoked), "{source}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_daemon_revoked_stays_so_for_the_grants_of_all() {
    for ttl in [TTL, Duration::ZERO] {
        let set = set(ttl, Duration::ZERO);
        // Before anybody asked, by a daemon that gives no share; and its silence about the key afterwards takes nothing back.
        let revoked = Word {
            revoked: vec![1],
            ..word(2)
        };
        set.hear(&revoked);
        set.cache.retain((2, 2), |_| false);
        set.cache.sweep();
        assert_eq!(set.version().await, Err(Code::KeyRevoked));
        // The nearest neighbour: the next version.
        set.fake.then(Ok((2, 1)));
        set.clock.advance(RETRY_AFTER);
        assert_eq!(set.version().await, Ok(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_word_of_any_source_that_overtook_a_grant_is_waited_for() {
    for (source, calls) in [(0, 2), (1, 2), (2, 1)] {
        let set = set(TTL, Duration::ZERO);
        set.fake.set_sources(&[0, 1]);
        set.grants_on(1);
        set.fake.then(Ok((1, 1)));
        set.fake.shut();
        let (cache, wanted) = (set.cache.clone(), set.wanted.clone());
        let asking = tokio::spawn(async move { cache.lease(&wanted).await });
        set.settle(1).await;
        set.grants_on(2);
        set.hear(&Word {
            terms: Some([2; 32]),
            ..word(source)
        });
        set.fake.open();
        asking.await.unwrap().unwrap();
        assert_eq!(set.fake.calls(), calls, "{source}");
    }
}
