//! Arithmetic in GF(2^8) without tables and without branches on secret values.
//!
//! The field is that of `sharks`: reduction polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d). Table lookups indexed by
//! share bytes have leaked through caches in a peer (CVE-2023-25000), and agents share cores with hostile apps.

/// The reduction polynomial without its leading term.
const REDUCE: u8 = 0x1d;

/// Product of `a` and `b`; constant time in both.
pub fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0u8;
    for _ in 0..8 {
        product ^= a & 0u8.wrapping_sub(b & 1);
        let carry = 0u8.wrapping_sub(a >> 7);
        a = (a << 1) ^ (REDUCE & carry);
        b >>= 1;
    }
    product
}

/// Multiplicative inverse of `a` (a^254); 0 for 0. Constant time.
pub fn invert(a: u8) -> u8 {
    // 254 = 0b1111_1110: the product of a^2, a^4, …, a^128.
    let mut power = a;
    let mut inverse = 1;
    for _ in 0..7 {
        power = multiply(power, power);
        inverse = multiply(inverse, power);
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Schoolbook multiplication, independent of the code above: carry-less product, then long division.
    fn slow_multiply(a: u8, b: u8) -> u8 {
        let mut wide = 0u16;
        for bit in 0..8 {
            if b & (1 << bit) != 0 {
                wide ^= u16::from(a) << bit;
            }
        }
        for bit in (8..16).rev() {
            if wide & (1 << bit) != 0 {
                wide ^= 0x11d << (bit - 8);
            }
        }
        u8::try_from(wide).expect("reduced below 2^8")
    }

    #[test]
    fn multiplies_as_long_division_does_for_all_pairs() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), slow_multiply(a, b), "{a} * {b}");
            }
        }
    }

    #[test]
    fn every_element_but_zero_has_its_inverse() {
        assert_eq!(invert(0), 0);
        for a in 1..=255 {
            assert_eq!(multiply(a, invert(a)), 1, "{a}");
        }
    }
}
