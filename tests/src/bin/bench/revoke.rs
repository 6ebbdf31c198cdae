//! Revoke to refuse over a hundred connected agents, and that nothing of the key leaves after the last of them has acknowledged.
//!
//! An agent lets go of a version before it acknowledges, so the time of its acknowledgement at the daemon is the latest at which a request
//! could still have had the key. The times are of the slowest of all agents; what the operator waits for besides is that tokens remember the
//! revoke, which keeps it from being rolled back.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hyper_util::rt::TokioIo;
use proto::v1::admin_client::AdminClient;
use proto::v1::{ListAgentsRequest, RevokeKeyRequest};
use tests::workload::marked;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::figure::{Figure, Goal, median};
use crate::load;
use crate::rig::{Daemon, KEY, Rig};

const SECTION: &str = "Revoke, 100 agents connected";
/// A user may hold 128 sessions.
const AGENTS: usize = 100;
const ROUNDS: usize = 3;
/// All agents have the new version after this long, or something is wrong.
const SETTLE: Duration = Duration::from_secs(60);

/// What one round measured, in milliseconds.
struct Round {
    /// From the call to the last agent's acknowledgement.
    refused: f64,
    /// Of that, from the moment when it was durable.
    pushed: f64,
    /// From the call to its answer.
    answered: f64,
}

/// Measures a daemon that is up.
pub async fn measure(rig: &Rig) -> anyhow::Result<Vec<Figure>> {
    let mut agents = Vec::with_capacity(AGENTS);
    for number in 0..AGENTS {
        agents.push(rig.agent_named(&format!("agent-{number}"), &rig.socket, "600s")?);
    }
    for agent in &mut agents {
        agent.ready()?;
    }
    let mut admin = connect(rig).await?;
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        if round > 1 {
            rig.rotate()?;
        }
        for agent in &agents {
            request(agent)?
                .then_some(())
                .context("a request before the revoke was refused")?;
        }
        all_hold(&mut admin, u32::try_from(round)?).await?;
        rounds.push(revoke(&mut admin).await?);
        rig.upstream.watch();
        for agent in &agents {
            ensure!(
                !request(agent)?,
                "a request was served after every agent had acknowledged the revoke"
            );
        }
        ensure!(
            rig.upstream.first().seen.is_none(),
            "the provider saw a request after the revoke"
        );
    }
    for agent in &mut agents {
        agent.process.terminate()?;
    }
    // For the sections that come after.
    rig.rotate()?;
    let of = |what: fn(&Round) -> f64| median(rounds.iter().map(what).collect());
    Ok(vec![
        Figure::new(
            SECTION,
            "revoke to refuse, slowest agent",
            of(|round| round.refused),
            "ms",
        )
        .goal(Goal::AtMost(50.0)),
        Figure::new(
            SECTION,
            "of that, from durable on",
            of(|round| round.pushed),
            "ms",
        ),
        Figure::new(
            SECTION,
            "revoke to the operator's answer",
            of(|round| round.answered),
            "ms",
        ),
    ])
}

async fn connect(rig: &Rig) -> anyhow::Result<AdminClient<Channel>> {
    let socket = rig.admin_socket.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://hsmd")
        .connect_with_connector(connector)
        .await?;
    Ok(AdminClient::new(channel))
}

/// Waits until every agent has said that it holds this version.
async fn all_hold(admin: &mut AdminClient<Channel>, version: u32) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let listed = admin.list_agents(marked(ListAgentsRequest {})).await?;
        let holds = listed.get_ref().agents.iter().filter(|agent| {
            let mut in_use = agent.in_use.iter();
            agent.name.starts_with("agent-")
                && in_use.any(|one| one.key_id == KEY && one.version == version)
        });
        if holds.count() == AGENTS {
            return Ok(());
        }
        if began.elapsed() > SETTLE {
            bail!("not all agents hold version {version} after {SETTLE:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Revokes all versions, and notes when each agent had acknowledged it.
async fn revoke(admin: &mut AdminClient<Channel>) -> anyhow::Result<Round> {
    let request = RevokeKeyRequest {
        key_id: KEY.to_owned(),
        reason: "measured".to_owned(),
        ..RevokeKeyRequest::default()
    };
    let sent = Instant::now();
    let mut progress = admin.revoke_key(marked(request)).await?.into_inner();
    loop {
        let step = progress
            .message()
            .await?
            .context("the progress ended early")?;
        let (answered, since_durable) = (sent.elapsed(), Duration::from_micros(step.elapsed_us));
        let pushed = Duration::from_micros(step.slowest_us);
        // A daemon that was restarted waits for leases of its earlier run; those of our agents are gone with their acknowledgement.
        if usize::try_from(step.acknowledged)? >= AGENTS {
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            return Ok(Round {
                refused: ms(answered.saturating_sub(since_durable) + pushed),
                pushed: ms(pushed),
                answered: ms(answered),
            });
        }
        ensure!(
            !step.done,
            "{} of {AGENTS} agents acknowledged",
            step.acknowledged
        );
    }
}

/// Whether a request through this agent is answered by the provider.
fn request(agent: &Daemon) -> anyhow::Result<bool> {
    let mut app = TcpStream::connect(agent.address("listen")?)?;
    app.write_all(&load::request("127.0.0.1", "/openai", "sk-placeholder"))?;
    let answer = load::answer(&mut app, &mut Vec::new())?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}
