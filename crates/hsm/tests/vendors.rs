//! Modules of other vendors, as far as they run here: which are refused, and that the refusal says what is missing.
//!
//! What a module needs beside itself (a daemon, a TPM) is made for each test, in directories of its own. Where it cannot be
//! made the test says so, loudly, and passes: it proves nothing then, and the page in docs/hsm says what was proved where.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use custody::{Kdf, Profile};
use hsm::error::{ErrorClass, HsmError};
use hsm::wire::{Answer, Request};
use hsm::{TokenClient, TokenConfig};
use support::{Process, Service, Subject, TOKEN_PROGRAM, config, nss_config, shim, token};

fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED, nothing proved: {why}");
}

fn first_file(places: &[&str]) -> Option<PathBuf> {
    places.iter().map(PathBuf::from).find(|path| path.is_file())
}

#[test]
fn softhsm_is_refused_by_name_under_fips_and_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let token = token(dir.path());
    let mut strict = config(&token, &dir.path().join("state"));
    strict.fips = true;
    let mut process = Process::on(&strict, &[]);
    let error = process.error(&Request::Init);
    assert_eq!(error.class, ErrorClass::ModuleUnfit, "{error}");
    for part in [
        "CKD_SHA256_KDF in CKM_ECDH1_DERIVE",
        "SHA-256 in CKM_RSA_PKCS_OAEP",
        "CKM_ECDSA_SHA256",
        "docs/hsm",
    ] {
        assert!(error.text.contains(part), "{part} in {error}");
    }
    drop(process);

    // Nothing was left that a custodian without the setting would stumble over.
    let mut lax = Process::start(&token, &dir.path().join("state"), &[]);
    assert_eq!(lax.class(&Request::Describe), ErrorClass::ObjectsMissing);
    let descriptor = lax.init();
    assert_eq!(descriptor.descriptor.profile, Profile::EcdhKw(Kdf::NullCbc));
    drop(lax);

    // And a custodian that was initialised without it is not let in by setting it later.
    let mut process = Process::on(&strict, &[]);
    for request in [
        Request::Init,
        Request::Describe,
        Request::SignStatement { bytes: b"x" },
    ] {
        let error = process.error(&request);
        assert_eq!(error.class, ErrorClass::ModuleUnfit, "{error}");
        assert!(error.text.contains("CKD_NULL"), "{error}");
    }
}

#[test]
fn a_pinned_profile_is_not_approved_by_being_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let softhsm = token(dir.path());
    let mut strict = config(&softhsm, &dir.path().join("state"));
    (strict.fips, strict.profile) = (true, Some("rsa-oaep".into()));
    let error = Process::on(&strict, &[]).error(&Request::Init);
    assert!(
        error.text.contains("SHA-256 in CKM_RSA_PKCS_OAEP") && !error.text.contains("SHA256_KDF"),
        "{error}"
    );

    let nss = softhsm::nss::up(dir.path(), "n").unwrap();
    let mut strict = nss_config(&nss, &dir.path().join("state-n"));
    (strict.fips, strict.profile) = (true, Some("ecdh-kw".into()));
    Process::on(&strict, &[]).init();
}

/// Whoever starts a service gives it its arguments: the daemon finds out, and does not take its word for anything else.
#[tokio::test]
async fn a_service_without_fips_is_refused_by_a_daemon_that_wants_it() {
    let dir = tempfile::tempdir().unwrap();
    let token = token(dir.path());
    for (given, class, part) in [
        ("false", ErrorClass::Down, "--fips true"),
        ("true", ErrorClass::ModuleUnfit, "CKD_SHA256_KDF"),
    ] {
        let socket = dir.path().join(format!("{given}.sock"));
        let mut config = config(&token, &dir.path().join("state"));
        let service = Command::new(TOKEN_PROGRAM)
            .args(["--id", "a", "--token-label", &token.label, "--module"])
            .arg(&token.module)
            .arg("--pin-file")
            .arg(&token.pin_file)
            .arg("--state-dir")
            .arg(&config.state_dir)
            .args(["--fips", given, "--listen"])
            .arg(&socket)
            .env("SOFTHSM2_CONF", &token.conf)
            .spawn()
            .unwrap();
        let _service = Service(service);
        config.token_socket = Some(socket);
        config.fips = true;
        let client = TokenClient::start(config);
        let error = loop {
            // Until the service listens, and while the first greeting is under way, the client says that.
            let error = client.init().await.unwrap_err();
            match error.class {
                ErrorClass::Lost => {}
                ErrorClass::Down if error.text.contains("cannot connect") => {}
                _ => break error,
            }
        };
        assert_eq!(error.class, class, "{error}");
        assert!(error.text.contains(part), "{part} in {error}");
        client.shutdown().await;
    }
}

/// opencryptoki in surroundings of its own; `None` where that cannot be had.
fn opencryptoki(dir: &Path, shimmed: bool) -> Option<HsmError> {
    let Some(module) = first_file(&[
        "/usr/lib/x86_64-linux-gnu/opencryptoki/libopencryptoki.so.0",
        "/usr/lib/aarch64-linux-gnu/opencryptoki/libopencryptoki.so.0",
        "/usr/lib64/opencryptoki/libopencryptoki.so",
    ]) else {
        skipped("opencryptoki is not installed");
        return None;
    };
    let pin = pin_file(dir, "33445566");
    let mut config = TokenConfig::new("o", &module, pin, dir.join("state"));
    config.token_label = Some("tacit-o".into());
    if shimmed {
        let script = dir.join("shim");
        std::fs::write(&script, "set-clock\n").unwrap();
        config.module = shim();
        for (name, path) in [
            ("TACIT_SHIM_MODULE", &module),
            ("TACIT_SHIM_SCRIPT", &script),
        ] {
            config.env.insert(name.into(), path.display().to_string());
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../softhsm/opencryptoki");
    let mut command = Command::new(script);
    command.arg(dir).arg(TOKEN_PROGRAM);
    let mut process = Process::through(command, &config, &[]);
    process.send(&Request::Init);
    match process.receive() {
        Some(Answer::Failed(error)) => Some(error),
        Some(other) => panic!("opencryptoki is taken: {other:?}"),
        None => {
            let code = process.child.wait().unwrap().code();
            assert_eq!(code, Some(3), "the token process ended");
            skipped("opencryptoki cannot be set up here; its script said why");
            None
        }
    }
}

#[test]
fn opencryptoki_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    if let Some(error) = opencryptoki(dir.path(), false) {
        assert_eq!(error.class, ErrorClass::ModuleUnfit, "{error}");
        assert!(error.text.contains("IBM"), "{error}");
    }
}

/// Its clock is the first thing that is wrong with it. With that mended on the way it is refused again: its soft token of
/// release 3.8 makes no EC keys. That a module which ignores CKA_SENSITIVE is refused, `faults.rs` shows.
#[test]
fn opencryptoki_with_its_clock_mended_is_refused_for_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    if let Some(error) = opencryptoki(dir.path(), true) {
        assert_eq!(error.class, ErrorClass::ModuleUnfit, "{error}");
        assert!(error.text.contains("IBM"), "{error}");
        assert!(
            error
                .text
                .contains("C_GenerateKeyPair returned CKR_MECHANISM_INVALID"),
            "{error}"
        );
    }
}

fn pin_file(dir: &Path, pin: &str) -> PathBuf {
    let path = dir.join("pin");
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .unwrap()
        .write_all(pin.as_bytes())
        .unwrap();
    path
}
