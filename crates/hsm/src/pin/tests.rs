//! The PIN file's rules, the latch, and attempts that nobody answered.
#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use std::os::unix::fs::PermissionsExt;

fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PinFile, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pin");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let pin = PinFile::new(&path, directory.path());
    (directory, pin, path)
}

#[test]
fn a_private_file_passes_and_its_neighbours_are_refused_by_rule() {
    let (_directory, pin, _) = file(b"1234\n", 0o600);
    assert_eq!(pin.read().unwrap().value.len(), 4);
    for (content, mode) in [
        (&b"1234"[..], 0o604),
        (b"1234", 0o660),
        (b"", 0o600),
        (b"\n", 0o600),
        (&[b'1'; 256], 0o600),
    ] {
        let (_directory, pin, path) = file(content, mode);
        let error = pin.read().unwrap_err();
        assert_eq!(error.class, ErrorClass::PinFile);
        assert!(error.text.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_refused_pin_is_not_read_again_until_the_file_changes_or_the_latch_goes() {
    let (_directory, pin, path) = file(b"1234", 0o600);
    pin.latch(&pin.read().unwrap(), "CKR_PIN_INCORRECT")
        .unwrap();
    let error = pin.read().unwrap_err();
    assert_eq!(error.class, ErrorClass::PinLatched);
    assert!(
        error.text.contains("CKR_PIN_INCORRECT") && error.text.contains("unlatch"),
        "{error}"
    );
    pin.unlatch().unwrap();
    assert!(pin.read().is_ok());
    pin.latch(&pin.read().unwrap(), "CKR_PIN_LOCKED").unwrap();
    fs::write(&path, b"56789").unwrap();
    assert!(
        pin.read().is_ok(),
        "another file content is another attempt"
    );
}

#[test]
fn unanswered_attempts_are_bounded_until_the_pin_was_accepted_once() {
    let (_directory, pin, path) = file(b"1234", 0o600);
    let attempt = || {
        let read = pin.read()?;
        pin.trying(&read).map(|()| read)
    };
    for _ in 0..UNANSWERED_MAX {
        attempt().unwrap();
    }
    let error = attempt().unwrap_err();
    assert_eq!(error.class, ErrorClass::PinLatched);
    assert!(error.text.contains("unlatch"), "{error}");
    // Another file, an answer of any kind, and `unlatch` each begin anew.
    fs::write(&path, b"56789").unwrap();
    attempt().unwrap();
    attempt().unwrap();
    assert!(attempt().is_err());
    pin.unlatch().unwrap();
    for _ in 0..UNANSWERED_MAX * 2 {
        attempt().unwrap();
        pin.answered();
    }
    pin.accepted(&attempt().unwrap());
    for _ in 0..UNANSWERED_MAX * 2 {
        attempt().unwrap();
    }
    // A refusal takes that back.
    pin.latch(&attempt().unwrap(), "CKR_PIN_INCORRECT").unwrap();
    assert!(attempt().is_err());
    pin.unlatch().unwrap();
    for _ in 0..UNANSWERED_MAX {
        attempt().unwrap();
    }
    assert!(attempt().is_err());
}

#[test]
fn an_attempt_that_cannot_be_written_down_is_not_made() {
    let (directory, pin, _) = file(b"1234", 0o600);
    let read = pin.read().unwrap();
    fs::create_dir(directory.path().join(format!("{TRYING}.new"))).unwrap();
    assert_eq!(pin.trying(&read).unwrap_err().class, ErrorClass::PinFile);
}
