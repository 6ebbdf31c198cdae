//! From nothing to ready, and from `OpenSession` to the first request that the provider sees with its key.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::figure::{Figure, Goal, median};
use crate::load;
use crate::rig::Rig;

const STARTS: usize = 9;
const FIRSTS: usize = 11;

/// Milliseconds from the start of the process to `/ready`.
pub fn hsmd(rig: &Rig) -> anyhow::Result<Vec<Figure>> {
    const SECTION: &str = "Start of hsmd (three tokens)";
    let (mut bound, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let mut daemon = rig.hsmd()?;
        bound.push(ms(daemon.started, daemon.bound()?));
        ready.push(ms(daemon.started, daemon.ready()?));
        daemon.process.terminate()?;
    }
    Ok(vec![
        Figure::new(
            SECTION,
            "process start to sockets bound",
            median(bound),
            "ms",
        ),
        Figure::new(SECTION, "process start to ready", median(ready), "ms")
            .goal(Goal::AtMost(100.0)),
    ])
}

/// Milliseconds from an agent's first byte to the daemon until the provider has its first request.
pub fn first_request(rig: &Rig) -> anyhow::Result<Vec<Figure>> {
    const SECTION: &str = "Start of tacit-agent (daemon up, ecdh-kw)";
    let relay_path = rig.dir().join("relay.sock");
    let relay = Relay::start(&relay_path, &rig.socket)?;
    let mut parts: [Vec<f64>; 4] = Default::default();
    for _ in 0..FIRSTS {
        relay.watch();
        rig.upstream.watch();
        let mut agent = rig.agent(&relay_path)?;
        let bound = agent.bound()?;
        let mut app = TcpStream::connect(agent.address("listen")?)?;
        app.set_nodelay(true)?;
        app.write_all(&load::request("127.0.0.1", "/openai", "sk-placeholder"))?;
        let answer = load::answer(&mut app, &mut Vec::new())?;
        ensure!(
            answer.starts_with(b"HTTP/1.1 200 "),
            "the first request failed: {}",
            String::from_utf8_lossy(&answer)
        );
        let opened = relay.first().context("the agent opened no session")?;
        let first = rig.upstream.first();
        let accepted = first.accepted.context("the provider saw no connection")?;
        let seen = first.seen.context("the provider saw no request")?;
        for (part, took) in parts.iter_mut().zip([
            ms(agent.started, bound),
            ms(opened, accepted),
            ms(accepted, seen),
            ms(opened, seen),
        ]) {
            part.push(took);
        }
        agent.process.terminate()?;
    }
    let [listening, leased, sent, whole] = parts.map(median);
    let figure = |name: &str, value| Figure::new(SECTION, name, value, "ms");
    Ok(vec![
        figure("process start to sockets bound", listening),
        figure(
            "OpenSession to the connection upstream (session, lease, opening)",
            leased,
        ),
        figure(
            "connection upstream to the request seen (TLS, injection)",
            sent,
        ),
        figure("OpenSession to the first injected request seen", whole).goal(Goal::AtMost(50.0)),
    ])
}

fn ms(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1e3
}

/// Stands before the daemon's socket and notes when an agent says its first word, which is `OpenSession`.
struct Relay {
    first: Arc<Mutex<Option<Instant>>>,
}

impl Relay {
    fn start(path: &Path, target: &Path) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        let first = Arc::new(Mutex::new(None));
        let (noted, target) = (Arc::clone(&first), target.to_owned());
        std::thread::spawn(move || {
            for agent in listener.incoming().map_while(Result::ok) {
                // Without the daemon the agent sees a closed connection, as it would without the relay.
                let Ok(daemon) = UnixStream::connect(&target) else {
                    continue;
                };
                let (Ok(from_agent), Ok(from_daemon)) = (agent.try_clone(), daemon.try_clone())
                else {
                    continue;
                };
                copy(from_agent, daemon, Some(Arc::clone(&noted)));
                copy(from_daemon, agent, None);
            }
        });
        Ok(Relay { first })
    }

    fn watch(&self) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn first(&self) -> Option<Instant> {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream, note: Option<Arc<Mutex<Option<Instant>>>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if let Some(note) = &note {
                note.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert_with(Instant::now);
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // The other direction ends when its peer sees this end.
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
