//! Asking daemons for shares: those that should suffice first, all others at once when an answer is late, refused or short.
//!
//! Knows neither sessions nor messages, so that every way in which daemons can fail is a table in a test. What ends it early is the first
//! quorum that opens, or a daemon that says that the key is revoked: one is enough for that.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::HsmdError;
use super::error::Again;
use crate::respond::Code;

/// Who is asked, in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// All daemons, best first.
    pub(super) order: Vec<usize>,
    /// How many are asked at once.
    pub(super) first: usize,
    /// When all others are asked.
    pub(super) hedge: Duration,
}

/// What became of an answer that does not count.
#[derive(Debug)]
pub(super) struct Blame {
    /// The daemon whose fault it is; not always the one that answered last.
    pub(super) source: usize,
    pub(super) error: HsmdError,
}

/// Asks until something comes of the answers.
///
/// `take` is given each answer, and says what came of all of them so far. `late` hears of daemons to be asked after the others next time.
///
/// # Errors
/// Everything that failed, by daemon, when nobody is left to ask.
pub(super) async fn gather<A, T, F>(
    plan: &Plan,
    ask: impl Fn(usize) -> F,
    mut take: impl FnMut(usize, A) -> Result<Option<T>, Blame>,
    late: impl Fn(usize),
) -> Result<T, Vec<Blame>>
where
    F: Future<Output = Result<A, HsmdError>>,
{
    let ask = |source: usize| {
        let answer = ask(source);
        async move { (source, answer.await) }
    };
    let mut others = plan.order.iter().copied();
    let mut waiting: BTreeSet<usize> = BTreeSet::new();
    let mut asked = FuturesUnordered::new();
    for source in others.by_ref().take(plan.first.max(1)) {
        waiting.insert(source);
        asked.push(ask(source));
    }
    let mut again = BTreeSet::new();
    let mut failed = Vec::new();
    let mut hedge = std::pin::pin!(tokio::time::sleep(plan.hedge));
    let mut hedged = false;
    loop {
        let more = tokio::select! {
            biased;
            answer = asked.next() => {
                let Some((source, answer)) = answer else { return Err(failed) };
                waiting.remove(&source);
                let outcome = match answer {
                    Ok(answer) => take(source, answer),
                    Err(error) => {
                        if error.is_outage() {
                            late(source);
                        }
                        Err(Blame { source, error })
                    }
                };
                match outcome {
                    Ok(Some(done)) => return Ok(done),
                    // Short; those that were asked with it may complete it.
                    Ok(None) => asked.is_empty(),
                    Err(blame) if blame.error.code() == Some(Code::KeyRevoked) => return Err(vec![blame]),
                    Err(blame) => {
                        if blame.error.again() == Again::NewSession && !waiting.contains(&blame.source) && again.insert(blame.source) {
                            waiting.insert(blame.source);
                            asked.push(ask(blame.source));
                        } else {
                            failed.push(blame);
                        }
                        true
                    }
                }
            }
            () = &mut hedge, if !hedged => {
                hedged = true;
                waiting.iter().copied().for_each(&late);
                true
            }
        };
        if more {
            for source in others.by_ref() {
                waiting.insert(source);
                asked.push(ask(source));
            }
        }
    }
}
