//! `make demo`: the main job on three SoftHSM tokens, with every claim checked while it is shown.
//!
//! It ends with success only if each claim held, and leaves no process and no file behind.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use tests::canary::{Canary, Report};
use tests::fixture::{self, PLACEHOLDER};
use tests::process::eventually;
use tests::scene::Scene;
use tests::stack::Sockets;
use tests::upstream::Provider;

/// Prints what is claimed and remembers whether it held.
#[derive(Default)]
struct Claims {
    held: usize,
    broken: usize,
}

impl Claims {
    fn claim(&mut self, what: &str, held: bool) {
        *(if held {
            &mut self.held
        } else {
            &mut self.broken
        }) += 1;
        line(&format!(
            "     [{}] {what}",
            if held { "ok" } else { "BROKEN" }
        ));
    }

    /// A hunt that must have looked at something and found nothing.
    fn clean(&mut self, what: &str, report: &Report) {
        self.claim(
            &format!(
                "{what}: {} KiB read, {} copies",
                report.bytes >> 10,
                report.hits.len()
            ),
            report.clean(what).is_ok(),
        );
    }
}

fn line(text: &str) {
    // A reader that went away is no reason to stop half-way and leave processes behind.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(demo()) {
        Ok(Claims { held, broken: 0 }) => {
            line(&format!("\nAll {held} claims were checked and hold."));
            ExitCode::SUCCESS
        }
        Ok(Claims { broken, .. }) => failed(&anyhow::anyhow!("{broken} claims do not hold")),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "demo: {error:#}");
    ExitCode::FAILURE
}

async fn demo() -> anyhow::Result<Claims> {
    let mut claims = Claims::default();
    line(
        "Tacit: an unmodified request leaves with a key that only the HSM tokens could release.\n",
    );

    let started = Instant::now();
    // No lease is cached: each request below goes through the tokens.
    let scene = Scene::start_with("0s", Sockets::Tapped).await?;
    line(&format!(
        "1. tokens    three SoftHSM tokens, hsmd and tacit-agent, started in {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    claims.claim(
        "a token process for each of three custodians",
        scene.stack.pids("tacit-token").len() == 3,
    );

    line(
        "2. operator  tacit key add openai-prod, with the key sealed on this machine to two of three tokens",
    );
    let sealed = scene.add_recorded(Provider::OpenAi)?;
    eventually("the agent serves", || {
        scene.chat().ok().filter(|answer| answer.status == 200)
    })?;

    app(&scene, &mut claims)?;
    provider(&scene, &mut claims)?;
    hunt(&scene, &sealed, &mut claims)?;
    revoke(&scene, &mut claims)?;
    Ok(claims)
}

fn app(scene: &Scene, claims: &mut Claims) -> anyhow::Result<()> {
    let answer = scene.chat()?;
    line(&format!(
        "3. app       POST {}/openai/v1/chat/completions",
        scene.stack.agent()?
    ));
    line(&format!("             authorization: Bearer {PLACEHOLDER}"));
    line(&format!(
        "             {}",
        answer.head.lines().next().unwrap_or_default()
    ));
    let text = answer.json()?["choices"][0]["message"]["content"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    claims.claim(
        &format!("the model answered {text:?}"),
        answer.status == 200 && text == "You said: one two",
    );
    Ok(())
}

fn provider(scene: &Scene, claims: &mut Claims) -> anyhow::Result<()> {
    let seen = scene
        .upstream
        .requests()
        .pop()
        .context("the provider saw no request")?;
    line(&format!(
        "4. provider  {} {} over TLS",
        seen.method, seen.path
    ));
    for (name, value) in &seen.headers {
        let value = String::from_utf8_lossy(value).replace(
            fixture::key(Provider::OpenAi),
            "sk-proj-(the real key, not printed)",
        );
        line(&format!("             {name}: {value}"));
    }
    claims.claim(
        "the real key arrived, in its slot, once and alone",
        seen.refused.is_none(),
    );
    let wire = scene.upstream.wire().concat();
    let placeholder = wire
        .windows(PLACEHOLDER.len())
        .any(|window| window == PLACEHOLDER.as_bytes());
    claims.claim(
        &format!(
            "the placeholder is not among the {} bytes received",
            wire.len()
        ),
        !placeholder,
    );
    Ok(())
}

fn hunt(scene: &Scene, sealed: &tests::seal::Sealed, claims: &mut Claims) -> anyhow::Result<()> {
    line("5. canary    hunts the key, its data key and its shares, raw and in every encoding");
    let room = tempfile::tempdir()?;
    let mut secrets: Vec<(&str, &[u8])> = vec![
        ("key", fixture::key(Provider::OpenAi).as_bytes()),
        ("data key", &sealed.dek),
    ];
    let no_key = Canary::armed(room.path(), &secrets)?;
    secrets.extend(
        sealed
            .shares
            .iter()
            .map(|share| ("share", share.as_slice())),
    );
    let nothing = Canary::armed(room.path(), &secrets)?;
    claims.claim("it finds copies planted in a file and in a process", true);
    scene.serving(|| {
        claims.clean(
            "memory of hsmd while it serves leases",
            &nothing.process(scene.stack.pid("hsmd")?)?,
        );
        for token in scene.stack.pids("tacit-token") {
            claims.clean("memory of a token process", &no_key.process(token)?);
        }
        Ok(())
    })?;
    // At rest: while a request is on its way its head is one more copy, in a buffer that is wiped.
    let agent = no_key
        .process(scene.stack.pid("tacit-agent")?)?
        .outside_locked_memory();
    claims.clean(
        "memory of tacit-agent at rest, outside its locked arena",
        &agent,
    );
    let (workload, admin) = scene.stack.tapped().context("the sockets are tapped")?;
    claims.clean(
        "workload socket, both directions",
        &nothing.bytes("workload socket", &workload),
    );
    claims.clean(
        "admin socket, both directions",
        &nothing.bytes("admin socket", &admin),
    );
    claims.clean(
        "state, tokens, configuration and trace logs",
        &nothing.tree(scene.stack.dir())?,
    );
    Ok(())
}

fn revoke(scene: &Scene, claims: &mut Claims) -> anyhow::Result<()> {
    line("6. operator  tacit key revoke openai-prod");
    let output = scene
        .stack
        .tacit(&["key", "revoke", "openai-prod", "--reason", "demo"], b"")?;
    for said in String::from_utf8_lossy(&output.stdout).lines() {
        line(&format!("             {said}"));
    }
    let before = scene.upstream.request_count();
    let answer = scene.chat()?;
    let code = answer.header("x-tacit-error").unwrap_or("none").to_owned();
    claims.claim(
        &format!("the next request is refused: {} {code}", answer.status),
        answer.status == 403 && code == "key_revoked",
    );
    claims.claim(
        "and nothing left for the provider",
        scene.upstream.request_count() == before,
    );
    Ok(())
}
