//! What a computation with secrets leaves on its own stack.
//!
//! Ciphers work on blocks in local variables, and no library wipes them all: AES-256-GCM-SIV leaves 16 bytes of plaintext here and there.
//! They lie below the caller's frame until something happens to be written over them, which on a thread that mostly waits can take long.

use zeroize::Zeroize as _;

/// Deeper than any call from the opening of a lease down; a page more or less costs nothing.
const DEPTH_BYTES: usize = 32 * 1024;

/// Overwrites what calls of the caller have left below its frame. To be called from the function that made those calls, after them.
#[inline(never)]
pub fn wipe_below() {
    let mut below = [0u8; DEPTH_BYTES];
    // Written in a way that the optimiser may not leave out, and then looked at, so that the array is really there.
    below.zeroize();
    std::hint::black_box(&below);
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    /// Deeper than what reading the file below needs of the stack by itself.
    const LEFT_BYTES: usize = 24 * 1024;

    /// Where, at its deep end.
    #[inline(never)]
    fn leave_something() -> u64 {
        let local = [0x5a_u8; LEFT_BYTES];
        std::hint::black_box(&local).as_ptr() as u64
    }

    #[test]
    fn what_a_call_has_left_is_there_until_it_is_wiped() -> std::io::Result<()> {
        let memory = File::open("/proc/self/mem")?;
        let mut found = [0; 64];
        let place = leave_something();
        memory.read_exact_at(&mut found, place)?;
        assert_eq!(found, [0x5a; 64], "it is left, and can be seen");
        wipe_below();
        memory.read_exact_at(&mut found, place)?;
        assert_eq!(found, [0; 64]);
        Ok(())
    }
}
