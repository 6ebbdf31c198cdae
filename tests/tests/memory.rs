//! What root finds of a key in the memory of the daemons: read through `/proc/PID/mem`, and in a core that `gcore` writes.
//!
//! Real tokens, a TLS provider, a thousand requests on warm connections, then rest. On the `memfd_secret` tier root finds
//! nothing; on the lower tier exactly the one copy in the arena, and none once its lease is over.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tests::canary::{Canary, Report};
use tests::fixture;
use tests::http;
use tests::process::eventually;
use tests::scene::Scene;
use tests::seal::Sealed;
use tests::stack::Sockets;
use tests::upstream::Provider;

/// Requests on warm connections before anybody looks.
const REQUESTS: usize = 1_000;

/// Whether this test may look at all; says loudly when not.
fn may_look() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!(
            "NOT CHECKED: only root may read the memory of a process that closed itself to dumps"
        );
    }
    root
}

struct Hunt {
    canary: Canary,
    dir: TempDir,
}

impl Hunt {
    fn for_key() -> anyhow::Result<Self> {
        Self::of(&[("provider key", fixture::key(Provider::OpenAi).as_bytes())])
    }

    /// For everything that the daemon must never see.
    fn for_all(sealed: &Sealed) -> anyhow::Result<Self> {
        let key = fixture::key(Provider::OpenAi).as_bytes();
        let mut secrets: Vec<(&str, &[u8])> = vec![("provider key", key), ("DEK", &sealed.dek)];
        secrets.extend(
            sealed
                .shares
                .iter()
                .map(|share| ("share", share.as_slice())),
        );
        Self::of(&secrets)
    }

    fn of(secrets: &[(&str, &[u8])]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let canary = Canary::armed(dir.path(), secrets)?;
        let (name, secret) = secrets[0];
        canary.prove_on_cores(dir.path(), name, secret)?;
        Ok(Self { canary, dir })
    }

    /// Everything that root reads of a process.
    fn memory(&self, pid: u32) -> anyhow::Result<Report> {
        let report = self.canary.process(pid)?;
        ensure!(
            report.bytes > 1 << 20,
            "only {} bytes were readable",
            report.bytes
        );
        Ok(report)
    }

    /// A core holds nothing, at any tier: the arena is left out of dumps.
    fn core_is_clean(&self, pid: u32, what: &str) -> anyhow::Result<()> {
        match self.canary.core(pid, self.dir.path())? {
            Some(report) => report.clean(&format!("a core of {what}")),
            None => {
                eprintln!("NOT CHECKED: gcore is not installed (Debian: apt-get install gdb)");
                Ok(())
            }
        }
    }
}

/// The tier that the agent says it uses.
fn tier(scene: &Scene) -> anyhow::Result<String> {
    let page = http::get(&format!("{}/metrics", scene.stack.field("agent_admin")?))?.text();
    let line = page
        .lines()
        .find(|line| line.starts_with("tacit_agent_key_memory_tier{") && line.ends_with(" 1"));
    let tier = line.and_then(|line| line.split('"').nth(1));
    Ok(tier.context("no tier is told")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn root_finds_no_key_in_a_loaded_agent_and_nothing_at_all_in_the_daemon() -> anyhow::Result<()>
{
    if !may_look() {
        return Ok(());
    }
    let scene = Scene::start("60s").await?;
    let sealed = scene.add_recorded(Provider::OpenAi)?;
    scene.stack.agent_ready()?;
    let warm = scene.load(REQUESTS)?;

    let key = Hunt::for_key()?;
    let agent = scene.stack.pid("tacit-agent")?;
    let found = key.memory(agent)?;
    if tier(&scene)? == "memfd_secret" {
        ensure!(
            found.met_secret_memory(),
            "the arena was passed by: {:?}",
            found.unreadable
        );
        found.clean("the agent's whole memory")?;
    } else {
        eprintln!(
            "NOT CHECKED: this kernel has no memfd_secret; the lower tier is, by the other test"
        );
    }
    key.core_is_clean(agent, "the agent")?;

    let all = Hunt::for_all(&sealed)?;
    let hsmd = scene.stack.pid("hsmd")?;
    all.memory(hsmd)?.clean("the daemon's whole memory")?;
    all.core_is_clean(hsmd, "the daemon")?;
    // The core was taken of living processes: they go on.
    ensure!(scene.chat()?.status == 200);
    drop(warm);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_lower_tier_the_arena_has_the_one_copy_and_none_after_the_lease()
-> anyhow::Result<()> {
    if !may_look() {
        return Ok(());
    }
    let locked = "[memory]\ntier = \"locked\"\n";
    let scene = Scene::start_where(locked, "10s", Sockets::Direct).await?;
    scene.add(Provider::OpenAi)?;
    scene.stack.agent_ready()?;
    let key = Hunt::for_key()?;
    ensure!(tier(&scene)? == "locked");
    let agent = scene.stack.pid("tacit-agent")?;
    let warm = scene.load(REQUESTS)?;
    // A lease that ends while the scan comes by is not met; then once more, with a new one.
    let found = eventually("the scan meets the lease", || {
        let met = scene.chat().and_then(|_| key.memory(agent));
        match met {
            Ok(found) if found.hits.is_empty() => None,
            met => Some(met),
        }
    })??;
    let copies = found.copies();
    ensure!(
        copies.len() == 1,
        "{} copies: {:?}",
        copies.len(),
        found.hits
    );
    let length = fixture::key(Provider::OpenAi).len() as u64;
    let copy = copies[0]..copies[0] + length;
    ensure!(
        found.hits.iter().all(|hit| copy.contains(&hit.at)),
        "{:?}",
        found.hits
    );
    found
        .outside_locked_memory()
        .clean("the agent's memory besides the arena")?;
    ensure!(scene.chat()?.status == 200);
    key.core_is_clean(agent, "the agent")?;
    // Nobody asks any more: the lease ends, and its place is wiped.
    let mut last = Ok(());
    eventually("the key is gone with its lease", || {
        last = key
            .memory(agent)
            .and_then(|found| found.clean("the agent's whole memory"));
        last.is_ok().then_some(())
    })
    .with_context(|| format!("{last:?}"))?;
    drop(warm);
    Ok(())
}
