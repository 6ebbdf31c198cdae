#![allow(clippy::unwrap_used, reason = "tests")]
use std::time::UNIX_EPOCH;

use super::*;
use crate::requirements::RequirementsFile;
use crate::token::Claims;

fn requirements(text: &str) -> Requirements {
    Requirements::check(toml::from_str::<RequirementsFile>(text).unwrap()).unwrap()
}

fn with_token() -> Requirements {
    requirements("require = [\"unix\", \"k8s-token\"]\nissuer = \"i\"\naudience = \"a\"")
}

fn parse(text: &str, proven: &Requirements) -> Result<Policy, Vec<String>> {
    Policy::parse(text, Judge::Daemon, proven)
}

fn facts() -> Facts {
    Facts {
        claims: Some(Claims {
            namespace: "shop".to_owned(),
            service_account: "checkout".to_owned(),
            pod: "app-0".to_owned(),
            pod_uid: "u-1".to_owned(),
            node: Some("n1".to_owned()),
            id: [0; 32],
            expires: UNIX_EPOCH,
        }),
        ..Facts::of_user(990, 990, 7)
    }
}

const GRANT: &str = "environments = [\"production\"]\nteams = [\"shop\"]\n";

#[test]
fn all_conditions_of_a_rule_must_hold_and_only_what_was_proven_counts() {
    let policy = |conditions: &str| {
        let text = format!("[[rule]]\nname = \"r\"\n{conditions}\n{GRANT}");
        parse(&text, &with_token()).unwrap()
    };
    let (proven, bare) = (facts(), Facts::of_user(990, 990, 7));
    for (conditions, with_claims, without) in [
        ("uid = 990", true, true),
        ("uid = 991", false, false),
        ("uid = 990\ngid = 1", false, false),
        ("namespace = \"shop\"", true, false),
        (
            "namespace = \"shop\"\nservice_account = \"checkout\"\nnode = \"n1\"",
            true,
            false,
        ),
        (
            "namespace = \"shop\"\nservice_account = \"other\"",
            false,
            false,
        ),
        ("namespace = \"shop\"\nuid = 1", false, false),
        ("node = \"n2\"", false, false),
    ] {
        let policy = policy(conditions);
        assert_eq!(
            policy.matching(&proven).count() == 1,
            with_claims,
            "{conditions}"
        );
        assert_eq!(policy.matching(&bare).count() == 1, without, "{conditions}");
    }
}

#[test]
fn several_rules_may_match_and_each_brings_its_own() {
    let text = "[[rule]]\nname = \"a\"\nuid = 990\nenvironments = [\"e1\"]\nteams = [\"*\"]\nlabels = { tier = \"gold\" }\n[[rule]]\nname = \"b\"\ngid = 990\nenvironments = [\"e2\"]\nteams = [\"t\"]";
    let policy = parse(text, &Requirements::default()).unwrap();
    let facts = Facts::of_user(990, 990, 7);
    let names: Vec<_> = policy
        .matching(&facts)
        .map(|rule| rule.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(policy.rules()[0].labels["tier"], "gold");
    assert_eq!(
        policy.matching(&Facts::of_user(1, 1, 1)).count(),
        0,
        "no match means no"
    );
}

#[test]
fn every_error_of_a_file_is_told_at_once_and_none_quotes_a_value() {
    let text = "other = \"sk-secret\"\n\
        [[rule]]\nname = \"everybody\"\nenvironments = [\"sk-secret\"]\nteams = [\"*\"]\n\
        [[rule]]\nname = \"twice\"\nuid = 1\nnamespace = \"sk-secret\"\n\
        [[rule]]\nname = \"twice\"\nuid = 1\nimage = \"sk-secret\"\nenvironments = [\"e\"]\nteams = [\"t\"]\n\
        [[rule]]\nname = \"x\"\nuidd = 1\n\
        [[rule]]\nname = \"y\"\nuid = \"sk-secret\"\n";
    let reasons = parse(text, &Requirements::default()).unwrap_err();
    let all = reasons.join("\n");
    for part in [
        "nothing else",
        "[[rule]] 1: has no condition",
        "[[rule]] 2: environments",
        "[[rule]] 2: teams",
        "[[rule]] 2: namespace and service_account: need",
        "[[rule]] 3: image: must",
        "[[rule]] 3: image: needs",
        "[[rule]] 3: name: stands twice",
        "[[rule]] 4: unknown field `uidd`",
        "[[rule]] 5: a field has a value of the wrong kind",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
    assert!(!all.contains("sk-secret"), "{all}");
    assert!(
        parse("", &Requirements::default()).is_err(),
        "no rule at all"
    );
    assert!(parse("rule = 1", &Requirements::default()).is_err());
}

#[test]
fn a_token_process_wants_conditions_and_no_grants() {
    let parse = |text: &str| Policy::parse(text, Judge::Token, &Requirements::default());
    assert!(parse("[[rule]]\nname = \"agents\"\nuid = 990").is_ok());
    assert!(parse(&format!("[[rule]]\nname = \"agents\"\nuid = 990\n{GRANT}")).is_err());
}
