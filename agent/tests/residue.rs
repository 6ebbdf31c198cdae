//! What of a key is left in the agent's memory: nothing that root could read through `/proc/PID/mem`.
//!
//! The arena is `memfd_secret` where the kernel has it, which no such read reaches; elsewhere its pages, known by their flags, are left out.
//! The scan is believed because it finds the key in this process, where it is known to be, and a text that is no secret in the agent.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use support::daemon::{self, Daemon, Script};
use support::office::Office;
use support::{App, KEY, Upstream, patient, status};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// Requests on a warm connection.
const REQUESTS: usize = 200;

/// Bytes of a fragment that counts: a copy that lost its ends is a copy.
const FRAGMENT: usize = 20;

/// The running binary.
struct Process {
    child: Child,
    /// Its configuration, whose path it keeps for reloads.
    file: PathBuf,
    addr: String,
    /// The log so far: says which memory the keys are in.
    log: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(dir: &TempDir, text: &str) -> Self {
        let (file, announced) = (dir.path().join("agent.toml"), dir.path().join("announced"));
        std::fs::write(&file, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tacit-agent"))
            .args(["--config".as_ref(), file.as_os_str()])
            .args(["--announce".as_ref(), announced.as_os_str()])
            .env("TACIT_LOG", "trace")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = String::new();
        while !log.contains("serving") {
            log += &lines.next().expect("the agent begins to serve").unwrap();
        }
        // The rest must be read, or the agent stands still.
        std::thread::spawn(move || lines.for_each(drop));
        let addr = log.split("listen=").nth(1).unwrap();
        let addr = addr.split_whitespace().next().unwrap().to_owned();
        Self {
            child,
            file,
            addr,
            log,
        }
    }

    async fn app(&self) -> App {
        App::new(TcpStream::connect(&self.addr).await.unwrap())
    }

    /// Copies of a text, in whatever spelling, that root can read. `None` where nobody may look.
    fn copies(&self, text: &str) -> Option<Vec<String>> {
        let arena = if self.log.contains("memfd_secret") {
            Arena::Scanned
        } else {
            Arena::LeftOut
        };
        scan(self.child.id(), text, arena)
    }
}

/// Whether pages that are locked and not dumped are looked at.
#[derive(Clone, Copy, PartialEq)]
enum Arena {
    Scanned,
    LeftOut,
}

/// Spellings in which a key may lie about.
fn spellings(key: &str) -> Vec<(String, Vec<u8>)> {
    let middle = &key.as_bytes()[2..2 + FRAGMENT];
    let mut list = vec![
        ("raw".to_owned(), middle.to_vec()),
        ("hex".to_owned(), hex::encode(middle).into_bytes()),
        (
            "percent".to_owned(),
            middle
                .iter()
                .flat_map(|byte| format!("%{byte:02X}").into_bytes())
                .collect(),
        ),
    ];
    // Base64 depends on where in a group of three the key begins.
    for skip in 0..3 {
        list.push((format!("base64+{skip}"), base64(&middle[skip..skip + 15])));
    }
    list
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks_exact(3).flat_map(|group| {
        let bits = group
            .iter()
            .fold(0usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| DIGITS[bits >> shift & 63])
    });
    digits.collect()
}

/// Reads all that can be read of a process and lists what it finds, by spelling and mapping.
fn scan(pid: u32, text: &str, arena: Arena) -> Option<Vec<String>> {
    const PIECE: usize = 1024 * 1024;
    let memory = match File::open(format!("/proc/{pid}/mem")) {
        Ok(memory) => memory,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
        Err(error) => panic!("the memory of {pid}: {error}"),
    };
    let spellings = spellings(text);
    let longest = spellings.iter().map(|(_, text)| text.len()).max().unwrap();
    let mut found = Vec::new();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    // A mapping's first line begins with its addresses, all others with `Name:`; the last are its flags.
    let mut map = "";
    for line in maps.lines() {
        let name = line.split_whitespace().next().unwrap();
        if !name.ends_with(':') {
            map = line;
            continue;
        }
        let locked = line.contains(" lo ") && line.contains(" dd ");
        let readable = map.split(' ').nth(1).unwrap().starts_with('r');
        if name != "VmFlags:" || !readable || (locked && arena == Arena::LeftOut) {
            continue;
        }
        let (start, end) = map.split(' ').next().unwrap().split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let (mut at, end) = (address(start), address(end));
        let mut kept = Vec::new();
        while at < end {
            let want = PIECE.min(usize::try_from(end - at).unwrap());
            let mut piece = vec![0; want];
            // Secret memory and device pages give EIO.
            let Ok(read @ 1..) = memory.read_at(&mut piece, at) else {
                break;
            };
            at += read as u64;
            kept.extend_from_slice(&piece[..read]);
            for (name, text) in &spellings {
                for place in positions(&kept, text) {
                    let line: Vec<u8> = kept
                        [place.saturating_sub(60)..(place + 40).min(kept.len())]
                        .iter()
                        .map(|byte| if byte.is_ascii_graphic() { *byte } else { b'.' })
                        .collect();
                    found.push(format!(
                        "{name} in {map}: {}",
                        String::from_utf8(line).unwrap()
                    ));
                }
            }
            kept.drain(..kept.len().saturating_sub(longest - 1));
        }
    }
    Some(found)
}

fn positions(bytes: &[u8], text: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == text[0]) {
        let at = from + at;
        if bytes[at..].starts_with(text) {
            found.push(at);
        }
        from = at + 1;
    }
    found
}

/// Streams, errors and plain answers, warm and anew, and then looks.
async fn use_and_look(process: &Process) {
    let Some(known) = process.copies(process.file.to_str().unwrap()) else {
        eprintln!("skipped: /proc/PID/mem may not be read here (root with CAP_SYS_PTRACE may)");
        return;
    };
    assert!(!known.is_empty(), "the agent's memory can be read");
    let own = scan(std::process::id(), KEY, Arena::Scanned).expect("one's own memory");
    assert!(
        own.iter().any(|found| found.starts_with("raw")),
        "the scan finds the key where it is known to be"
    );
    let mut app = process.app().await;
    for n in 0..REQUESTS {
        // A request of another length each time: a copy in a buffer's tail shows.
        let path = ["models", "chat/completions", "responses"][n % 3];
        let fill = "x".repeat(n * 7 % 300);
        app.send(format!(
            "POST /openai/v1/{path} HTTP/1.1\r\nHost: localhost\r\nX-Fill: {fill}\r\nContent-Length: 4\r\n\r\n{{  }}"
        ))
        .await;
        let wanted = if path == "models" { 403 } else { 200 };
        let (head, _) = patient(app.response()).await;
        assert_eq!(status(&head), wanted, "{head}");
        if wanted == 403 {
            // Refusals end the connection.
            app = process.app().await;
        } else {
            patient(app.until(b"0\r\n\r\n")).await.unwrap();
        }
    }
    let copies = process.copies(KEY).unwrap();
    assert!(
        copies.is_empty(),
        "{} copies:\n{}",
        copies.len(),
        copies.join("\n")
    );
}

async fn upstream(dir: &TempDir) -> Upstream {
    Upstream::answering(
        dir.path(),
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_from_a_file_is_in_the_arena_alone() {
    let dir = TempDir::new().unwrap();
    let upstream = upstream(&dir).await;
    let process = Process::start(&dir, &support::config(&dir, &upstream));
    use_and_look(&process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_from_the_store_is_in_the_arena_alone() {
    for lease in ["ttl = \"60s\"", "ttl = \"0s\""] {
        let dir = TempDir::new().unwrap();
        let upstream = upstream(&dir).await;
        let office = Arc::new(Office::new());
        let (text, socket) = daemon::config(dir.path(), &office, &upstream, lease);
        let origin = format!("https://localhost:{}", upstream.port);
        let script = Script {
            revision: 5,
            keys: [(
                "openai-prod".to_owned(),
                (office.seal("openai-prod", 1, &origin, KEY), 1),
            )]
            .into(),
            ..Script::default()
        };
        let daemon = Daemon::start(&socket, &office, script);
        let process = Process::start(&dir, &text);
        daemon.until(|script| !script.acks.is_empty()).await;
        use_and_look(&process).await;
    }
}
