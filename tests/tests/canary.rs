//! The hunt for secrets: first that it finds what is there, then that nothing is there.

#![allow(clippy::unwrap_used)]

use tests::canary::Canary;

const KEY: &[u8] = b"sk-proj-Qm7vT2xK9bLw4Rz8NcYd1HfJT3BlbkFJu5Ge0PaSi6Vo3XtBqMnWy2Lk8D";

#[test]
fn the_hunt_finds_planted_copies_in_files_and_in_memory() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let dek: Vec<u8> = (0..32u8)
        .map(|step| step.wrapping_mul(73).wrapping_add(41))
        .collect();
    let canary = Canary::armed(dir.path(), &[("provider key", KEY), ("DEK", &dek)])?;
    // Below a directory, in a name too, and nowhere when it is gone.
    let deep = dir.path().join("state/log");
    std::fs::create_dir_all(&deep)?;
    std::fs::write(
        deep.join("trace.log"),
        [b"x-api-key: ".as_slice(), KEY].concat(),
    )?;
    assert!(!canary.tree(dir.path())?.hits.is_empty());
    assert!(
        canary
            .tree(dir.path())?
            .clean("a tree with a copy")
            .is_err()
    );
    std::fs::remove_file(deep.join("trace.log"))?;
    std::fs::write(deep.join(std::str::from_utf8(KEY)?), "x")?;
    assert!(
        !canary.tree(dir.path())?.hits.is_empty(),
        "a file name is a place too"
    );
    std::fs::remove_file(deep.join(std::str::from_utf8(KEY)?))?;
    std::fs::write(deep.join("trace.log"), "x-api-key: [secret, 66 bytes]")?;
    canary.tree(dir.path())?.clean("a tree without")?;
    assert!(canary.tree(&dir.path().join("state/log")).is_ok());
    Ok(())
}
