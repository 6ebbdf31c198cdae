//! `tacit-token`: one custodian, one PKCS#11 module, one protocol.
//!
//! Started by `hsmd` with its end of a socket pair as standard input (`--fd 0`), or as a service of its own under its own
//! user (`--listen PATH`). It reads the PIN file itself, leaves no core, and ends at EOF. Exit codes: see `hsm::exit`.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use attest::gate::Gate;
use hsm::exit;
use hsm::kernel::{Journal, Kernel, Settings};
use hsm::listen::{self, ListenError};
use hsm::pin::PinFile;
use hsm::pkcs11::{Token, TokenSettings};
use hsm::process::{Ended, Watchdog, serve_listener, serve_stream};

const USAGE: &str = "tacit-token --id ID --module FILE (--token-label LABEL | --serial SERIAL)... --pin-file FILE --state-dir DIR \
                     [--attest FILE] [--call-timeout-ms MS] [--profile ecdh-kw|rsa-oaep] [--init-args TEXT] [--fips true|false] \
                     [--allow-write PATH]... [--allow-connect PORT]... [--hardening-off MEASURE]... [--hardening-require MEASURE]... \
                     (--fd 0 | --listen PATH [--allow-uid UID]...)";

/// Sessions, twice over.
const FILES_WANTED: u64 = 2048;

/// What the command line says.
#[derive(Default)]
struct Arguments {
    id: Option<String>,
    module: Option<PathBuf>,
    label: Option<String>,
    serial: Option<String>,
    pin_file: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    attest: Option<PathBuf>,
    call_timeout_ms: Option<u64>,
    profile: Option<String>,
    init_args: Option<CString>,
    fips: bool,
    fd: bool,
    listen: Option<PathBuf>,
    allow_uids: Vec<u32>,
    hardening_off: Vec<String>,
    hardening_require: Vec<String>,
    hardening: confine::Settings,
}

/// Where it serves.
enum Door {
    Stream(UnixStream),
    Listener(UnixListener, Vec<u32>),
}

struct Failure(i32, String);

fn usage(text: impl Into<String>) -> Failure {
    Failure(exit::USAGE, text.into())
}

fn system(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure(exit::SYSTEM, format!("{what}: {error}"))
}

fn main() -> ExitCode {
    let code = match run() {
        Ok(Ended::InOrder) => exit::OK,
        Ok(Ended::TokenFailed) => exit::SELF_TEST,
        Err(Failure(code, text)) => {
            let _ = writeln!(std::io::stderr(), "tacit-token: {text}");
            code
        }
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn run() -> Result<Ended, Failure> {
    secret::process::forbid_dumps().map_err(|error| system("cannot protect the process", error))?;
    let arguments = parse(std::env::args().skip(1))?;
    let settings = Settings {
        custodian: required(arguments.id, "--id")?
            .parse()
            .map_err(|error| usage(format!("--id: {error}")))?,
        profile: arguments.profile,
        fips: arguments.fips,
    };
    if settings
        .profile
        .as_deref()
        .is_some_and(|profile| !matches!(profile, "ecdh-kw" | "rsa-oaep"))
    {
        return Err(usage("--profile is ecdh-kw or rsa-oaep"));
    }
    if arguments.label.is_none() && arguments.serial.is_none() {
        return Err(usage(
            "--token-label or --serial is needed: tokens are never found by slot number",
        ));
    }
    let state_dir = required(arguments.state_dir, "--state-dir")?;
    own_directory(&state_dir)?;
    let timeout =
        Duration::from_millis(arguments.call_timeout_ms.unwrap_or(5000).clamp(20, 600_000));
    // Where NSS keeps its database, for one.
    let module_text = arguments
        .init_args
        .as_ref()
        .map(|text| text.to_string_lossy().into_owned());
    let token = Token::new(TokenSettings {
        module: required(arguments.module, "--module")?,
        init_args: arguments.init_args,
        fips: arguments.fips,
        label: arguments.label,
        serial: arguments.serial,
        pin: PinFile::new(&required(arguments.pin_file, "--pin-file")?, &state_dir),
    });
    let journal = Journal::open(&state_dir)
        .map_err(|error| system(&format!("cannot use {}", state_dir.display()), error))?;
    // The socket's directory must be there already, as the door asks; its file comes after.
    let mut plan = hsm::confinement::own_plan(&state_dir, arguments.listen.as_deref());
    if let Some(text) = &module_text {
        plan.write.extend(confine::paths_in(text));
    }
    confine(plan, &arguments.hardening)?;
    let door = door(arguments.fd, arguments.listen, arguments.allow_uids)?;
    let watchdog =
        Watchdog::start(timeout).map_err(|error| system("cannot start the watchdog", error))?;
    let mut kernel = Kernel::new(token, settings, journal);
    if let Some(file) = arguments.attest {
        let gate = Gate::read(&file).map_err(|error| usage(format!("--attest: {error}")))?;
        room_for_callers().map_err(|error| system("cannot raise the limit on files", error))?;
        kernel = kernel.guarded_by(gate);
    }
    match door {
        Door::Stream(stream) => serve_stream(stream, &mut kernel, &watchdog),
        Door::Listener(listener, uids) => serve_listener(&listener, &uids, &mut kernel, &watchdog),
    }
    .map_err(|error| system("cannot serve", error))
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, Failure> {
    let mut parsed = Arguments::default();
    while let Some(name) = words.next() {
        if matches!(name.as_str(), "--help" | "-h") {
            return Err(usage(USAGE));
        }
        let value = words
            .next()
            .ok_or_else(|| usage(format!("{name} needs a value\n{USAGE}")))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| usage(format!("{name} needs a number")))
        };
        match name.as_str() {
            "--id" => parsed.id = Some(value),
            "--module" => parsed.module = Some(value.into()),
            "--token-label" => parsed.label = Some(value),
            "--serial" => parsed.serial = Some(value),
            "--pin-file" => parsed.pin_file = Some(value.into()),
            "--state-dir" => parsed.state_dir = Some(value.into()),
            "--attest" => parsed.attest = Some(value.into()),
            "--call-timeout-ms" => parsed.call_timeout_ms = Some(number()?),
            "--profile" => parsed.profile = Some(value),
            "--fips" => {
                parsed.fips = value
                    .parse()
                    .map_err(|_| usage("--fips is true or false"))?;
            }
            "--init-args" => {
                let text = CString::new(value)
                    .map_err(|_| usage("--init-args is a text without NUL bytes"))?;
                parsed.init_args = Some(text);
            }
            "--fd" if value == "0" => parsed.fd = true,
            "--fd" => return Err(usage("--fd is 0: the socket is standard input")),
            "--listen" => parsed.listen = Some(value.into()),
            "--allow-uid" => {
                parsed
                    .allow_uids
                    .push(u32::try_from(number()?).map_err(|_| usage("--allow-uid needs a uid"))?);
            }
            "--allow-write" => {
                parsed.hardening.write.insert(value.into());
            }
            "--allow-connect" => {
                let port = u16::try_from(number()?);
                let port = port.map_err(|_| usage("--allow-connect needs a TCP port"))?;
                parsed.hardening.connect.insert(port);
            }
            "--hardening-off" => parsed.hardening_off.push(value),
            "--hardening-require" => parsed.hardening_require.push(value),
            _ => return Err(usage(format!("unknown argument {name}\n{USAGE}"))),
        }
    }
    hardening(&mut parsed)?;
    Ok(parsed)
}

fn hardening(parsed: &mut Arguments) -> Result<(), Failure> {
    let settings = &mut parsed.hardening;
    settings
        .off(parsed.hardening_off.iter().map(String::as_str))
        .map_err(|rule| usage(format!("--hardening-off {rule}")))?;
    settings
        .require(parsed.hardening_require.iter().map(String::as_str))
        .map_err(|rule| usage(format!("--hardening-require {rule}")))?;
    match settings.contradiction() {
        Some(rule) => Err(usage(format!("hardening: {rule}"))),
        None => Ok(()),
    }
}

/// Gives up everything else, before a second thread and before the module is loaded. The journal has what holds.
fn confine(mut plan: confine::Plan, settings: &confine::Settings) -> Result<(), Failure> {
    plan.add(settings);
    let confined = plan
        .apply(settings)
        .map_err(|error| system("cannot confine the process", error))?;
    for finding in &confined.report.findings {
        let _ = writeln!(std::io::stderr(), "tacit-token: hardening {finding}");
    }
    Ok(())
}

/// With a gate each session holds a descriptor of its caller's process: there must be room for as many as there may be sessions.
fn room_for_callers() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < FILES_WANTED {
        setrlimit(Resource::RLIMIT_NOFILE, FILES_WANTED.min(hard), hard)?;
    }
    Ok(())
}

fn required<T>(value: Option<T>, name: &str) -> Result<T, Failure> {
    value.ok_or_else(|| usage(format!("{name} is needed\n{USAGE}")))
}

/// The state directory: ours, and nobody else may write there, since the latch and the journal are believed.
fn own_directory(path: &Path) -> Result<(), Failure> {
    let refused = |error| {
        system(
            &format!("cannot use the state directory {}", path.display()),
            error,
        )
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(refused)?;
    let metadata = fs::metadata(path).map_err(refused)?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        let text = format!(
            "the state directory {} must belong to this user and be writable by nobody else",
            path.display()
        );
        return Err(Failure(exit::SYSTEM, text));
    }
    Ok(())
}

fn door(fd: bool, listen: Option<PathBuf>, mut uids: Vec<u32>) -> Result<Door, Failure> {
    match (fd, listen) {
        (true, None) => {
            let stdin = std::io::stdin();
            let owned = stdin
                .as_fd()
                .try_clone_to_owned()
                .map_err(|error| system("cannot take standard input", error))?;
            let stream = UnixStream::from(owned);
            stream.local_addr().map_err(|_| {
                usage("standard input is no Unix socket: hsmd starts this program, or use --listen")
            })?;
            Ok(Door::Stream(stream))
        }
        (false, Some(path)) => {
            if uids.is_empty() {
                uids.push(nix::unistd::geteuid().as_raw());
            }
            let listener = listen::bind(&path).map_err(|error| match error {
                ListenError::Io { .. } => Failure(exit::SYSTEM, error.to_string()),
                _ => usage(error.to_string()),
            })?;
            Ok(Door::Listener(listener, uids))
        }
        _ => Err(usage(format!(
            "either --fd 0 or --listen is needed\n{USAGE}"
        ))),
    }
}
