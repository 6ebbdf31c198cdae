//! What the processes give up, seen from outside: as the kernel tells it, on older kernels, and when a file is read again.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use tests::fixture;
use tests::http;
use tests::process::{Process, bin, eventually, send};
use tests::stack::{LoneAgent, Route, Stack};
use tests::upstream::{Provider, Upstream};

/// A field of `/proc/PID/status`.
fn status(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(field));
    line.unwrap_or_default().trim().to_owned()
}

/// Whether this kernel confines files: the rest of a test says what it could not check.
fn has_landlock(findings: &str) -> bool {
    let there = !findings.contains("landlock: unsupported");
    if !there {
        eprintln!("NOT CHECKED: this kernel has no Landlock, or it is not in lsm=");
    }
    there
}

#[test]
fn every_process_of_a_stack_has_given_up_what_the_kernel_can_take() -> anyhow::Result<()> {
    let stack = Stack::plain()?;
    stack.agent_ready()?;
    let mut pids = vec![stack.pid("hsmd")?, stack.pid("tacit-agent")?];
    pids.extend(stack.pids("tacit-token"));
    ensure!(pids.len() == 5, "{pids:?}");
    for pid in pids {
        let name = status(pid, "Name:");
        for sets in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(status(pid, sets), "0000000000000000", "{name} {sets}");
        }
        if nix::unistd::geteuid().is_root() {
            assert_eq!(status(pid, "CapBnd:"), "0000000000000000", "{name}");
        }
        assert_eq!(status(pid, "NoNewPrivs:"), "1", "{name}");
        assert_eq!(status(pid, "Seccomp:"), "2", "{name}");
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let core = limits.lines().find(|line| line.contains("core file"));
        let core: Vec<&str> = core.unwrap_or("").split_whitespace().collect();
        assert_eq!(
            core,
            ["Max", "core", "file", "size", "0", "0", "bytes"],
            "{name}"
        );
    }
    for page in ["agent_admin", "hsmd_admin"] {
        let page = http::get(&format!("{}/metrics", stack.field(page)?))?.text();
        for measure in ["dumps", "no_new_privs", "capabilities", "seccomp"] {
            let line = format!("tacit_process_hardening{{measure=\"{measure}\"}} 1");
            ensure!(page.contains(&line), "{line} in {page}");
        }
    }
    let doctor = stack.tacit(&["doctor"], b"")?;
    let doctor = String::from_utf8(doctor.stdout)?;
    ensure!(doctor.contains("processes: 5 of ours run here"), "{doctor}");
    Ok(())
}

#[test]
fn a_confined_process_does_what_its_plan_says_and_nothing_else() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for name in ["read", "write"] {
        std::fs::create_dir(dir.path().join(name))?;
        std::fs::write(dir.path().join(name).join("file"), "one")?;
    }
    std::fs::write(dir.path().join("secret"), "x")?;
    let (open, shut) = (
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    );
    let output = Command::new(bin("confined")?)
        .arg("try")
        .arg(dir.path())
        .args([&open, &shut].map(|one| one.local_addr().unwrap().port().to_string()))
        .output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answer = |what: &str| {
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{what}: ")));
        line.unwrap_or("not tried").to_owned()
    };
    for allowed in [
        "read allowed",
        "read replaced",
        "write allowed",
        "connect allowed",
        "bind allowed",
        "start a thread",
    ] {
        assert_eq!(answer(allowed), "ok", "{allowed}: {said}");
    }
    for (denied, errors) in [
        ("packet socket", &["EPERM"][..]),
        ("allow dumps again", &["EPERM"]),
        ("start a program", &["EPERM", "EACCES"]),
    ] {
        let answer = answer(denied);
        assert!(
            errors.iter().any(|one| answer.starts_with(one)),
            "{denied}: {said}"
        );
    }
    if has_landlock(&said) {
        for denied in ["read forbidden", "list forbidden", "write forbidden"] {
            assert!(answer(denied).starts_with("EACCES"), "{denied}: {said}");
        }
        if !said.contains("landlock_ports: unsupported") {
            for denied in ["connect forbidden", "bind forbidden"] {
                assert!(answer(denied).starts_with("EACCES"), "{denied}: {said}");
            }
        }
    }
    Ok(())
}

/// An agent that answers by itself, with more in its file, below `dir`.
fn mock_config(dir: &Path, more: &str) -> PathBuf {
    let file = dir.join("agent.toml");
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{more}\n[providers.openai]\nmode = \"mock\"\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// A program under `sh` with a limit, or on an older kernel, as the same process.
fn under(
    prefix: &[&str],
    program: &str,
    arguments: &[&Path],
    dir: &Path,
) -> anyhow::Result<Process> {
    let mut command = Command::new(prefix[0]);
    command
        .args(&prefix[1..])
        .arg(bin(program)?)
        .args(arguments);
    command.current_dir(dir);
    Process::start(program, command, dir)
}

fn agent_under(prefix: &[&str], more: &str, dir: &Path) -> anyhow::Result<Process> {
    let (config, announce) = (mock_config(dir, more), dir.join("agent.json"));
    let arguments = [
        "--config".as_ref(),
        &*config,
        "--announce".as_ref(),
        &announce,
    ];
    under(prefix, "tacit-agent", &arguments, dir)
}

/// Waits for a line in its log.
fn says(process: &mut Process, text: &str) -> anyhow::Result<()> {
    eventually(&format!("it says {text:?}"), || {
        process.output().1.contains(text).then_some(())
    })
    .with_context(|| process.output().1)
}

#[test]
fn an_older_kernel_is_told_and_does_where_nothing_more_is_required() -> anyhow::Result<()> {
    let old = bin("confined")?;
    let old = [old.to_str().unwrap(), "old-kernel"];
    let dir = tempfile::tempdir()?;
    let mut agent = agent_under(&old, "", dir.path())?;
    says(&mut agent, "serving")?;
    let log = agent.output().1;
    for line in [
        "measure=\"landlock\" state=unsupported by this kernel",
        "measure=\"landlock_ports\" state=unsupported by this kernel",
        "measure=\"seccomp\" state=on",
        "tier=\"locked\"",
    ] {
        ensure!(log.contains(line), "{line} in {log}");
    }
    // Written after it says that it serves.
    let announced = dir.path().join("agent.json");
    let announced = eventually("it announces", || std::fs::read(&announced).ok())?;
    let addresses: serde_json::Value = serde_json::from_slice(&announced)?;
    let admin = addresses["admin_listen"].as_str().context("announced")?;
    let page = http::get(&format!("http://{admin}/metrics"))?.text();
    ensure!(
        page.contains("tacit_process_hardening{measure=\"landlock\"} 0"),
        "{page}"
    );
    ensure!(
        page.contains("tacit_agent_key_memory_tier{tier=\"locked\"} 1"),
        "{page}"
    );
    ensure!(agent.terminate()?.success());

    for (more, named) in [
        (
            "[hardening]\nrequire = true",
            "landlock: unsupported by this kernel",
        ),
        (
            "[hardening]\nrequire = [\"landlock\"]",
            "landlock: unsupported by this kernel",
        ),
        ("[memory]\nrequire = \"memfd_secret\"", "CONFIG_SECRETMEM"),
    ] {
        let dir = tempfile::tempdir()?;
        let mut agent = agent_under(&old, more, dir.path())?;
        let code = agent.exit()?.code();
        ensure!(code == Some(78), "{more}: {code:?} {}", agent.output().1);
        ensure!(agent.output().1.contains(named), "{}", agent.output().1);
    }
    // What holds there is enough where it is all that is required.
    let dir = tempfile::tempdir()?;
    let more =
        "[hardening]\nrequire = [\"seccomp\", \"capabilities\"]\n[memory]\nrequire = \"locked\"";
    let mut agent = agent_under(&old, more, dir.path())?;
    says(&mut agent, "serving")
}

#[test]
fn memory_that_may_not_be_locked_is_an_error_that_names_the_limit() -> anyhow::Result<()> {
    let limited = |kib: &str| format!("ulimit -l {kib} && exec \"$0\" \"$@\"");
    // Also for root: the capability that stands above the limit is gone by then.
    let dir = tempfile::tempdir()?;
    let mut agent = agent_under(&["sh", "-c", &limited("16")], "", dir.path())?;
    ensure!(agent.exit()?.code() == Some(1), "{}", agent.output().1);
    let said = agent.output().1;
    ensure!(
        said.contains("RLIMIT_MEMLOCK") && said.contains("LimitMEMLOCK"),
        "{said}"
    );
    let dir = tempfile::tempdir()?;
    let mut agent = agent_under(&["sh", "-c", &limited("64")], "", dir.path())?;
    says(&mut agent, "bytes=32768")?;
    says(&mut agent, "serving")
}

#[test]
fn a_measure_is_off_where_the_file_says_so() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let more = "[hardening]\noff = [\"landlock\", \"seccomp\"]";
    let mut agent = agent_under(&["env"], more, dir.path())?;
    says(&mut agent, "serving")?;
    let log = agent.output().1;
    ensure!(
        log.contains("measure=\"seccomp\" state=off by configuration"),
        "{log}"
    );
    ensure!(
        log.contains("measure=\"landlock\" state=off by configuration"),
        "{log}"
    );
    assert_eq!(status(agent.pid(), "Seccomp:"), "0");
    assert_eq!(status(agent.pid(), "CapEff:"), "0000000000000000");
    Ok(())
}

/// Reads the file again and waits for what the agent says to it.
fn reload(agent: &mut LoneAgent, says_next: &str) -> anyhow::Result<()> {
    let before = agent.process.output().1.matches(says_next).count();
    agent.process.signal(Signal::SIGHUP)?;
    eventually(&format!("the agent says {says_next:?}"), || {
        (agent.process.output().1.matches(says_next).count() > before).then_some(())
    })
    .with_context(|| agent.process.output().1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_finds_replaced_files_and_is_refused_what_was_given_up() -> anyhow::Result<()> {
    const IN_FORCE: &str = "configuration read again and in force";
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(fixture::provider()).await?;
    let certificates = dir.path().join("certificates");
    std::fs::create_dir(&certificates)?;
    let ca = certificates.join("ca.pem");
    upstream.write_ca(&ca)?;
    let key = fixture::key_file(&certificates, Provider::OpenAi)?;
    let routes = [Route::file("openai", &key)];
    let mut agent = LoneAgent::start(dir.path(), &routes, &upstream.url(), &ca)?;
    let log = agent.process.output().1;
    if log.contains("measure=\"landlock\" state=unsupported") {
        eprintln!("NOT CHECKED: this kernel has no Landlock, or it is not in lsm=");
        return Ok(());
    }
    let served = || {
        let body = serde_json::json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "one"}]});
        http::post(
            &format!("{}/openai/v1/chat/completions", agent.url),
            "",
            &body,
        )
    };
    ensure!(served()?.status == 200);
    // Replaced by a rename, as certificates and ConfigMaps are, and a new file beside it.
    let (new, second) = (
        certificates.join("ca.pem.new"),
        certificates.join("second.pem"),
    );
    upstream.write_ca(&new)?;
    std::fs::rename(&new, &ca)?;
    upstream.write_ca(&second)?;
    let config = dir.path().join("agent.toml");
    let first = std::fs::read_to_string(&config)?;
    let edited = first.replace("ca.pem", "second.pem");
    ensure!(edited != first);
    std::fs::write(&config, &edited)?;
    let url = agent.url.clone();
    reload(&mut agent, IN_FORCE)?;
    // A file elsewhere, and a port that was given up: told by name, and all stays as it was.
    let elsewhere = tempfile::tempdir()?;
    let far = elsewhere.path().join("ca.pem");
    upstream.write_ca(&far)?;
    for (text, named) in [
        (
            first.replace(ca.to_str().unwrap(), far.to_str().unwrap()),
            format!("reading {}", elsewhere.path().display()),
        ),
        (
            first.replace(&upstream.url(), "https://localhost:9"),
            "port 9".to_owned(),
        ),
    ] {
        ensure!(text != first);
        std::fs::write(&config, text)?;
        reload(&mut agent, &named)?;
        let log = agent.process.output().1;
        ensure!(log.contains("the configuration in force stays"), "{log}");
    }
    std::fs::write(&config, &edited)?;
    reload(&mut agent, IN_FORCE)?;
    let body = serde_json::json!({"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "two"}]});
    ensure!(http::post(&format!("{url}/openai/v1/chat/completions"), "", &body)?.status == 200);
    Ok(())
}

/// Files below a directory whose names begin like a core's.
fn cores(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let is_core = |name: &str| name.starts_with("core");
    entries
        .filter(|entry| is_core(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect()
}

#[test]
fn an_aborted_process_of_ours_leaves_no_core() -> anyhow::Result<()> {
    // As generous as a system can be; what the process itself does must be enough.
    const GENEROUS: [&str; 3] = ["sh", "-c", "ulimit -c unlimited && exec \"$0\" \"$@\""];
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("planted"), "x")?;
    let mut control = under(&GENEROUS, "plant", &["planted".as_ref()], dir.path())?;
    control.stdout_line("ready")?;
    send(control.pid(), Signal::SIGABRT)?;
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    if !control.exit()?.core_dumped() {
        eprintln!(
            "NOT CHECKED: no process leaves a core here (core_pattern {})",
            pattern.trim()
        );
        return Ok(());
    }

    let dir = tempfile::tempdir()?;
    let hsmd = dir.path().join("hsmd.toml");
    let mut text = format!(
        "state_dir = \"{0}\"\nworkload_socket = \"{0}/hsmd.sock\"\nadmin_socket = \"{0}/admin.sock\"\n\
         admin_listen = \"127.0.0.1:0\"\nthreshold = 2\n",
        dir.path().display()
    );
    for id in ["a", "b"] {
        writeln!(
            text,
            "[[custodian]]\nid = \"{id}\"\nmodule = \"/none.so\"\ntoken_label = \"none\"\npin_file = \"/none\"\n\
             token_socket = \"{}/{id}.sock\"",
            dir.path().display()
        )?;
    }
    std::fs::write(&hsmd, text)?;
    std::fs::write(dir.path().join("custodians.json"), "{}")?;
    let (state, socket) = (dir.path().join("state"), dir.path().join("token.sock"));
    let token: Vec<&Path> = ["--id", "a", "--token-label", "none", "--module", "/none.so"]
        .iter()
        .map(Path::new)
        .chain(["--pin-file", "/none", "--state-dir"].iter().map(Path::new))
        .chain([state.as_path(), "--listen".as_ref(), socket.as_path()])
        .collect();
    let processes = [
        (agent_under(&GENEROUS, "", dir.path())?, "serving"),
        (
            under(&GENEROUS, "hsmd", &["--config".as_ref(), &hsmd], dir.path())?,
            "bound",
        ),
        (
            under(&GENEROUS, "tacit-token", &token, dir.path())?,
            "hardening seccomp",
        ),
    ];
    for (mut process, ready) in processes {
        says(&mut process, ready)?;
        process.signal(Signal::SIGABRT)?;
        let status = process.exit()?;
        assert_eq!(
            status.signal(),
            Some(libc_abort()),
            "{}",
            process.output().1
        );
        ensure!(
            !status.core_dumped(),
            "a core was written: {}",
            process.output().1
        );
    }
    ensure!(cores(dir.path()).is_empty(), "{:?}", cores(dir.path()));
    Ok(())
}

fn libc_abort() -> i32 {
    Signal::SIGABRT as i32
}
