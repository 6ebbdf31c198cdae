#![allow(clippy::unwrap_used, reason = "tests")]
use serde_json::{Value, json};

use super::*;
use crate::testing::{Issuer, NOW, now};

fn rules() -> TokenRules {
    TokenRules {
        issuer: "https://kubernetes.default.svc".to_owned(),
        audience: "tacit".to_owned(),
        lifetime_max: Duration::from_secs(3600),
        node: None,
    }
}

fn verify_at(issuer: &Issuer, token: &str, at: SystemTime) -> Result<Claims, Refused> {
    verify(token.as_bytes(), &issuer.keys(), &rules(), at)
}

fn changed(issuer: &Issuer, change: impl FnOnce(&mut Value)) -> Result<Claims, Refused> {
    let mut claims = issuer.claims("u-1");
    change(&mut claims);
    verify_at(issuer, &issuer.sign(&claims), now())
}

#[test]
fn a_token_of_the_issuer_for_us_says_whose_it_is() {
    for issuer in [Issuer::ec("k1"), Issuer::rsa("k1")] {
        let claims = changed(&issuer, |_| ()).unwrap();
        assert_eq!(claims.namespace, "shop");
        assert_eq!(claims.service_account, "checkout");
        assert_eq!(claims.pod_uid, "u-1");
        assert_eq!(claims.node.as_deref(), Some("n1"));
    }
}

#[test]
fn a_wrong_issuer_audience_time_or_pod_is_refused_by_name() {
    let issuer = Issuer::ec("k1");
    let set = |field: &'static str, value: Value| changed(&issuer, |claims| claims[field] = value);
    let without = |field: &str| {
        changed(&issuer, |claims| {
            claims.as_object_mut().unwrap().remove(field);
        })
    };
    for (found, wanted) in [
        (set("iss", json!("https://elsewhere")), Refused::TokenIssuer),
        (without("iss"), Refused::TokenIssuer),
        (
            set("aud", json!(["https://kubernetes.default.svc"])),
            Refused::TokenAudience,
        ),
        (set("aud", json!("tacit-not")), Refused::TokenAudience),
        (without("aud"), Refused::TokenAudience),
        (set("exp", json!(NOW - 11)), Refused::TokenExpired),
        (without("exp"), Refused::TokenMalformed),
        (set("nbf", json!(NOW + 11)), Refused::TokenNotYet),
        (set("iat", json!(NOW + 11)), Refused::TokenNotYet),
        (set("exp", json!(NOW + 3601)), Refused::TokenLifetime),
        (
            set("sub", json!("system:serviceaccount:shop:other")),
            Refused::TokenNotOfPod,
        ),
        (without("kubernetes.io"), Refused::TokenNotOfPod),
        (
            changed(&issuer, |claims| {
                claims["kubernetes.io"]["pod"] = Value::Null
            }),
            Refused::TokenNotOfPod,
        ),
        (
            changed(&issuer, |claims| {
                claims["kubernetes.io"]["pod"]["name"] = json!("a\nb")
            }),
            Refused::TokenNotOfPod,
        ),
    ] {
        assert_eq!(found.unwrap_err(), wanted);
    }
    // The nearest neighbours pass: within the skew, and one audience of several.
    assert!(set("exp", json!(NOW - 9)).is_ok());
    assert!(set("nbf", json!(NOW + 9)).is_ok());
    assert!(set("aud", json!(["other", "tacit"])).is_ok());
}

#[test]
fn a_pinned_node_must_be_the_tokens() {
    let issuer = Issuer::ec("k1");
    let token = issuer.sign(&issuer.claims("u-1"));
    let at = |node: &str| {
        let rules = TokenRules {
            node: Some(node.to_owned()),
            ..rules()
        };
        verify(token.as_bytes(), &issuer.keys(), &rules, now())
    };
    assert!(at("n1").is_ok());
    assert_eq!(at("n2"), Err(Refused::TokenNode));
}

#[test]
fn another_algorithm_key_or_signature_is_refused_by_name() {
    let (issuer, rsa) = (Issuer::ec("k1"), Issuer::rsa("k1"));
    let claims = issuer.claims("u-1");
    let good = issuer.sign(&claims);
    // Neither none, nor a MAC keyed with the public key, nor RSA for a key that is for ECDSA.
    for alg in ["none", "None", "HS256", "RS384", "PS256", "ES384", "EdDSA"] {
        let token = Issuer::unsigned(&json!({ "alg": alg, "kid": "k1" }), &claims);
        assert_eq!(
            verify_at(&issuer, &token, now()),
            Err(Refused::TokenAlgorithm),
            "{alg}"
        );
    }
    assert_eq!(
        verify_at(&issuer, &issuer.mac_with_public_key(&claims), now()),
        Err(Refused::TokenAlgorithm)
    );
    assert_eq!(
        verify_at(&issuer, &rsa.sign(&claims), now()),
        Err(Refused::TokenAlgorithm)
    );
    // A key of the same kind and the same name.
    assert_eq!(
        verify_at(&Issuer::ec("k1"), &good, now()),
        Err(Refused::TokenSignature)
    );
    assert_eq!(
        verify_at(&Issuer::ec("k2"), &good, now()),
        Err(Refused::TokenKeyUnknown)
    );
    let no_kid = Issuer::unsigned(&json!({ "alg": "ES256" }), &claims);
    assert_eq!(
        verify_at(&issuer, &no_kid, now()),
        Err(Refused::TokenKeyUnknown)
    );
    let critical = Issuer::unsigned(
        &json!({ "alg": "ES256", "kid": "k1", "crit": ["b64"] }),
        &claims,
    );
    assert_eq!(
        verify_at(&issuer, &critical, now()),
        Err(Refused::TokenMalformed)
    );
    // Keys that the token brings along are not looked at.
    let stranger = Issuer::ec("k1");
    let brought = stranger.sign_with(
        &json!({ "alg": "ES256", "kid": "k1", "jwk": stranger.jwk(), "jku": "https://x" }),
        &claims,
    );
    assert_eq!(
        verify_at(&issuer, &brought, now()),
        Err(Refused::TokenSignature)
    );
}

#[test]
fn what_is_no_token_is_refused_and_an_absent_one_is_named() {
    let issuer = Issuer::ec("k1");
    let good = issuer.sign(&issuer.claims("u-1"));
    assert_eq!(verify_at(&issuer, "", now()), Err(Refused::TokenMissing));
    let (head, _) = good.split_once('.').unwrap();
    for bad in [
        "x",
        "..",
        "a.b.c",
        head,
        &format!("{good}."),
        &format!("{head}.."),
        &"a".repeat(TOKEN_BYTES_MAX + 1),
    ] {
        let refused = verify_at(&issuer, bad, now()).unwrap_err();
        assert!(
            matches!(refused, Refused::TokenMalformed | Refused::TokenSignature),
            "{refused:?}"
        );
    }
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] ^= 1;
        assert!(
            verify(&bytes, &issuer.keys(), &rules(), now()).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn a_key_set_has_one_key_of_a_name_and_other_kinds_are_passed_over() {
    let (one, two) = (Issuer::ec("k1"), Issuer::rsa("k2"));
    let set = |keys: Vec<Value>| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes());
    assert!(
        set(vec![
            one.jwk(),
            two.jwk(),
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k3", "x": "AA" })
        ])
        .is_ok()
    );
    let mut encrypts = one.jwk();
    encrypts["use"] = json!("enc");
    let mut other = one.jwk();
    other["alg"] = json!("RS256");
    for bad in [
        vec![],
        vec![one.jwk(), one.jwk()],
        vec![json!({ "kty": "oct", "kid": "k1", "k": "c2VjcmV0" })],
        vec![encrypts],
        vec![other],
    ] {
        assert!(matches!(set(bad), Err(Refused::KeysUnavailable(_))));
    }
    assert!(KeySet::parse(b"{}").is_err());
}

#[test]
fn a_second_signature_over_the_same_token_makes_no_other_token_of_it() {
    let issuer = Issuer::ec("k1");
    let claims = issuer.claims("u-1");
    let (one, two) = (issuer.sign(&claims), issuer.sign(&claims));
    assert_ne!(one, two, "ECDSA signatures differ");
    let id = |token: &str| verify_at(&issuer, token, now()).unwrap().id;
    assert_eq!(id(&one), id(&two));
    let mut other = claims;
    other["jti"] = json!("another");
    assert_ne!(id(&one), id(&issuer.sign(&other)));
}
