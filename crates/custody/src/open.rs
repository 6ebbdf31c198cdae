//! Opening, in the agent: from what the daemon forwards to the provider key, straight into the caller's buffer.

use secret::Secret;

use crate::combine::{CombineError, combine};
use crate::dek::{Envelope, EnvelopeChanged};
use crate::descriptor::{Fingerprint, Profile, SealKeys};
use crate::names::{KeyId, Origin};
use crate::p256::KeyPair;
use crate::rsa::RsaKeyPair;
use crate::sealed::{Provenance, ProvenanceError, verify_provenance};
use crate::session::{SESSION_ID_BYTES, WrappingKey, deliver_context};
use crate::share::ShareRecord;
use crate::trust::{Trust, TrustError};

/// The agent's half of a session.
#[derive(Debug)]
pub struct SessionKeys {
    /// Always present.
    pub p256: KeyPair,
    /// Present when a pinned custodian uses `rsa-oaep`.
    pub rsa: Option<RsaKeyPair>,
}

/// What the daemon forwards for one lease; nothing of it is believed yet.
#[derive(Debug, Clone, Copy)]
pub struct Material<'a> {
    /// Canonical header.
    pub header: &'a [u8],
    /// Envelope.
    pub envelope: &'a [u8],
    /// Canonical manifest.
    pub manifest: &'a [u8],
    /// The sealer's signature over it.
    pub signature: &'a [u8; 64],
}

/// What the request was about; the opened header must agree.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// The key asked for.
    pub key_id: &'a KeyId,
    /// The route's provider.
    pub provider: &'a str,
    /// The route's origin.
    pub origin: &'a Origin,
}

/// The session by which a share came. Shares of one key may come by several daemons, and each has a session of its own.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    /// The agent's half.
    pub keys: &'a SessionKeys,
    /// The id that the daemon gave it.
    pub id: &'a [u8; SESSION_ID_BYTES],
}

/// One share on its way.
#[derive(Debug, Clone, Copy)]
pub struct Delivered<'a> {
    /// How it came.
    pub session: Session<'a>,
    /// Index claimed by the daemon.
    pub x: u8,
    /// Fingerprint claimed by the daemon.
    pub fingerprint: Fingerprint,
    /// Ciphertext from the token.
    pub wrapped: &'a [u8],
}

/// Why a lease did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Header, envelope, manifest and signature do not belong together or are not ours.
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
    /// A custodian that the trust file does not pin.
    #[error(transparent)]
    Custodian(#[from] TrustError),
    /// The daemon answered with another key.
    #[error("the daemon answered with key {found} instead of {asked}")]
    OtherKey {
        /// What was asked for.
        asked: KeyId,
        /// What came.
        found: KeyId,
    },
    /// The key belongs to another provider.
    #[error("key {key} belongs to provider {found}, the route is for {asked}")]
    OtherProvider {
        /// Which key.
        key: KeyId,
        /// The route's provider.
        asked: String,
        /// The header's provider.
        found: String,
    },
    /// The origin is not among those that the key was sealed for.
    #[error(
        "key {key} may not be sent to {origin}: it was sealed for {allowed}; seal it again with --upstream, or correct base_url"
    )]
    UpstreamNotAllowed {
        /// Which key.
        key: KeyId,
        /// The route's origin.
        origin: String,
        /// What the header lists.
        allowed: String,
    },
    /// A delivery names a custodian under another index than the header does.
    #[error("the delivery for custodian {x} is not from the custodian that the header names")]
    OtherCustodian {
        /// The index claimed.
        x: u8,
    },
    /// The delivery did not unwrap under the session key.
    #[error("the delivery of custodian {x} does not open under this session")]
    Delivery {
        /// Whose delivery.
        x: u8,
    },
    /// The custodian delivers with RSA and the session has no RSA key.
    #[error("custodian {x} uses rsa-oaep and this session was opened without an RSA key")]
    NoRsaKey {
        /// Whose delivery.
        x: u8,
    },
    /// The shares do not combine.
    #[error(transparent)]
    Combine(#[from] CombineError),
    /// The envelope does not open.
    #[error(transparent)]
    Envelope(#[from] EnvelopeChanged),
}

impl OpenError {
    /// The custodian whose delivery is at fault, if it is one delivery: with another in its place the key may open.
    pub fn custodian(&self) -> Option<u8> {
        match self {
            Self::OtherCustodian { x } | Self::Delivery { x } | Self::NoRsaKey { x } => Some(*x),
            Self::Combine(
                CombineError::UnknownIndex { x }
                | CombineError::Duplicate { x }
                | CombineError::Record { x, .. }
                | CombineError::Check { x },
            ) => Some(*x),
            Self::Provenance(_)
            | Self::Custodian(_)
            | Self::OtherKey { .. }
            | Self::OtherProvider { .. }
            | Self::UpstreamNotAllowed { .. }
            | Self::Combine(_)
            | Self::Envelope(_) => None,
        }
    }
}

/// Material whose provenance, key, provider and origin were checked. The check is the only way to one.
#[derive(Debug)]
pub struct Checked<'a> {
    provenance: Provenance,
    header: &'a [u8],
    envelope: Envelope<'a>,
}

/// Checks everything that can be checked before a share is touched.
///
/// # Errors
/// [`OpenError`].
pub fn check<'a>(
    trust: &Trust,
    material: Material<'a>,
    expect: Expectation<'_>,
) -> Result<Checked<'a>, OpenError> {
    let Material {
        header,
        envelope,
        manifest,
        signature,
    } = material;
    let provenance = verify_provenance(trust, header, envelope, manifest, signature)?;
    let own = provenance.header();
    if own.key_id != *expect.key_id {
        return Err(OpenError::OtherKey {
            asked: expect.key_id.clone(),
            found: own.key_id.clone(),
        });
    }
    if own.provider != expect.provider {
        return Err(OpenError::OtherProvider {
            key: own.key_id.clone(),
            asked: expect.provider.to_owned(),
            found: own.provider.clone(),
        });
    }
    if !own
        .upstreams
        .iter()
        .any(|upstream| upstream.allows(expect.origin))
    {
        let allowed: Vec<_> = own.upstreams.iter().map(ToString::to_string).collect();
        return Err(OpenError::UpstreamNotAllowed {
            key: own.key_id.clone(),
            origin: expect.origin.to_string(),
            allowed: allowed.join(", "),
        });
    }
    let envelope = Envelope::parse(envelope).map_err(ProvenanceError::from)?;
    Ok(Checked {
        provenance,
        header,
        envelope,
    })
}

impl Checked<'_> {
    /// Header and manifest.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Length of the provider key: how large `out` of [`Checked::open`] must be.
    pub fn plaintext_len(&self) -> usize {
        self.envelope.plaintext_len()
    }

    /// Unwraps exactly t deliveries, each in the session by which it came, combines, and decrypts the provider key into `out`.
    ///
    /// # Errors
    /// [`OpenError`], naming the custodian where one is at fault. `out` holds nothing of the key then.
    pub fn open(
        &self,
        trust: &Trust,
        deliveries: &[Delivered<'_>],
        out: &mut [u8],
    ) -> Result<(), OpenError> {
        let unwrap = |delivered| {
            self.unwrap(trust, delivered)
                .map(|record| (delivered.x, record))
        };
        let records = deliveries
            .iter()
            .map(unwrap)
            .collect::<Result<Vec<_>, _>>()?;
        let Self {
            provenance,
            header,
            envelope,
        } = self;
        let dek = combine(
            provenance.header(),
            provenance.header_hash(),
            provenance.manifest(),
            &records,
        )?;
        Ok(dek.open_envelope(header, envelope, out)?)
    }

    fn unwrap(&self, trust: &Trust, delivered: &Delivered<'_>) -> Result<ShareRecord, OpenError> {
        let (x, session) = (delivered.x, delivered.session);
        if self.provenance.header().index_of(&delivered.fingerprint) != Some(x) {
            return Err(OpenError::OtherCustodian { x });
        }
        let custodian = trust.any(&delivered.fingerprint)?;
        let record: Option<Secret<[u8; 64]>> = match (&custodian.seal, custodian.profile) {
            (SealKeys::Ecdh { transport, .. }, Profile::EcdhKw(kdf)) => {
                let context =
                    deliver_context(&custodian.id, session.id, session.keys.p256.public());
                WrappingKey::derive(&session.keys.p256, transport, kdf, &context)
                    .unwrap(delivered.wrapped)
            }
            (_, Profile::RsaOaep(hash)) => {
                let key = session.keys.rsa.as_ref().ok_or(OpenError::NoRsaKey { x })?;
                key.decrypt(hash, delivered.wrapped)
            }
            (SealKeys::Rsa { .. }, Profile::EcdhKw(_)) => None,
        };
        record
            .map(ShareRecord::from_secret)
            .ok_or(OpenError::Delivery { x })
    }
}
