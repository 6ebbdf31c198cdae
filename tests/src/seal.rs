//! Seals a key as an operator does, with a source of randomness that remembers.
//!
//! Only so can a story know the data key and the shares that it hunts in the daemon's memory: nothing
//! in Tacit ever returns them. What is derived here from the recording is checked against the signed
//! check values, so the hunt is surely for the real ones.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use custody::{FileSealer, SealRequest, ShareRecord, SystemRandom, Trust};
use rand_core::{TryCryptoRng, TryRng};
use secret::Secret;
use sharks::Sharks;

/// A sealed key and everything that must never be seen again.
pub struct Sealed {
    /// What `tacit key add --sealed` takes.
    pub armor: String,
    /// The data key.
    pub dek: Vec<u8>,
    /// The shares' values, in custodian order.
    pub shares: Vec<Vec<u8>>,
}

/// Seals `key` to the custodians of a trust file, for one upstream.
pub fn recorded(
    trust: &Path,
    sealer: &Path,
    id: &str,
    version: u32,
    provider: &str,
    upstream: &str,
    key: &[u8],
) -> anyhow::Result<Sealed> {
    let trust = Trust::parse(&std::fs::read(trust)?).context("the trust file")?;
    let sealer = load_sealer(sealer)?;
    let created_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let request = SealRequest {
        key_id: id.parse()?,
        version,
        generation: 1,
        provider: provider.to_owned(),
        upstreams: vec![upstream.parse()?],
        threshold: trust.threshold,
        custodians: trust.descriptors(),
        created_at,
        challenges: 0,
    };
    let mut random = Recording::default();
    let (sealed, _) = custody::seal(
        &request,
        &Secret::<[u8]>::new(key.into()),
        &sealer,
        &mut random,
    )?;
    let manifest = custody::Manifest::parse(&sealed.manifest)?;
    let dek = random
        .drawn
        .first()
        .context("the data key is drawn first")?
        .clone();
    ensure!(dek.len() == 32, "the first draw is a data key of 32 bytes");
    // Dealing follows the data key and the envelope's nonce; where exactly, the check values tell.
    for start in 1..random.drawn.len() {
        let shares = deal(
            &dek,
            trust.threshold,
            request.custodians.len(),
            random.drawn[start..].concat(),
        );
        let Some(shares) = shares else { continue };
        let right = shares
            .iter()
            .zip(1..)
            .zip(&manifest.entries)
            .all(|((share, x), entry)| {
                check_value(x, share, &manifest.header_hash)
                    .is_some_and(|check| check == entry.check)
            });
        if right {
            return Ok(Sealed {
                armor: sealed.to_armor(),
                dek,
                shares,
            });
        }
    }
    anyhow::bail!(
        "the shares cannot be derived from the recorded randomness: has custody::seal changed its order?"
    )
}

fn check_value(x: u8, share: &[u8], header_hash: &[u8; 32]) -> Option<custody::CheckValue> {
    let share: [u8; 32] = share.try_into().ok()?;
    Some(ShareRecord::new(x, &Secret::new(Box::new(share)), header_hash).check_value(header_hash))
}

/// The shares' values, when the replayed bytes suffice.
fn deal(dek: &[u8], threshold: u8, count: usize, bytes: Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let mut replay = Replay {
        bytes: bytes.into(),
        dry: false,
    };
    let dealer = Sharks(threshold).dealer_rng(dek, &mut replay);
    let shares = dealer
        .take(count)
        .map(|share| Vec::from(&share)[1..].to_vec())
        .collect();
    (!replay.dry).then_some(shares)
}

fn load_sealer(path: &Path) -> anyhow::Result<FileSealer> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let digits = text
        .trim()
        .rsplit(' ')
        .next()
        .context("a sealer file has a line")?;
    let seed: [u8; 32] = hex::decode(digits)?
        .try_into()
        .ok()
        .context("a seed has 32 bytes")?;
    Ok(FileSealer::from_seed(&Secret::new(Box::new(seed)))?)
}

/// The system's randomness, remembered draw by draw.
#[derive(Default)]
struct Recording {
    source: SystemRandom,
    drawn: Vec<Vec<u8>>,
}

impl TryRng for Recording {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.source.try_fill_bytes(out)?;
        self.drawn.push(out.to_vec());
        Ok(())
    }
}

impl TryCryptoRng for Recording {}

/// Gives recorded bytes, then ones and a mark that they ran dry: a wrong start must end, not fail.
struct Replay {
    bytes: VecDeque<u8>,
    dry: bool,
}

impl TryRng for Replay {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for byte in out {
            // One, not zero: rejection sampling of nonzero values must end.
            *byte = self.bytes.pop_front().unwrap_or_else(|| {
                self.dry = true;
                1
            });
        }
        Ok(())
    }
}

impl TryCryptoRng for Replay {}
