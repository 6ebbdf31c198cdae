//! An issuer of service account tokens, made up for tests.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

use crate::token::KeySet;

/// When these tests run.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

enum Signer {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

pub(crate) struct Issuer {
    kid: String,
    signer: Signer,
}

impl Issuer {
    pub(crate) fn ec(kid: &str) -> Self {
        let signer = Signer::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
        Self {
            kid: kid.to_owned(),
            signer,
        }
    }

    pub(crate) fn rsa(kid: &str) -> Self {
        let size = aws_lc_rs::rsa::KeySize::Rsa2048;
        let signer = Signer::Rsa(RsaKeyPair::generate(size).unwrap());
        Self {
            kid: kid.to_owned(),
            signer,
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        match &self.signer {
            Signer::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid,
                        "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..]) })
            }
            Signer::Rsa(pair) => {
                let public = pair.public_key();
                json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid,
                        "n": BASE64.encode(public.modulus().big_endian_without_leading_zero()),
                        "e": BASE64.encode(public.exponent().big_endian_without_leading_zero()) })
            }
        }
    }

    pub(crate) fn jwks(&self) -> String {
        json!({ "keys": [self.jwk()] }).to_string()
    }

    pub(crate) fn keys(&self) -> KeySet {
        KeySet::parse(self.jwks().as_bytes()).unwrap()
    }

    /// What a kubelet's projected volume holds for a pod of that UID.
    pub(crate) fn claims(&self, pod_uid: &str) -> Value {
        json!({
            "iss": "https://kubernetes.default.svc", "aud": ["tacit"], "sub": "system:serviceaccount:shop:checkout",
            "iat": NOW, "nbf": NOW, "exp": NOW + 600, "jti": "7e1f",
            "kubernetes.io": {
                "namespace": "shop", "serviceaccount": { "name": "checkout", "uid": "s-1" },
                "pod": { "name": "app-0", "uid": pod_uid }, "node": { "name": "n1", "uid": "n-1" },
            },
        })
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let alg = match self.signer {
            Signer::Ec(_) => "ES256",
            Signer::Rsa(_) => "RS256",
        };
        self.sign_with(&json!({ "alg": alg, "kid": self.kid }), claims)
    }

    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let input = input(header, claims);
        let random = SystemRandom::new();
        let signature = match &self.signer {
            Signer::Ec(pair) => pair
                .sign(&random, input.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
        };
        format!("{input}.{}", BASE64.encode(signature))
    }

    /// The classic confusion: HS256, with what everybody knows as the secret.
    pub(crate) fn mac_with_public_key(&self, claims: &Value) -> String {
        let Signer::Ec(pair) = &self.signer else {
            panic!("an EC issuer")
        };
        let key =
            aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, pair.public_key().as_ref());
        let input = input(&json!({ "alg": "HS256", "kid": self.kid }), claims);
        let tag = aws_lc_rs::hmac::sign(&key, input.as_bytes());
        format!("{input}.{}", BASE64.encode(tag.as_ref()))
    }

    pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
        format!("{}.", input(header, claims))
    }
}

fn input(header: &Value, claims: &Value) -> String {
    format!(
        "{}.{}",
        BASE64.encode(header.to_string()),
        BASE64.encode(claims.to_string())
    )
}
