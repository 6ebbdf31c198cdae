//! Bodies that an upstream compressed although it was asked not to: decoded, so that the echo guard sees what the app would read.
//!
//! Nothing passes here that was not decoded to the last bit: a coding that we do not read, a broken or unfinished stream, bytes behind its
//! end and a bomb are faults, and the response is cut. The output comes in slices of bounded size, each overwritten by the next; they and the
//! decoder's window are wiped at the end, since the key may have been in them.

use flate2::{Decompress, FlushDecompress, Status};
use zeroize::Zeroizing;

mod gzip;
#[cfg(test)]
mod tests;

/// Most bytes of output at once.
pub const SLICE: usize = 8 * 1024;

/// Output that is never too much, however little the input was.
const EXPANSION_FREE: u64 = 1024 * 1024;
/// Bytes of output for each byte of input beyond that. JSON and event streams reach 20, deflate can do 1,032.
const EXPANSION_MAX: u64 = 200;
/// Output of one body in all. The largest files that a provider hands out have 512 MiB.
const TOTAL_MAX: u64 = 1024 * 1024 * 1024;

/// The body has a content coding that cannot be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the content coding is neither gzip nor deflate")]
pub struct Unreadable;

/// What is wrong with a compressed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeFault {
    /// It grows beyond what an honest answer can.
    #[error("the body expands too much")]
    Bomb,
    /// It is not what its coding promises, or its checksum is wrong.
    #[error("the compressed body is corrupt")]
    Corrupt,
    /// Something follows its end.
    #[error("something follows the compressed body")]
    Trailing,
    /// It breaks off.
    #[error("the compressed body is incomplete")]
    Truncated,
}

/// Decodes one body as it comes.
pub struct Decoding {
    stage: Stage,
    /// Set for gzip, whose frame is ours to read.
    frame: Option<gzip::Check>,
    inflate: Decompress,
    slice: Zeroizing<Box<[u8]>>,
    taken: u64,
    made: u64,
}

enum Stage {
    /// Whether `deflate` is in its zlib wrapping, as specified, or without, as some servers send it: two bytes tell.
    Guess(Option<u8>),
    GzipHead(gzip::Head),
    Deflated,
    GzipTrailer(gzip::Trailer),
    Done,
}

impl Decoding {
    /// How to read a body whose `Content-Encoding` is this; `None` if it needs no decoding.
    ///
    /// # Errors
    /// Every coding but gzip and deflate, and every list of codings.
    pub fn new(content_encoding: &[u8]) -> Result<Option<Self>, Unreadable> {
        let name = content_encoding.trim_ascii().to_ascii_lowercase();
        let (stage, frame) = match name.as_slice() {
            b"" | b"identity" => return Ok(None),
            b"gzip" | b"x-gzip" => (
                Stage::GzipHead(gzip::Head::default()),
                Some(gzip::Check::default()),
            ),
            b"deflate" => (Stage::Guess(None), None),
            _ => return Err(Unreadable),
        };
        Ok(Some(Self {
            stage,
            frame,
            inflate: Decompress::new(false),
            slice: Zeroizing::new(vec![0; SLICE].into_boxed_slice()),
            taken: 0,
            made: 0,
        }))
    }

    /// Takes a piece and hands what it decodes to `content`, at most [`SLICE`] bytes at once.
    ///
    /// # Errors
    /// The body must be given up: what was handed out may be shown, nothing after it.
    pub fn feed(
        &mut self,
        piece: &[u8],
        mut content: impl FnMut(&[u8]),
    ) -> Result<(), DecodeFault> {
        let mut rest = piece;
        while let Some((&first, others)) = rest.split_first() {
            match &mut self.stage {
                Stage::Deflated => {
                    rest = self.inflate(rest, &mut content)?;
                    continue;
                }
                Stage::Guess(None) => self.stage = Stage::Guess(Some(first)),
                Stage::Guess(Some(before)) => {
                    let before = *before;
                    self.inflate = Decompress::new(is_zlib(before, first));
                    self.stage = Stage::Deflated;
                    self.inflate(&[before], &mut content)?;
                    continue;
                }
                Stage::GzipHead(head) => {
                    if head.take(first)? {
                        self.stage = Stage::Deflated;
                    }
                }
                Stage::GzipTrailer(trailer) => {
                    if let Some(trailer) = trailer.take(first) {
                        let check = self.frame.replace(gzip::Check::default());
                        check.ok_or(DecodeFault::Corrupt)?.compare(trailer)?;
                        // Another member may follow, and is read like the first.
                        self.inflate.reset(false);
                        self.stage = Stage::GzipHead(gzip::Head::default());
                    }
                }
                Stage::Done => return Err(DecodeFault::Trailing),
            }
            self.taken += 1;
            rest = others;
        }
        Ok(())
    }

    /// The body has ended.
    ///
    /// # Errors
    /// It was not complete.
    pub fn finish(&self) -> Result<(), DecodeFault> {
        let complete = match &self.stage {
            Stage::Done => true,
            // Between two members. Before the first, too: servers name a coding for a body that they then leave empty.
            Stage::GzipHead(head) => head.is_untouched(),
            Stage::Guess(seen) => seen.is_none(),
            Stage::Deflated | Stage::GzipTrailer(_) => false,
        };
        if complete {
            Ok(())
        } else {
            Err(DecodeFault::Truncated)
        }
    }

    /// Decodes what it can of `input`, and returns what follows the end of the stream.
    fn inflate<'i>(
        &mut self,
        input: &'i [u8],
        content: &mut impl FnMut(&[u8]),
    ) -> Result<&'i [u8], DecodeFault> {
        let mut rest = input;
        loop {
            let (taken, made) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(rest, &mut self.slice, FlushDecompress::None)
                .map_err(|_| DecodeFault::Corrupt)?;
            let taken = (self.inflate.total_in() - taken) as usize;
            let made = (self.inflate.total_out() - made) as usize;
            self.taken += taken as u64;
            self.made += made as u64;
            if self.made > TOTAL_MAX || self.made > EXPANSION_FREE + EXPANSION_MAX * self.taken {
                return Err(DecodeFault::Bomb);
            }
            let slice = &self.slice[..made];
            if let Some(check) = &mut self.frame {
                check.add(slice);
            }
            if !slice.is_empty() {
                content(slice);
            }
            rest = &rest[taken..];
            if status == Status::StreamEnd {
                self.stage = match self.frame {
                    Some(_) => Stage::GzipTrailer(gzip::Trailer::default()),
                    None => Stage::Done,
                };
                return Ok(rest);
            }
            if made < SLICE && rest.is_empty() {
                return Ok(rest);
            }
            if made == 0 && taken == 0 {
                return Err(DecodeFault::Corrupt);
            }
        }
    }
}

/// RFC 1950, section 2.2: the method, the window, and a check over the two bytes.
fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

impl Drop for Decoding {
    /// A reset clears the window; looked at afterwards, it is not optimised away.
    fn drop(&mut self) {
        self.inflate.reset(false);
        std::hint::black_box(&mut self.inflate);
    }
}

impl std::fmt::Debug for Decoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoding")
            .field("taken", &self.taken)
            .field("made", &self.made)
            .finish_non_exhaustive()
    }
}
