//! `fips = true`: a custodian whose token is asked for approved algorithms and for nothing else.
//!
//! Approved means by FIPS 140-3 (SP 800-140C): ECDH on P-256 with the ANS X9.63 key derivation (SP 800-56A, SP 800-135),
//! AES key wrap (SP 800-38F), HMAC and ECDSA with SHA-256 (FIPS 198-1, 186-5), RSA-OAEP with SHA-256 (SP 800-56B). This room
//! knows which calls those are and never says that anything is *validated*: that stands in the certificate and the security
//! policy of a module, for one version, in its approved mode. What is done outside of tokens (dealing and sealing on the
//! operator's machine, opening in an agent) is outside of any validated boundary.

use custody::{Kdf, OaepHash, Profile};

/// A call that a custodian makes, as its token must offer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Key pairs on P-256.
    EcKeyPair,
    /// Signatures that are hashed and made in one call, so that the hash is the token's, too.
    Ecdsa,
    /// HMAC keys.
    SecretKey,
    /// HMAC-SHA256.
    Hmac,
    /// ECDH on P-256.
    Ecdh,
    /// AES-256 keys.
    AesKey,
    /// RFC 3394.
    AesKeyWrap,
    /// Key pairs of 3072 bits.
    RsaKeyPair,
    /// Wrapping and unwrapping.
    RsaOaep,
}

/// What every custodian needs, whatever its profile.
pub const ALWAYS: [Service; 4] = [
    Service::EcKeyPair,
    Service::Ecdsa,
    Service::SecretKey,
    Service::Hmac,
];

impl Service {
    /// The mechanism, by the name that vendors' tables use.
    #[must_use]
    pub fn mechanism(self) -> &'static str {
        match self {
            Service::EcKeyPair => "CKM_EC_KEY_PAIR_GEN (P-256)",
            Service::Ecdsa => "CKM_ECDSA_SHA256 (P-256)",
            Service::SecretKey => "CKM_GENERIC_SECRET_KEY_GEN",
            Service::Hmac => "CKM_SHA256_HMAC",
            Service::Ecdh => "CKM_ECDH1_DERIVE (P-256)",
            Service::AesKey => "CKM_AES_KEY_GEN (256 bits)",
            Service::AesKeyWrap => "CKM_AES_KEY_WRAP",
            Service::RsaKeyPair => "CKM_RSA_PKCS_KEY_PAIR_GEN (3072 bits)",
            Service::RsaOaep => "CKM_RSA_PKCS_OAEP",
        }
    }

    /// What this profile needs beside [`ALWAYS`].
    #[must_use]
    pub fn of(profile: Profile) -> &'static [Service] {
        match profile {
            Profile::EcdhKw(_) => &[Service::Ecdh, Service::AesKey, Service::AesKeyWrap],
            Profile::RsaOaep(_) => &[Service::RsaKeyPair, Service::RsaOaep],
        }
    }
}

/// What no list of mechanisms shows: the parameter that the profile rests on.
#[must_use]
pub fn parameter(profile: Profile) -> &'static str {
    match profile {
        Profile::EcdhKw(Kdf::X963Sha256) => "CKD_SHA256_KDF in CKM_ECDH1_DERIVE",
        Profile::EcdhKw(Kdf::NullCbc) => "CKD_NULL in CKM_ECDH1_DERIVE",
        Profile::RsaOaep(OaepHash::Sha256) => "SHA-256 in CKM_RSA_PKCS_OAEP",
        Profile::RsaOaep(OaepHash::Sha1) => "SHA-1 in CKM_RSA_PKCS_OAEP",
    }
}

/// Why this profile is not approved; `None` when it is.
#[must_use]
pub fn objection(profile: Profile) -> Option<&'static str> {
    match profile {
        Profile::EcdhKw(Kdf::X963Sha256) | Profile::RsaOaep(OaepHash::Sha256) => None,
        Profile::EcdhKw(Kdf::NullCbc) => Some(
            "CKD_NULL gives out the bare ECDH secret, and CKM_AES_CBC_ENCRYPT_DATA is no approved key derivation",
        ),
        Profile::RsaOaep(OaepHash::Sha1) => Some("CKM_RSA_PKCS_OAEP runs with SHA-1"),
    }
}

/// What an operator can do about a mechanism that is missing.
pub const NEXT: &str =
    "use a token that offers this, allow it in the HSM's policy (docs/hsm), or take `fips` out";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_approved_has_a_reason_and_the_rest_has_none() {
        for (profile, approved) in [
            (Profile::EcdhKw(Kdf::X963Sha256), true),
            (Profile::EcdhKw(Kdf::NullCbc), false),
            (Profile::RsaOaep(OaepHash::Sha256), true),
            (Profile::RsaOaep(OaepHash::Sha1), false),
        ] {
            assert_eq!(objection(profile).is_none(), approved, "{profile:?}");
        }
    }
}
