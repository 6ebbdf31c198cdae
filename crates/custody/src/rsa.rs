//! RSA public keys and OAEP for the `rsa-oaep` profile.
//!
//! OAEP's own randomness comes from aws-lc: its interface takes none from outside. It hides nothing that a recorded
//! source would need to reproduce, since data keys and shares are drawn from the caller's source.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPrivateDecryptingKey,
    OaepPublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use secret::Secret;
use zeroize::Zeroizing;

use crate::codec::FormatError;
use crate::descriptor::OaepHash;

/// Largest SubjectPublicKeyInfo accepted: RSA-4096 takes 550 bytes.
pub const SPKI_MAX_BYTES: usize = 600;

/// An RSA public key of 2048 to 4096 bits, as canonical SubjectPublicKeyInfo (DER).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RsaPublic(Vec<u8>);

fn refuse(rule: &'static str) -> FormatError {
    FormatError::Field {
        what: "RSA public key",
        field: "SubjectPublicKeyInfo",
        rule,
    }
}

impl RsaPublic {
    /// Accepts canonical DER of a key that aws-lc accepts (2048 to 4096 bits).
    ///
    /// # Errors
    /// [`FormatError::Field`] names the rule.
    pub fn parse(der: &[u8]) -> Result<Self, FormatError> {
        if der.len() > SPKI_MAX_BYTES {
            return Err(refuse("is longer than an RSA-4096 key"));
        }
        let key = PublicEncryptingKey::from_der(der)
            .map_err(|_| refuse("is not an RSA key of 2048 to 4096 bits"))?;
        if !(2048..=4096).contains(&key.key_size_bits()) {
            return Err(refuse("is not an RSA key of 2048 to 4096 bits"));
        }
        let again = key.as_der().map_err(|_| refuse("cannot be encoded"))?;
        if again.as_ref() == der {
            Ok(Self(der.to_vec()))
        } else {
            Err(refuse("is not canonical DER"))
        }
    }

    /// From modulus and public exponent, big-endian, as PKCS#11 gives them.
    ///
    /// # Errors
    /// [`FormatError::Field`] when they do not form a key that is accepted.
    pub fn from_components(modulus: &[u8], exponent: &[u8]) -> Result<Self, FormatError> {
        let strip = |bytes: &[u8]| {
            bytes
                .iter()
                .copied()
                .skip_while(|byte| *byte == 0)
                .collect::<Vec<_>>()
        };
        let components = PublicKeyComponents {
            n: strip(modulus),
            e: strip(exponent),
        };
        let der = components
            .as_der()
            .map_err(|_| refuse("is not formed by that modulus and exponent"))?;
        Self::parse(der.as_ref())
    }

    /// The DER encoding.
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }

    /// Modulus and public exponent, big-endian without leading zeros, as a token wants them.
    pub fn components(&self) -> (Vec<u8>, Vec<u8>) {
        // The encoding is canonical (checked in `parse`): SEQUENCE { AlgorithmIdentifier, BIT STRING { SEQUENCE { n, e } } }.
        let spki = der_value(&mut self.0.as_slice(), 0x30);
        let mut rest = spki;
        der_value(&mut rest, 0x30);
        let bits = der_value(&mut rest, 0x03);
        let mut key = bits.get(1..).unwrap_or_default();
        let mut pair = der_value(&mut key, 0x30);
        let mut integer = || {
            der_value(&mut pair, 0x02)
                .iter()
                .copied()
                .skip_while(|byte| *byte == 0)
                .collect()
        };
        (integer(), integer())
    }

    /// RSA-OAEP of `plaintext` (at most 64 bytes here).
    ///
    /// # Errors
    /// [`FormatError::Field`] when aws-lc refuses the key.
    pub fn encrypt(&self, hash: OaepHash, plaintext: &[u8]) -> Result<Vec<u8>, FormatError> {
        let key = PublicEncryptingKey::from_der(&self.0).map_err(|_| refuse("is refused"))?;
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| refuse("is refused for OAEP"))?;
        let mut out = vec![0; key.ciphertext_size()];
        key.encrypt(algorithm(hash), plaintext, &mut out, None)
            .map_err(|_| refuse("is too small for OAEP"))?;
        Ok(out)
    }
}

impl std::fmt::Debug for RsaPublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RsaPublic({} bytes of DER)", self.0.len())
    }
}

/// Content of the next DER value of `tag`; empty when the input is not that (cannot happen for canonical keys).
fn der_value<'a>(from: &mut &'a [u8], tag: u8) -> &'a [u8] {
    let Some((&found, rest)) = from.split_first() else {
        return &[];
    };
    let Some((&first, mut rest)) = rest.split_first() else {
        return &[];
    };
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let Some((digits, after)) = rest.split_at_checked(usize::from(first & 0x7f)) else {
            return &[];
        };
        length = digits.iter().fold(0, |length: usize, digit| {
            length.saturating_mul(256).saturating_add((*digit).into())
        });
        rest = after;
    }
    let Some((value, after)) = rest.split_at_checked(length) else {
        return &[];
    };
    if found != tag {
        return &[];
    }
    *from = after;
    value
}

fn algorithm(hash: OaepHash) -> &'static OaepAlgorithm {
    match hash {
        OaepHash::Sha1 => &OAEP_SHA1_MGF1SHA1,
        OaepHash::Sha256 => &OAEP_SHA256_MGF1SHA256,
    }
}

/// An agent's RSA key pair for one session.
pub struct RsaKeyPair {
    private: OaepPrivateDecryptingKey,
    public: RsaPublic,
}

impl RsaKeyPair {
    /// Generates RSA-2048: 112 bits of strength, for keys that live as long as one session.
    ///
    /// Takes on the order of 100 ms: made before `OpenSession`, never on a request's path.
    ///
    /// # Errors
    /// [`FormatError`] when aws-lc cannot make a key.
    pub fn generate() -> Result<Self, FormatError> {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048)
            .map_err(|_| refuse("could not be generated"))?;
        let der = private
            .public_key()
            .as_der()
            .map_err(|_| refuse("cannot be encoded"))?;
        let public = RsaPublic::parse(der.as_ref())?;
        let private =
            OaepPrivateDecryptingKey::new(private).map_err(|_| refuse("is refused for OAEP"))?;
        Ok(Self { private, public })
    }

    /// The public half.
    pub fn public(&self) -> &RsaPublic {
        &self.public
    }

    /// Decrypts to exactly 64 bytes, or nothing: the caller learns no more than that it failed.
    pub fn decrypt(&self, hash: OaepHash, ciphertext: &[u8]) -> Option<Secret<[u8; 64]>> {
        let mut buffer = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let plain = self
            .private
            .decrypt(algorithm(hash), ciphertext, &mut buffer, None)
            .ok()?;
        let mut out = Secret::<[u8; 64]>::zeroed();
        if plain.len() != 64 {
            return None;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "fills the opened record in place"
        )]
        out.expose_mut().copy_from_slice(plain);
        Some(out)
    }
}

impl std::fmt::Debug for RsaKeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RsaKeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_and_der_are_one_key() {
        let pair = RsaKeyPair::generate().expect("a key");
        let (modulus, exponent) = pair.public().components();
        assert_eq!(modulus.len(), 256);
        assert_eq!(exponent, [1, 0, 1]);
        assert_eq!(
            &RsaPublic::from_components(&modulus, &exponent).expect("the same key"),
            pair.public()
        );
        let padded = [&[0][..], &modulus].concat();
        assert_eq!(
            &RsaPublic::from_components(&padded, &exponent).expect("the same key"),
            pair.public()
        );
    }

    #[test]
    fn opens_its_own_and_nothing_changed() {
        let pair = RsaKeyPair::generate().expect("a key");
        for hash in [OaepHash::Sha1, OaepHash::Sha256] {
            let mut sealed = pair.public().encrypt(hash, &[7; 64]).expect("encrypts");
            assert!(pair.decrypt(hash, &sealed).expect("opens") == Secret::new(Box::new([7; 64])));
            sealed[9] ^= 1;
            assert!(pair.decrypt(hash, &sealed).is_none());
        }
        let short = pair
            .public()
            .encrypt(OaepHash::Sha1, &[7; 63])
            .expect("encrypts");
        assert!(
            pair.decrypt(OaepHash::Sha1, &short).is_none(),
            "a record has 64 bytes"
        );
    }

    #[test]
    fn other_der_is_refused() {
        let pair = RsaKeyPair::generate().expect("a key");
        let mut der = pair.public().as_der().to_vec();
        assert!(RsaPublic::parse(&der).is_ok());
        der.push(0);
        assert!(RsaPublic::parse(&der).is_err());
        assert!(RsaPublic::parse(&der[..100]).is_err());
    }
}
