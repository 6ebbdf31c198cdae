//! Projected service account tokens: what the API server says of a pod, in a JWT that it signed for us.
//!
//! Pinned are the algorithms (RS256 and ES256, the two that API servers sign with), the issuer, the audience, the longest life and, if the
//! operator wants it, the node. A key is found by `kid` in the issuer's own set and used for the one algorithm that it is for; nothing in
//! the token says where keys come from. The clock is an argument.
//!
//! Such a token is a bearer token: it says for which pod it was issued and not who presents it. That is why it is asked for together with
//! `k8s-cgroup`, or bound to the first process that brings it ([`crate::replay`]).

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;

use crate::refused::Refused;
use crate::requirements::TokenRules;

/// Longest token. Kubelets write about 1.2 KiB; a reverse proxy's usual bound for a header is 8 KiB.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest key set. API servers publish two or three keys of half a KiB.
pub const KEYS_BYTES_MAX: usize = 64 * 1024;
/// Keys of a set.
const KEYS_MAX: usize = 64;
/// By how much clocks of a cluster may differ.
const SKEW: Duration = Duration::from_secs(10);
/// Longest name of Kubernetes.
const NAME_MAX: usize = 253;

/// Public keys of an issuer.
pub struct KeySet(Vec<Key>);

struct Key {
    kid: String,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySet({} keys)", self.0.len())
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// The key, if it is one that we verify with; another kind in the set is no error.
    fn key(&self) -> Option<Key> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let (name, algorithm, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let key = DecodingKey::from_rsa_components(self.n.as_ref()?, self.e.as_ref()?);
                ("RS256", Algorithm::RS256, key)
            }
            ("EC", Some("P-256")) => {
                let key = DecodingKey::from_ec_components(self.x.as_ref()?, self.y.as_ref()?);
                ("ES256", Algorithm::ES256, key)
            }
            _ => return None,
        };
        let is_for = self.alg.as_deref().is_none_or(|alg| alg == name);
        Some(Key {
            kid: self.kid.clone()?,
            algorithm,
            key: key.ok().filter(|_| is_for)?,
        })
    }
}

impl KeySet {
    /// From a JWKS.
    ///
    /// # Errors
    /// [`Refused::KeysUnavailable`].
    pub fn parse(json: &[u8]) -> Result<Self, Refused> {
        let refuse = |why: &str| Refused::KeysUnavailable(why.to_owned());
        if json.len() > KEYS_BYTES_MAX {
            return Err(refuse("the key set is too long"));
        }
        let set: JwkSet =
            serde_json::from_slice(json).map_err(|_| refuse("the key set is no JWKS"))?;
        let keys: Vec<Key> = set.keys.iter().filter_map(Jwk::key).collect();
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(refuse(
                "the key set has no key for RS256 or ES256, or too many",
            ));
        }
        let kids: BTreeSet<&str> = keys.iter().map(|key| key.kid.as_str()).collect();
        if kids.len() < keys.len() {
            return Err(refuse("the key set has two keys of one kid"));
        }
        Ok(Self(keys))
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; we understand none.
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Payload {
    sub: String,
    exp: u64,
    iat: u64,
    nbf: Option<u64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    pod: Option<Named>,
    node: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

/// What a token says, once it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Namespace of pod and service account.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// The node, where the API server says it (Kubernetes 1.30).
    pub node: Option<String>,
    /// Tells this token from any other: the hash of what is signed, which no second signature over it changes.
    pub id: [u8; 32],
    /// When it ends.
    pub expires: SystemTime,
}

/// Verifies a token.
///
/// # Errors
/// [`Refused`], by the rule that it breaks; [`Refused::TokenKeyUnknown`] when a fresh key set may know better.
pub fn verify(
    token: &[u8],
    keys: &KeySet,
    rules: &TokenRules,
    now: SystemTime,
) -> Result<Claims, Refused> {
    if token.is_empty() {
        return Err(Refused::TokenMissing);
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refused::TokenMalformed);
    }
    let key = signing_key(token, keys)?;
    let mut validation = Validation::new(key.algorithm);
    validation.set_issuer(&[&rules.issuer]);
    validation.set_audience(&[&rules.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    // Times are compared below, with the clock that was given.
    validation.validate_exp = false;
    let decoded = decode::<Payload>(token, &key.key, &validation);
    let payload = decoded.map_err(|error| reason(error.kind()))?.claims;
    check_times(&payload, rules, now)?;
    claims(payload, signed_part(token), rules)
}

fn signed_part(token: &[u8]) -> &[u8] {
    let dot = token.iter().rposition(|byte| *byte == b'.');
    &token[..dot.unwrap_or(token.len())]
}

/// The key that the token names, if it is for the algorithm that the token names.
fn signing_key<'a>(token: &[u8], keys: &'a KeySet) -> Result<&'a Key, Refused> {
    use base64::Engine as _;
    let encoded = token.split(|byte| *byte == b'.').next().unwrap_or_default();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(encoded)
        .ok()
        .and_then(|json| serde_json::from_slice::<Header>(&json).ok())
        .ok_or(Refused::TokenMalformed)?;
    let algorithm = match header.alg.as_str() {
        "RS256" => Algorithm::RS256,
        "ES256" => Algorithm::ES256,
        _ => return Err(Refused::TokenAlgorithm),
    };
    if header.crit.is_some() {
        return Err(Refused::TokenMalformed);
    }
    let kid = header.kid.ok_or(Refused::TokenKeyUnknown)?;
    let key = keys.0.iter().find(|key| key.kid == kid);
    let key = key.ok_or(Refused::TokenKeyUnknown)?;
    if key.algorithm == algorithm {
        Ok(key)
    } else {
        Err(Refused::TokenAlgorithm)
    }
}

fn reason(kind: &ErrorKind) -> Refused {
    match kind {
        ErrorKind::InvalidSignature => Refused::TokenSignature,
        ErrorKind::InvalidAlgorithm => Refused::TokenAlgorithm,
        ErrorKind::InvalidIssuer => Refused::TokenIssuer,
        ErrorKind::InvalidAudience => Refused::TokenAudience,
        ErrorKind::MissingRequiredClaim(name) if name == "iss" => Refused::TokenIssuer,
        ErrorKind::MissingRequiredClaim(name) if name == "aud" => Refused::TokenAudience,
        // A foreign enum that may grow: whatever it is, the token is none of ours.
        _ => Refused::TokenMalformed,
    }
}

fn check_times(payload: &Payload, rules: &TokenRules, now: SystemTime) -> Result<(), Refused> {
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_err(|_| Refused::TokenNotYet)?
        .as_secs();
    let skew = SKEW.as_secs();
    if payload.exp.saturating_add(skew) <= now {
        return Err(Refused::TokenExpired);
    }
    let from = payload.nbf.unwrap_or(payload.iat).max(payload.iat);
    if from > now.saturating_add(skew) {
        return Err(Refused::TokenNotYet);
    }
    if payload.exp.saturating_sub(payload.iat) > rules.lifetime_max.as_secs() {
        return Err(Refused::TokenLifetime);
    }
    Ok(())
}

fn claims(payload: Payload, signed: &[u8], rules: &TokenRules) -> Result<Claims, Refused> {
    let said = payload.kubernetes.ok_or(Refused::TokenNotOfPod)?;
    let pod = said.pod.ok_or(Refused::TokenNotOfPod)?;
    let (namespace, account) = (said.namespace, said.serviceaccount.name);
    let node = said.node.map(|node| node.name);
    let is_name = |name: &String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:_".contains(&byte);
        !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(plain)
    };
    let names = [&namespace, &account, &pod.name, &pod.uid];
    let is_subject = payload.sub == format!("system:serviceaccount:{namespace}:{account}");
    if !names.into_iter().chain(&node).all(is_name) || !is_subject {
        return Err(Refused::TokenNotOfPod);
    }
    if rules.node.is_some() && rules.node != node {
        return Err(Refused::TokenNode);
    }
    Ok(Claims {
        namespace,
        service_account: account,
        pod: pod.name,
        pod_uid: pod.uid,
        node,
        id: custody::sha256(signed),
        // Within the bound on the lifetime, so it does not overflow.
        expires: UNIX_EPOCH + Duration::from_secs(payload.exp),
    })
}

#[cfg(test)]
mod tests;
