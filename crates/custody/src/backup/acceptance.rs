//! The word of an operator that a backup may be restored: which one, over what, signed by a pinned sealer.

use crate::CUSTODIANS_MAX;
use crate::codec::{FormatError, Reader, Writer};
use crate::descriptor::Fingerprint;
use crate::sealer::{Sealer, SealerKey};
use crate::trust::Trust;

const ACCEPTANCE: &str = "acceptance of a restore";
const ACCEPTANCE_MAGIC: [u8; 4] = *b"TCRA";
const ACCEPTED: &str = "signed acceptance";
const ACCEPTED_MAGIC: [u8; 4] = *b"TCRS";
const FORMAT: u8 = 1;
const DOMAIN: &str = "tacit/restore/v1";

/// Longest acceptance.
pub const ACCEPTANCE_MAX_BYTES: usize = 4096;

/// That a backup may be restored although tokens remember something else: what, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The backup: hash of its manifest.
    pub backup: [u8; 32],
    /// Its revision.
    pub revision: u64,
    /// What each token remembered when this was written, by rising fingerprint: revision and digest. A token that has
    /// moved on since makes the acceptance void, so that it is good for one restore.
    pub remembered: Vec<(Fingerprint, u64, [u8; 32])>,
    /// Unix seconds.
    pub made_at: u64,
}

impl Acceptance {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(ACCEPTANCE_MAGIC, FORMAT);
        out.fixed(&self.backup).u64(self.revision);
        out.u8(u8::try_from(self.remembered.len()).expect("at most CUSTODIANS_MAX"));
        for (custodian, revision, digest) in &self.remembered {
            out.fixed(custodian.as_bytes()).u64(*revision).fixed(digest);
        }
        out.u64(self.made_at).finish()
    }

    /// Parses strictly.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(ACCEPTANCE, ACCEPTANCE_MAGIC, FORMAT, bytes)?;
        let (backup, revision) = (from.array()?, from.u64()?);
        let count = from.u8()?;
        if count > CUSTODIANS_MAX {
            return Err(from.field("tokens", "are more than 16"));
        }
        let mut remembered: Vec<(Fingerprint, u64, [u8; 32])> = Vec::new();
        for _ in 0..count {
            let one = (Fingerprint::new(from.array()?), from.u64()?, from.array()?);
            let last = remembered.last().map(|(last, _, _)| last.as_bytes());
            if last.is_some_and(|last| last >= one.0.as_bytes()) {
                return Err(from.field("tokens", "are not sorted, or one is there twice"));
            }
            remembered.push(one);
        }
        let made_at = from.u64()?;
        from.end()?;
        Ok(Self {
            backup,
            revision,
            remembered,
            made_at,
        })
    }

    /// What a sealer signs.
    fn message(&self) -> Vec<u8> {
        Writer::domain(DOMAIN).bytes(&self.encode()).finish()
    }

    /// Signs it.
    ///
    /// # Errors
    /// What the holder of the sealer's key said.
    pub fn sign(self, sealer: &dyn Sealer) -> Result<Accepted, String> {
        let signature = sealer.sign(&self.message())?;
        Ok(Accepted {
            acceptance: self,
            sealer: sealer.public(),
            signature,
        })
    }
}

/// An acceptance with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What is accepted.
    pub acceptance: Acceptance,
    /// By whom.
    pub sealer: SealerKey,
    signature: [u8; 64],
}

impl Accepted {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        Writer::new(ACCEPTED_MAGIC, FORMAT)
            .bytes(&self.acceptance.encode())
            .fixed(self.sealer.as_bytes())
            .fixed(&self.signature)
            .finish()
    }

    /// Parses strictly; see [`Accepted::by`] for whether to believe it.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut from = Reader::new(ACCEPTED, ACCEPTED_MAGIC, FORMAT, bytes)?;
        let accepted = Self {
            acceptance: Acceptance::parse(from.bytes("acceptance", ACCEPTANCE_MAX_BYTES)?)?,
            sealer: SealerKey::new(from.array()?),
            signature: from.array()?,
        };
        from.end()?;
        Ok(accepted)
    }

    /// The name of the sealer who signed it, if the trust file knows him and the signature is his.
    pub fn by<'a>(&self, trust: &'a Trust) -> Option<&'a str> {
        let name = trust.sealer_name(&self.sealer)?;
        let message = self.acceptance.message();
        self.sealer
            .verify(&message, &self.signature)
            .then_some(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::trust::PinnedSealer;
    use crate::{FileSealer, SystemRandom};

    #[test]
    fn an_acceptance_is_good_for_what_it_says_and_under_a_pinned_sealer_alone() {
        let seed = FileSealer::generate_seed(&mut SystemRandom::new());
        let sealer = FileSealer::from_seed(&seed).unwrap();
        let acceptance = Acceptance {
            backup: [1; 32],
            revision: 7,
            remembered: vec![(Fingerprint::new([2; 32]), 9, [3; 32])],
            made_at: 5,
        };
        let accepted = acceptance.clone().sign(&sealer).unwrap();
        assert_eq!(Accepted::parse(&accepted.encode()), Ok(accepted.clone()));
        let mut trust = Trust {
            threshold: 2,
            custodians: Vec::new(),
            sealers: Vec::new(),
        };
        assert_eq!(accepted.by(&trust), None, "not pinned");
        trust.sealers.push(PinnedSealer {
            name: "ops".into(),
            key: sealer.public(),
        });
        assert_eq!(accepted.by(&trust), Some("ops"));
        let mut other = accepted;
        other.acceptance.revision = 8;
        assert_eq!(other.by(&trust), None, "he signed another one");
    }
}
