//! Who is asked for shares, in which order and when; time is simulated, so that every figure is exact.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::HsmdError;
use super::error::Again;
use super::gather::{Blame, Plan, gather};
use crate::respond::Code;

const HEDGE: Duration = Duration::from_millis(30);
/// How long a call to a daemon that hangs takes to fail.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// How a daemon behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    /// Answers with its share after some milliseconds.
    Answer(u64),
    /// Says at once that it cannot.
    Refuse(Code, Again),
    /// Says nothing until the call is given up.
    Hang,
}

use Does::{Answer, Hang, Refuse};

const DOWN: Does = Refuse(Code::HsmUnavailable, Again::OtherDaemon);
const DENIED: Does = Refuse(Code::PermissionDenied, Again::No);
const REVOKED: Does = Refuse(Code::KeyRevoked, Again::No);

/// What came of it.
#[derive(Debug)]
struct Ran {
    /// Daemons whose shares were put together, or what each failure was.
    result: Result<Vec<usize>, Vec<Code>>,
    took: Duration,
    /// Daemon and moment of each call.
    asked: Vec<(usize, u64)>,
    late: Vec<usize>,
}

/// Daemons with one share each, in order; `t` shares open the key.
async fn run(daemons: &[Does], t: usize, first: usize) -> Ran {
    let plan = Plan {
        order: (0..daemons.len()).collect(),
        first,
        hedge: HEDGE,
    };
    let (start, asked) = (Instant::now(), Mutex::default());
    let late: Mutex<Vec<usize>> = Mutex::default();
    let ask = |source: usize| {
        let since = u64::try_from(start.elapsed().as_millis()).unwrap();
        let asked: &Mutex<Vec<_>> = &asked;
        asked.lock().unwrap().push((source, since));
        let does = daemons[source];
        async move {
            let refused = |code, again| HsmdError::Refused {
                text: String::new(),
                code,
                again,
            };
            match does {
                Answer(ms) => {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    Ok(source)
                }
                Refuse(code, again) => Err(refused(code, again)),
                Hang => {
                    tokio::time::sleep(GIVEN_UP).await;
                    Err(refused(Code::HsmUnavailable, Again::OtherDaemon))
                }
            }
        }
    };
    let mut have = Vec::new();
    let take = |_, share: usize| {
        have.push(share);
        Ok((have.len() == t).then(|| have.clone()))
    };
    let result = gather(&plan, ask, take, |source| late.lock().unwrap().push(source)).await;
    let codes = |failed: Vec<Blame>| failed.iter().filter_map(|one| one.error.code()).collect();
    Ran {
        result: result.map_err(codes),
        took: start.elapsed(),
        asked: asked.into_inner().unwrap(),
        late: late.into_inner().unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_should_suffice_are_asked_and_nobody_else() {
    let ran = run(&[Answer(5), Answer(20), Answer(1)], 2, 2).await;
    assert_eq!(ran.result, Ok(vec![0, 1]));
    assert_eq!(ran.asked, [(0, 0), (1, 0)]);
    assert_eq!(
        (ran.took, ran.late),
        (Duration::from_millis(20), Vec::new())
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_is_late_costs_the_hedge_and_no_more() {
    for slow in [Hang, Answer(1000), Answer(32)] {
        let ran = run(&[Answer(5), slow, Answer(1)], 2, 2).await;
        assert_eq!(ran.result, Ok(vec![0, 2]), "{slow:?}");
        assert_eq!(ran.asked, [(0, 0), (1, 0), (2, 30)], "{slow:?}");
        assert_eq!(ran.took, HEDGE.max(Duration::from_millis(31)), "{slow:?}");
        assert_eq!(ran.late, [1], "{slow:?}");
    }
    // The nearest neighbour: just in time.
    let ran = run(&[Answer(5), Answer(29), Answer(1)], 2, 2).await;
    assert_eq!(
        (ran.result, ran.asked.len(), ran.late.len()),
        (Ok(vec![0, 1]), 2, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_refuses_is_replaced_at_once_by_all_others() {
    for (no, late) in [(DOWN, vec![0]), (DENIED, vec![])] {
        let ran = run(&[no, Answer(5), Answer(2), Answer(3)], 2, 2).await;
        assert_eq!(ran.result, Ok(vec![2, 3]), "{no:?}");
        assert_eq!(ran.asked, [(0, 0), (1, 0), (2, 0), (3, 0)], "{no:?}");
        assert_eq!(ran.late, late, "{no:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn too_few_shares_of_those_asked_first_bring_the_others_at_once() {
    // Nothing was known of them: one was asked, and it turned out to be a part.
    let ran = run(&[Answer(3), Answer(1), Answer(2)], 2, 1).await;
    assert_eq!(ran.result, Ok(vec![0, 1]));
    assert_eq!(ran.asked, [(0, 0), (1, 3), (2, 3)]);
}

#[tokio::test(start_paused = true)]
async fn one_that_says_revoked_is_enough_and_one_that_denies_is_not() {
    let ran = run(&[REVOKED, Answer(1), Answer(1)], 2, 2).await;
    assert_eq!(ran.result, Err(vec![Code::KeyRevoked]));
    let ran = run(&[DENIED, Answer(1), Answer(1)], 2, 2).await;
    assert_eq!(ran.result, Ok(vec![1, 2]));
    let ran = run(&[DENIED, DENIED, Answer(1)], 2, 2).await;
    assert_eq!(
        ran.result,
        Err(vec![Code::PermissionDenied, Code::PermissionDenied])
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_went_stale_is_asked_once_more_and_not_for_ever() {
    let stale = Refuse(Code::HsmUnavailable, Again::NewSession);
    let ran = run(&[stale, Answer(1)], 2, 2).await;
    assert_eq!(ran.result, Err(vec![Code::HsmUnavailable]));
    assert_eq!(ran.asked, [(0, 0), (1, 0), (0, 0)]);
}

/// Each way to fail, for each set of daemons, up to five of them: exactly those with t healthy ones serve, and none of them waits for a
/// daemon that hangs.
#[tokio::test(start_paused = true)]
async fn exactly_the_rows_with_t_healthy_daemons_serve() {
    let mut rows = 0;
    for fails in [DOWN, DENIED, Hang] {
        for n in 2..=5 {
            for (t, failing) in (2..=n).flat_map(|t| (0..1u32 << n).map(move |set| (t, set))) {
                let daemons: Vec<Does> = (0..n)
                    .map(|at| match failing >> at & 1 {
                        0 => Answer(2),
                        _ => fails,
                    })
                    .collect();
                let healthy = n - usize::try_from(failing.count_ones()).unwrap();
                let ran = run(&daemons, t, t).await;
                assert_eq!(ran.result.is_ok(), healthy >= t, "{daemons:?} {t}: {ran:?}");
                if healthy >= t {
                    assert!(ran.took <= HEDGE + Duration::from_millis(2), "{ran:?}");
                }
                rows += 1;
            }
        }
    }
    assert_eq!(rows, 3 * (4 + 2 * 8 + 3 * 16 + 4 * 32));
}
