//! Pinning: what is new, what changed, and what stays for older keys.

use super::*;

use crate::support::{SoftCustodian, three, trust};

fn signed(custodians: &[SoftCustodian]) -> Vec<SignedDescriptor> {
    custodians.iter().map(|one| one.signed.clone()).collect()
}

#[test]
fn a_file_that_breaks_its_own_rules_is_refused_before_anybody_is_asked() {
    let offered = signed(&three());
    for broken in [1, 17] {
        let error = merge(None, &offered, Some(broken), 2).expect_err("no threshold");
        assert!(format!("{error:#}").contains("its own rules"), "{error:#}");
    }
    // A part's file has its own custodians alone, before all are pinned together.
    let mut one = three();
    one.truncate(1);
    let (part, text) = merge(None, &signed(&one), None, 2).expect("a part's");
    assert_eq!((part.custodians.len(), part.threshold), (1, 2));
    assert!(text.contains("any 2 of 1"), "{text}");
}

#[test]
fn a_sealers_name_is_never_an_option_or_a_directory() {
    for bad in ["-x", "--yes", ".", "..", "", "a/b"] {
        assert!(check_sealer_name(bad).is_err(), "{bad}");
    }
    assert!(check_sealer_name("alice.smith-2").is_ok());
}

#[test]
fn a_first_pin_takes_everything_that_is_presented() {
    let custodians = three();
    let (after, text) = merge(None, &signed(&custodians), None, 2).expect("merged");
    assert_eq!(after, trust(&custodians, &[]));
    let fingerprint = custodians[1].signed.descriptor.fingerprint().to_string();
    assert!(
        text.contains(&fingerprint) && text.contains("any 2 of 3"),
        "{text}"
    );
}

#[test]
fn what_is_pinned_already_changes_nothing() {
    let custodians = three();
    let before = trust(&custodians, &[]);
    let (after, _) = merge(Some(&before), &signed(&custodians), None, 3).expect("merged");
    assert_eq!(after, before); // the daemon's threshold does not move an existing file
}

#[test]
fn a_changed_descriptor_is_shown_field_by_field_and_the_old_one_is_kept() {
    let custodians = three();
    let before = trust(&custodians, &[]);
    let other = SoftCustodian::new("b");
    let (after, text) = merge(Some(&before), &signed(&[other]), None, 2).expect("merged");
    assert!(
        text.contains("b  CHANGED") && text.contains("sign-statement key: pinned"),
        "{text}"
    );
    let old = custodians[1].signed.descriptor.fingerprint();
    assert!(after.any(&old).is_ok());
    assert!(matches!(
        after.current(&old),
        Err(TrustError::Superseded { .. })
    ));
    assert_eq!(after.custodians.len(), 3);
}

#[test]
fn a_saved_file_reads_back_and_a_broken_rule_writes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("deep/custodians.json");
    let custodians = three();
    let good = trust(&custodians, &[]);
    save(&path, &good).expect("saved");
    assert_eq!(load(&path).expect("loads"), good);
    let bad = Trust {
        threshold: 17,
        ..good.clone()
    };
    assert!(save(&path, &bad).is_err());
    assert_eq!(load(&path).expect("loads"), good);
}

#[test]
fn a_link_to_the_trust_file_stays_a_link() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, link) = (dir.path().join("real.json"), dir.path().join("link.json"));
    let custodians = three();
    save(&path, &trust(&custodians, &[])).expect("saved");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    add_sealer(&link, "dev", SealerKey::new([7; 32])).expect("added");
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    assert_eq!(load(&path).expect("loads").sealers.len(), 1);
}

#[test]
fn the_page_names_sealers_fingerprints_and_differences() {
    let custodians = three();
    let one = trust(&custodians, &[("alice", SealerKey::new([7; 32]))]);
    let text = render(&one);
    assert!(
        text.contains("2-of-3") && text.contains("alice  0707"),
        "{text}"
    );
    let presented = [signed(&custodians[..1]), signed(&[SoftCustodian::new("b")])].concat();
    let text = render_comparison(&one, &presented);
    assert!(text.contains("a  as pinned"), "{text}");
    assert!(
        text.contains("b  CHANGED") && text.contains("sign-statement key: pinned"),
        "{text}"
    );
    assert!(text.contains("c  not presented"), "{text}");
    let json = to_json(&one, Some(&presented));
    assert_eq!(json["presented"][1]["state"], "changed");
}
