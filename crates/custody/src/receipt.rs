//! The operator's receipt: one-time challenges with their answers, kept away from the daemon.
//!
//! Check values alone can be replayed by a daemon that lost the shares. A challenge of the receipt was never seen by
//! it, so a right answer comes from something that still holds the share. Each is spent once.

use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::CUSTODIANS_MAX;
use crate::codec::FormatError;
use crate::header::Header;
use crate::names::KeyId;
use crate::share::{ShareRecord, answer_message};

const FORMAT: &str = "tacit-receipt/v1";

/// The file that sealing writes beside the sealed key (mode 0600).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    format: String,
    /// Which key.
    pub key_id: String,
    /// Which version.
    pub version: u32,
    /// SHA-256 of the header, hex.
    pub header_sha256: String,
    /// One list per custodian, in x order.
    pub custodians: Vec<CustodianReceipt>,
}

/// The challenges for one custodian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustodianReceipt {
    /// Fingerprint of its descriptor, hex.
    pub fingerprint: String,
    /// Challenges not spent yet, with their answers.
    pub challenges: Vec<Challenge>,
}

/// A question that only a holder of the share can answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// 32 random bytes, hex.
    pub challenge: String,
    /// HMAC-SHA-256 under the share record, hex.
    pub answer: String,
}

impl std::fmt::Debug for Challenge {
    /// Without the answer: a daemon that finds it in a log could give it without holding the share.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenge")
            .field("challenge", &self.challenge)
            .finish_non_exhaustive()
    }
}

impl Receipt {
    pub(crate) fn new(
        header: &Header,
        header_hash: &[u8; 32],
        records: &[ShareRecord],
        challenges: usize,
        random: &mut impl CryptoRng,
    ) -> Self {
        let custodians = header
            .custodians
            .iter()
            .zip(records)
            .map(|(fingerprint, record)| {
                let challenges = (0..challenges).map(|_| {
                    let mut challenge = [0; 32];
                    random.fill_bytes(&mut challenge);
                    let answer = record.hmac(&answer_message(header_hash, &challenge));
                    Challenge {
                        challenge: hex::encode(challenge),
                        answer: hex::encode(answer),
                    }
                });
                CustodianReceipt {
                    fingerprint: format!("{fingerprint:?}"),
                    challenges: challenges.collect(),
                }
            });
        Self {
            format: FORMAT.to_owned(),
            key_id: header.key_id.to_string(),
            version: header.version,
            header_sha256: hex::encode(header_hash),
            custodians: custodians.collect(),
        }
    }

    /// Parses the JSON form.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let refuse = |rule| FormatError::Field {
            what: "receipt",
            field: "file",
            rule,
        };
        let receipt: Self =
            serde_json::from_slice(bytes).map_err(|_| refuse("is not the JSON of a receipt"))?;
        if receipt.format != FORMAT {
            return Err(refuse("is of a format that this build does not read"));
        }
        let is_hex32 = |text: &str| hex::decode_to_slice(text, &mut [0; 32]).is_ok();
        if receipt.key_id.parse::<KeyId>().is_err() || receipt.version == 0 {
            return Err(refuse("names no key version"));
        }
        if receipt.custodians.is_empty() || receipt.custodians.len() > CUSTODIANS_MAX.into() {
            return Err(refuse("names no custodian, or more than 16"));
        }
        let challenges = receipt.custodians.iter().flat_map(|one| &one.challenges);
        let values = challenges.flat_map(|one| [&one.challenge, &one.answer]);
        let prints = receipt.custodians.iter().map(|one| &one.fingerprint);
        if !values
            .chain(prints)
            .chain([&receipt.header_sha256])
            .all(|digits| is_hex32(digits))
        {
            return Err(refuse("has a value that is not 64 hex digits"));
        }
        Ok(receipt)
    }

    /// The JSON form, for a file of mode 0600.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers always serialise") + "\n"
    }

    /// Takes one unspent challenge per custodian out of the receipt, in x order. The caller writes the receipt back
    /// *before* it sends them: a challenge that was seen once proves nothing a second time.
    pub fn spend(&mut self) -> Option<Vec<Challenge>> {
        // None of none would be an empty list of questions, and every daemon answers that rightly.
        if self.remaining() == 0 {
            return None;
        }
        self.custodians
            .iter_mut()
            .map(|custodian| custodian.challenges.pop())
            .collect()
    }

    /// How many times the receipt can still be used.
    pub fn remaining(&self) -> usize {
        self.custodians
            .iter()
            .map(|custodian| custodian.challenges.len())
            .min()
            .unwrap_or(0)
    }
}
