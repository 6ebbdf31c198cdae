//! The walls between the rooms, held against `cargo metadata`: who may depend on whom.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Package → the rooms it may use. A room that is missing here fails the test, so a new one has to
/// say where it stands. The arrows are those of the design; what is absent is what matters: the agent
/// and the command never reach a token, the pure rooms know nothing of each other.
const ARROWS: [(&str, &[&str]); 14] = [
    ("secret", &[]),
    ("lifecycle", &[]),
    ("providers", &[]),
    ("proto", &[]),
    ("custody", &["secret"]),
    ("confine", &["secret"]),
    ("attest", &["custody"]),
    ("hsm", &["attest", "secret", "custody", "confine"]),
    (
        "hsmd",
        &[
            "attest",
            "hsm",
            "confine",
            "custody",
            "secret",
            "proto",
            "lifecycle",
            "tlog",
            "providers",
        ],
    ),
    (
        "agent",
        &[
            "confine",
            "custody",
            "secret",
            "proto",
            "lifecycle",
            "providers",
        ],
    ),
    ("cli", &["custody", "secret", "proto", "tlog", "providers"]),
    ("softhsm", &["hsm", "secret"]),
    // The fault shim is loaded by token processes in tests; it must drag nothing of ours in with it.
    ("tacit-shim", &[]),
    (
        "tests",
        &[
            "attest",
            "secret",
            "confine",
            "lifecycle",
            "providers",
            "proto",
            "custody",
            "hsm",
            "hsmd",
            "agent",
            "cli",
            "softhsm",
            "tlog",
        ],
    ),
];

/// Third-party crates that only one room may name, with the reason.
const RESERVED: [(&str, &[&str], &str); 7] = [
    ("cryptoki", &["hsm"], "PKCS#11 stays behind one trait"),
    (
        "landlock",
        &["confine"],
        "what a process gives up is decided in one room",
    ),
    (
        "seccompiler",
        &["confine"],
        "what a process gives up is decided in one room",
    ),
    (
        "caps",
        &["confine"],
        "what a process gives up is decided in one room",
    ),
    ("rusqlite", &["hsmd"], "one durable truth, one writer"),
    (
        "jsonwebtoken",
        &["attest"],
        "tokens are judged in one place, by one set of rules",
    ),
    (
        "rcgen",
        &["tests", "agent"],
        "certificates are made up in tests only",
    ),
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap()
}

/// Package → what it depends on outside its own tests. A development dependency builds nothing that
/// ships, so it is free, but only of the roof may nobody depend on at all.
fn dependencies(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let shipped = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development);
            (
                package.name.to_string(),
                shipped.map(|dependency| dependency.name.clone()).collect(),
            )
        })
        .collect()
}

/// What is wrong with these dependencies.
fn breaches(dependencies: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut breaches = Vec::new();
    for (room, uses) in dependencies {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == room) else {
            breaches.push(format!("{room} has no place in the map"));
            continue;
        };
        let internal = uses.iter().filter(|name| dependencies.contains_key(*name));
        for other in internal.filter(|name| !allowed.contains(&name.as_str())) {
            breaches.push(format!("{room} must not depend on {other}"));
        }
        for (reserved, rooms, reason) in RESERVED {
            if uses.contains(reserved) && !rooms.contains(&room.as_str()) {
                breaches.push(format!("{room} must not depend on {reserved}: {reason}"));
            }
        }
    }
    breaches
}

#[test]
fn the_arrows_hold() {
    let metadata = metadata();
    assert_eq!(breaches(&dependencies(&metadata)), Vec::<String>::new());
    for package in metadata.workspace_packages() {
        let uses_roof = package
            .dependencies
            .iter()
            .any(|dependency| dependency.name == "tests");
        assert!(!uses_roof, "{} depends on tests", package.name);
    }
}

#[test]
fn a_wrong_arrow_would_be_found() {
    let good = dependencies(&metadata());
    for (room, intruder) in [
        ("agent", "hsm"),
        ("agent", "hsmd"),
        ("cli", "hsm"),
        ("cli", "agent"),
        ("secret", "custody"),
        ("hsmd", "agent"),
    ] {
        let mut bad = good.clone();
        bad.get_mut(room).unwrap().insert(intruder.to_owned());
        assert_eq!(
            breaches(&bad),
            [format!("{room} must not depend on {intruder}")]
        );
    }
    for (room, intruder) in [("hsmd", "cryptoki"), ("agent", "rusqlite")] {
        let mut bad = good.clone();
        bad.get_mut(room).unwrap().insert(intruder.to_owned());
        assert_eq!(breaches(&bad).len(), 1, "{room} with {intruder}");
    }
    let mut bad = good;
    bad.insert("attic".to_owned(), BTreeSet::new());
    assert_eq!(breaches(&bad), ["attic has no place in the map"]);
}
