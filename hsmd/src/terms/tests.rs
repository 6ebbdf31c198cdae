//! What an operator may write, and what comes of it.

#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn pinned(pairs: &[(&str, &str)]) -> Result<BTreeMap<Attribute, String>, TermsError> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    attributes(pairs.iter().map(own))
}

#[test]
fn permissions_are_words_of_the_table_or_a_star() {
    let checked = permissions(list(&["responses", "chat", "*", "chat"])).unwrap();
    assert_eq!(checked, ["*", "chat", "responses"]);
    assert_eq!(permissions(Vec::new()).unwrap(), Vec::<String>::new());
    for bad in ["Chat", "chat ", "", "chat*", "admin"] {
        let error = permissions(list(&[bad])).unwrap_err();
        assert!(matches!(error, TermsError::Permission(_)), "{bad:?}");
    }
    let many = vec!["chat".to_owned(); ENTRIES_MAX + 1];
    assert_eq!(permissions(many), Err(TermsError::TooMany("permissions")));
}

#[test]
fn a_models_name_is_exact_and_no_pattern() {
    for good in [
        "gpt-4o",
        "*",
        "meta-llama/Llama-3.3-70B",
        "ft:gpt-4o:acme::x1",
        "arn:aws:bedrock:us-east-1:1:inference-profile/us.x",
    ] {
        assert_eq!(models(list(&[good])).unwrap(), [good]);
    }
    let long = "m".repeat(MODEL_MAX_BYTES + 1);
    for bad in ["", "gpt-4*", "**", "gpt 4", "gpt\n4", "gpt-ü", &long] {
        assert_eq!(models(list(&[bad])), Err(TermsError::Model), "{bad:?}");
    }
    assert!(models(list(&[&long[1..]])).is_ok());
}

#[test]
fn values_can_stand_in_headers_and_those_of_hosts_are_labels() {
    for (name, good, bad) in [
        ("organization", "org-Acme_1.x:y", "org acme"),
        ("organization", "o", ""),
        ("project", "example.com:acme-1", "acme/../other"),
        ("project", "proj_1", "proj_1\r\nx: y"),
        ("location", "europe-west1", "europe.west1"),
        ("region", "us-east-1", "us_east_1"),
        ("resource", "acme-eu", "acme-eu.evil.example"),
        ("resource", "a", "-a"),
    ] {
        assert!(pinned(&[(name, good)]).is_ok(), "{name} {good:?}");
        let error = pinned(&[(name, bad)]).unwrap_err();
        assert!(matches!(error, TermsError::Value(_)), "{name} {bad:?}");
        assert!(bad.is_empty() || !error.to_string().contains(bad));
    }
    assert!(pinned(&[("project", &"p".repeat(VALUE_MAX_BYTES))]).is_ok());
    assert!(pinned(&[("project", &"p".repeat(VALUE_MAX_BYTES + 1))]).is_err());
    assert!(pinned(&[("region", &"r".repeat(LABEL_MAX_BYTES + 1))]).is_err());
    assert_eq!(pinned(&[("zone", "a")]).unwrap_err(), TermsError::Attribute);
    assert_eq!(
        pinned(&[("region", "a"), ("region", "b")]).unwrap_err(),
        TermsError::Twice("region")
    );
}

#[test]
fn a_provider_has_its_own_attributes_and_an_operators_own_has_any() {
    for (provider, name, fits) in [
        ("openai", "organization", true),
        ("openai", "project", true),
        ("openai", "region", false),
        ("anthropic", "project", false),
        ("gemini", "location", false),
        ("vertex", "location", true),
        ("vertex", "organization", false),
        ("azure", "resource", true),
        ("azure", "region", false),
        ("bedrock", "region", true),
        ("bedrock", "resource", false),
        ("llm-internal", "organization", true),
    ] {
        let terms = KeyTerms {
            attributes: pinned(&[(name, "a1")]).unwrap(),
            ..KeyTerms::default()
        };
        assert_eq!(terms.fit(provider).is_ok(), fits, "{provider} {name}");
        assert!(KeyTerms::default().fit(provider).is_ok());
    }
}

#[test]
fn a_list_that_is_left_out_takes_the_default_and_an_empty_one_stays_empty() {
    let defaults = Defaults {
        permissions: list(&["models", "chat"]),
        models: list(&["*"]),
        ..Defaults::default()
    };
    let open = KeyTerms::default().in_force(&defaults);
    assert_eq!(open.permissions, ["chat", "models"]);
    assert_eq!(open.models, ["*"]);
    let nobody = KeyTerms {
        permissions: Some(Vec::new()),
        models: Some(Vec::new()),
        ..KeyTerms::default()
    };
    let nobody = nobody.in_force(&defaults);
    assert!(nobody.permissions.is_empty() && nobody.models.is_empty());
}

#[test]
fn equal_terms_have_one_digest_and_others_another() {
    let defaults = |permissions: &[&str]| Defaults {
        permissions: list(permissions),
        ..Defaults::default()
    };
    let given = |permissions: &[&str]| KeyTerms {
        permissions: Some(super::permissions(list(permissions)).unwrap()),
        ..KeyTerms::default()
    };
    let one = KeyTerms::default().in_force(&defaults(&["models", "chat"]));
    let same = given(&["chat", "models", "chat"]).in_force(&defaults(&[]));
    assert_eq!(one.digest(), same.digest());
    assert_eq!(one.to_wire().digest, one.digest());
    for other in [
        given(&["chat"]),
        given(&[]),
        KeyTerms {
            models: Some(list(&["chat"])),
            ..given(&["chat", "models"])
        },
        KeyTerms {
            attributes: pinned(&[("project", "a")]).unwrap(),
            ..given(&["chat", "models"])
        },
    ] {
        assert_ne!(one.digest(), other.in_force(&defaults(&[])).digest());
    }
}
