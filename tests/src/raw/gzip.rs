//! Just enough gzip for a hostile upstream: a member with the bytes as they are, and a bomb.

/// `bytes` in stored blocks.
pub fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    let mut blocks = bytes.chunks(0xffff).peekable();
    if blocks.peek().is_none() {
        out.extend([1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("blocks are at most 65535 bytes");
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    trailer(&mut out, bytes.iter().copied(), bytes.len());
    out
}

/// A few hundred kilobytes that become `1 + 258 × repeats` zeros: one literal, then matches of the greatest length.
pub fn bomb(repeats: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    // Last block, fixed codes; the literal 0 has code 00110000.
    bits.push(0b1, 1);
    bits.push(0b01, 2);
    bits.code(0b0011_0000, 8);
    for _ in 0..repeats {
        // Length 258 has code 11000101, distance 1 has code 00000.
        bits.code(0b1100_0101, 8);
        bits.code(0, 5);
    }
    bits.code(0, 7);
    let mut out = HEADER.to_vec();
    out.extend(bits.finish());
    let length = 1 + 258 * repeats;
    trailer(&mut out, std::iter::repeat_n(0, length), length);
    out
}

const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

fn trailer(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>, length: usize) {
    out.extend(crc(bytes).to_le_bytes());
    // The format keeps the length modulo 2^32.
    out.extend((length as u32).to_le_bytes());
}

/// CRC-32 of IEEE 802.3.
fn crc(bytes: impl Iterator<Item = u8>) -> u32 {
    let table: Vec<u32> = (0..256)
        .map(|byte: u32| {
            (0..8).fold(byte, |sum, _| {
                if sum & 1 == 1 {
                    sum >> 1 ^ 0xedb8_8320
                } else {
                    sum >> 1
                }
            })
        })
        .collect();
    !bytes.fold(!0, |sum, byte| {
        table[usize::from((sum as u8) ^ byte)] ^ sum >> 8
    })
}

#[derive(Default)]
struct Bits {
    out: Vec<u8>,
    byte: u32,
    used: u32,
}

impl Bits {
    /// Least significant bit first.
    fn push(&mut self, bits: u32, count: u32) {
        self.byte |= bits << self.used;
        self.used += count;
        while self.used >= 8 {
            self.out.push(self.byte as u8);
            self.byte >>= 8;
            self.used -= 8;
        }
    }

    /// A Huffman code: most significant bit first.
    fn code(&mut self, code: u32, count: u32) {
        self.push(code.reverse_bits() >> (32 - count), count);
    }

    fn finish(mut self) -> Vec<u8> {
        self.push(0, 7);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_checksum_is_the_one_that_everybody_computes() {
        assert_eq!(crc(b"123456789".iter().copied()), 0xcbf4_3926);
    }

    #[test]
    fn a_real_gzip_reads_what_is_made_here() {
        for (made, length) in [
            (stored(b""), 0),
            (stored(&[b'a'; 70_000]), 70_000),
            (bomb(4_000), 1 + 258 * 4_000),
        ] {
            let mut gzip = Command::new("gzip")
                .arg("-dc")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("gzip is part of every system");
            let mut stdin = gzip.stdin.take().expect("it is piped");
            let writer = std::thread::spawn(move || stdin.write_all(&made));
            let output = gzip.wait_with_output().expect("gzip ends");
            writer
                .join()
                .expect("no panic")
                .expect("gzip takes all of it");
            assert!(output.status.success());
            assert_eq!(output.stdout.len(), length);
        }
    }
}
