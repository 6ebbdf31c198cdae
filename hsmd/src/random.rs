//! Randomness from the kernel itself, for what draws little of it: nonces of rows, the store's key, ids. aws-lc's generator
//! first seeds itself from CPU jitter, 27 ms of every start.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

/// `getrandom(2)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelRandom;

impl TryRng for KernelRandom {
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
        getrandom::fill(out).expect("Linux has getrandom, and waits until it is seeded");
        Ok(())
    }
}

impl TryCryptoRng for KernelRandom {}
