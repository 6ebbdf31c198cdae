//! Who may use which key, as tables.

use super::*;

use crate::terms::KeyTerms;

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn lists_meet_by_name_or_star_and_empty_is_nobody() {
    for (allowed, own, expected) in [
        (&["production"][..], &["production"][..], true),
        (&["production"], &["staging", "production"], true),
        (&["production"], &["staging"], false),
        (&["*"], &["staging"], true),
        (&["production"], &["*"], true),
        (&[], &["production"], false),
        (&[], &["*"], false),
        (&["*"], &[], false),
    ] {
        assert_eq!(
            meet(&names(allowed), &names(own)),
            expected,
            "{allowed:?} {own:?}"
        );
    }
}

#[test]
fn rules_of_one_user_grant_each_for_itself() {
    let rule = |environment: &str, team: &str| CallerRule {
        uid: 1000,
        environments: names(&[environment]),
        teams: names(&[team]),
    };
    let rules = [
        rule("production", "engineering"),
        rule("development", "data"),
    ];
    let caller = Caller::from_rules(&rules, 1000, 1).expect("two rules");
    let body = |environment: &str, team: &str| KeyBody {
        provider: "openai".into(),
        environments: Some(names(&[environment])),
        teams: Some(names(&[team])),
        description: String::new(),
        created_at: 0,
        current: 0,
        last_action: String::new(),
        last_action_at: 0,
        terms: KeyTerms::default(),
    };
    let defaults = Defaults::default();
    assert!(may_use(
        &caller,
        &body("production", "engineering"),
        &defaults
    ));
    assert!(may_use(&caller, &body("development", "data"), &defaults));
    assert!(!may_use(&caller, &body("production", "data"), &defaults));
    assert!(!may_use(
        &caller,
        &body("development", "engineering"),
        &defaults
    ));
}

#[test]
fn who_can_use_a_key_is_told_with_what_its_terms_leave_of_it() {
    let rules = [CallerRule {
        uid: 1000,
        environments: names(&["production"]),
        teams: names(&["a"]),
    }];
    let usable = |permissions: &[&str], models: &[&str]| {
        let body = KeyBody {
            provider: "openai".into(),
            environments: Some(names(&["production"])),
            teams: None,
            description: String::new(),
            created_at: 0,
            current: 0,
            last_action: String::new(),
            last_action_at: 0,
            terms: KeyTerms {
                permissions: Some(names(permissions)),
                models: Some(names(models)),
                ..KeyTerms::default()
            },
        };
        usable_by(&body, &rules, &Policy::default(), &Defaults::default())
    };
    assert_eq!(usable(&["chat"], &["gpt-4o"]).len(), 1);
    let no_model = usable(&["chat"], &[]);
    assert!(no_model[0].starts_with("agents of uid 1000") && no_model[1].contains("--model"));
    // Of a key that is for nothing no agent hears at all.
    let nothing = usable(&[], &["*"]);
    assert!(
        nothing.len() == 1 && nothing[0].starts_with("nobody: "),
        "{nothing:?}"
    );
}

#[test]
fn a_caller_without_a_rule_is_nobody() {
    let rules = [CallerRule {
        uid: 1000,
        environments: names(&["production"]),
        teams: names(&["a"]),
    }];
    assert!(Caller::from_rules(&rules, 1000, 1).is_some());
    assert!(Caller::from_rules(&rules, 1001, 1).is_none());
    assert!(Caller::from_rules(&[], 0, 1).is_none(), "not even root");
}
