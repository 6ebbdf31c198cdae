//! A stream of bytes that is the same in every run; not random at all.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

/// A linear congruential generator.
pub struct Stream(u64);

impl Stream {
    /// The stream of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Ok((self.0 >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from(self.try_next_u32()?) << 32 | u64::from(self.try_next_u32()?))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for byte in out {
            *byte = self.try_next_u32()?.to_be_bytes()[0];
        }
        Ok(())
    }
}

impl TryCryptoRng for Stream {}
