//! P-256 points and key agreement, parsed strictly before any token sees them.
//!
//! SoftHSM answers `CKR_GENERAL_ERROR` for a bad point, a wrong key and a corrupt blob alike, and other modules have
//! crashed on points off the curve: so a point is checked here first.

use aws_lc_rs::agreement::{ECDH_P256, ParsedPublicKey, PrivateKey, UnparsedPublicKey, agree};
use rand_core::CryptoRng;
use secret::Secret;
use zeroize::Zeroizing;

use crate::codec::FormatError;

/// Length of an uncompressed point: 0x04 ‖ x ‖ y.
pub const POINT_BYTES: usize = 65;

/// A public key: an uncompressed point that lies on the curve.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Point([u8; POINT_BYTES]);

impl Point {
    /// Accepts exactly 65 bytes, 0x04 in front, on the curve and not at infinity (SEC 1, section 2.3.4).
    ///
    /// # Errors
    /// [`FormatError::Field`] names the rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let refuse = |rule| FormatError::Field {
            what: "P-256 public key",
            field: "point",
            rule,
        };
        let point: [u8; POINT_BYTES] = bytes.try_into().map_err(|_| refuse("is not 65 bytes"))?;
        if point[0] != 4 {
            return Err(refuse("is not in uncompressed form"));
        }
        ParsedPublicKey::try_from(UnparsedPublicKey::new(&ECDH_P256, &point))
            .map_err(|_| refuse("is not on the curve"))?;
        Ok(Self(point))
    }

    /// The 65 bytes.
    pub fn as_bytes(&self) -> &[u8; POINT_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Point({})", hex::encode(&self.0[1..9]))
    }
}

/// A key pair for one session or one sealing; the private half is held by aws-lc and wiped by it.
pub struct KeyPair {
    private: PrivateKey,
    public: Point,
}

impl KeyPair {
    /// Draws a private key from `random`.
    pub fn generate(random: &mut impl CryptoRng) -> Self {
        let mut scalar = Zeroizing::new([0u8; 32]);
        loop {
            random.fill_bytes(scalar.as_mut());
            // Refused only for 0 and for values at or above the group's order: once in 2^32 draws.
            if let Ok(private) = PrivateKey::from_private_key(&ECDH_P256, scalar.as_ref()) {
                let computed = private
                    .compute_public_key()
                    .expect("a valid private key has a public key");
                let public =
                    Point::parse(computed.as_ref()).expect("aws-lc writes uncompressed points");
                return Self { private, public };
            }
        }
    }

    /// The public half.
    pub fn public(&self) -> &Point {
        &self.public
    }

    /// The shared x-coordinate Z with `peer` (SP 800-56A, 5.7.1.2).
    pub fn agree(&self, peer: &Point) -> Secret<[u8; 32]> {
        let mut shared = Secret::<[u8; 32]>::zeroed();
        agree(
            &self.private,
            UnparsedPublicKey::new(&ECDH_P256, peer.as_bytes()),
            (),
            |z| {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "fills the shared secret in place"
                )]
                shared.expose_mut().copy_from_slice(z);
                Ok(())
            },
        )
        .expect("both keys are valid P-256 keys: checked when they were parsed");
        shared
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemRandom;

    #[test]
    fn a_point_passes_and_its_neighbours_do_not() {
        let pair = KeyPair::generate(&mut SystemRandom::new());
        let good = *pair.public().as_bytes();
        assert!(Point::parse(&good).is_ok());
        for (at, flip) in [(0, 6u8), (1, 1), (64, 1)] {
            let mut bad = good;
            bad[at] ^= flip;
            assert!(Point::parse(&bad).is_err(), "byte {at}");
        }
        assert!(Point::parse(&good[..64]).is_err());
        assert!(Point::parse(&[&good[..], &[0]].concat()).is_err());
        assert!(Point::parse(&[4; 65]).is_err());
        assert!(Point::parse(&[0]).is_err(), "the point at infinity");
    }

    #[test]
    fn both_sides_agree() {
        let mut random = SystemRandom::new();
        let (one, two, three) = (
            KeyPair::generate(&mut random),
            KeyPair::generate(&mut random),
            KeyPair::generate(&mut random),
        );
        assert!(one.agree(two.public()) == two.agree(one.public()));
        assert!(one.agree(two.public()) != one.agree(three.public()));
    }
}
