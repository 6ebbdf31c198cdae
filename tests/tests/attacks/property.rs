//! The property over generated requests and answers: key bytes reach only the bound upstream, exactly once in each request, in one
//! slot, and reach the app never.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tests::raw::authority::Certificate;
use tests::raw::patient;
use tests::raw::scene::Scene;
use tests::raw::script::ok;
use tests::raw::upstream::Upstream;
use tokio::runtime::Runtime;

use crate::grammar::{THERE, echo, request};
use crate::requests::OWN;

/// Each case is a connection with a few requests; a running agent takes hundreds in seconds.
const CASES: u32 = 400;

/// Ends every case: longer than any length that lies, and good.
fn last() -> String {
    format!(
        "GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\nx-filler: {}\r\nConnection: close\r\n\r\n",
        "a".repeat(200)
    )
}

fn run<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    };
    if let Err(failure) = TestRunner::new(config).run(strategy, test) {
        panic!("{failure}");
    }
}

#[test]
fn whatever_an_app_sends_the_key_reaches_its_upstream_once_in_one_slot() {
    let runtime = Runtime::new().unwrap();
    let scene = runtime.block_on(Scene::start());
    let attacker = runtime.block_on(Upstream::start(&scene.authority, Certificate::Good));
    let there = format!("127.0.0.1:{}", attacker.port());
    let sent = std::cell::Cell::new(0);
    run(&vec(request(), 1..4), |requests| {
        let mark = scene.mark();
        let text: String = requests
            .iter()
            .map(|request| request.bytes(&there))
            .collect();
        runtime.block_on(async {
            let mut app = scene.open().await;
            app.send(text + &last()).await;
            app.rest().await;
        });
        sent.set(sent.get() + requests.len() + 1);
        if let Some(broken) = scene.broken(mark) {
            return Err(TestCaseError::fail(broken));
        }
        for seen in scene.requests_since(mark) {
            prop_assert!(
                !seen.head.contains(OWN),
                "a credential of the app got through: {}",
                seen.head
            );
            let forbidden = ["organization/", "auth_tokens", "DELETE", THERE, &there];
            let target = seen.line();
            prop_assert!(
                !forbidden.iter().any(|part| target.contains(part)),
                "{target}"
            );
        }
        prop_assert_eq!(
            attacker.log().accepted,
            0,
            "the attacker's server was dialled"
        );
        Ok(())
    });
    // Otherwise nothing was tested: about every second request is meant to pass.
    let whole = scene.whole().len();
    assert!(
        whole > sent.get() / 5,
        "{whole} of {} requests got through",
        sent.get()
    );
    assert!(
        whole <= sent.get(),
        "{whole} requests out of {}",
        sent.get()
    );
    scene.holds();
}

#[test]
fn whatever_an_upstream_answers_the_key_reaches_no_app() {
    let runtime = Runtime::new().unwrap();
    let scene = runtime.block_on(Scene::start());
    let routes = [
        "/openai/v1/models",
        "/anthropic/v1/models",
        "/gemini/v1beta/models",
    ];
    run(&(echo(), 0..3usize), |(echo, route)| {
        let mark = scene.mark();
        scene.upstream.script(move |seen| echo.steps(&seen.key()));
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            routes[route]
        );
        let seen = runtime.block_on(async {
            let mut app = scene.open().await;
            app.send(request).await;
            patient("an answer", app.answer("GET")).await
        });
        prop_assert!(seen.is_some(), "no answer at all");
        match scene.broken(mark) {
            Some(broken) => Err(TestCaseError::fail(broken)),
            None => Ok(()),
        }
    });
    scene.upstream.answers(ok());
    scene.holds();
}
