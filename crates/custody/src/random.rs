//! Randomness comes in as an argument; this is the one that production passes.

use std::convert::Infallible;

use aws_lc_rs::rand::{SecureRandom, SystemRandom as Source};
use rand_core::{TryCryptoRng, TryRng};

/// The operating system's randomness through aws-lc (its CTR-DRBG, reseeded).
#[derive(Debug, Default)]
pub struct SystemRandom(Source);

impl SystemRandom {
    /// A handle on the system's source.
    pub fn new() -> Self {
        Self(Source::new())
    }
}

impl TryRng for SystemRandom {
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
        // aws-lc aborts the process itself when the system has no entropy; an error here has no other cause.
        self.0
            .fill(out)
            .expect("aws-lc's generator does not fail once it is seeded");
        Ok(())
    }
}

impl TryCryptoRng for SystemRandom {}
