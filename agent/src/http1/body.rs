//! Bodies in passing: decoded strictly from one side, encoded anew for the other, never collected.
//!
//! A body that breaks off or breaks the rules is never made to look complete: the encoder's end mark is written only when the decoder has
//! seen a proper end. Trailers are dropped in both directions, since a trailer may be named `authorization`.

use std::io::Write as _;

use super::Framing;

/// Bytes of chunk-size line (with extensions) and of all trailers that are tolerated; nobody needs either.
const CHUNK_LINE_MAX: usize = 256;
const TRAILERS_MAX: usize = 8 * 1024;

/// Reads a body as framed by the sender.
#[derive(Debug)]
pub enum Decoder {
    /// A known number of bytes is left.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// Whatever comes until the end of the connection.
    UntilClose,
}

/// A body that breaks its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed")]
pub struct Malformed;

/// Where in a chunked body we are.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    /// Bytes of the current line or trailer section, to bound them.
    line: usize,
}

#[derive(Debug, PartialEq)]
enum State {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

impl Decoder {
    /// A decoder for `framing`.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks {
                state: State::Size {
                    value: 0,
                    digits: 0,
                },
                line: 0,
            }),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// The body is complete.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.state == State::Done,
            Self::UntilClose => false,
        }
    }

    /// Whether the end of the connection here is the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// Takes what it can from `input`, hands content to `content`, and returns how many bytes it took: all, unless the body ended.
    pub fn decode(
        &mut self,
        input: &[u8],
        mut content: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        match self {
            Self::Length(left) => {
                let take = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                content(&input[..take]);
                *left -= take as u64;
                Ok(take)
            }
            Self::Chunked(chunks) => chunks.decode(input, content),
            Self::UntilClose => {
                content(input);
                Ok(input.len())
            }
        }
    }
}

impl Chunks {
    fn decode(&mut self, input: &[u8], mut content: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let take = usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(input.len() - at);
                content(&input[at..at + take]);
                at += take;
                let left = left - take as u64;
                self.state = if left == 0 {
                    State::DataCr
                } else {
                    State::Data { left }
                };
                continue;
            }
            self.state = self.step(input[at])?;
            at += 1;
        }
        Ok(at)
    }

    /// One byte that is not content.
    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line += 1;
        let in_trailers = matches!(
            self.state,
            State::TrailerStart | State::Trailer | State::TrailerLf | State::EndLf
        );
        if self.line
            > if in_trailers {
                TRAILERS_MAX
            } else {
                CHUNK_LINE_MAX
            }
        {
            return Err(Malformed);
        }
        Ok(match (&self.state, byte) {
            // Fifteen digits: no chunk is larger, and nothing overflows.
            (
                State::Size {
                    value,
                    digits: digits @ 0..15,
                },
                byte,
            ) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                State::Size {
                    value: value << 4 | digit,
                    digits: digits + 1,
                }
            }
            (State::Size { value, digits: 1.. }, b'\r') => State::SizeLf { value: *value },
            (State::Size { value, digits: 1.. }, b';') => State::Extension { value: *value },
            (State::Extension { value }, b'\r') => State::SizeLf { value: *value },
            (State::Extension { value }, b'\t' | 0x20..=0x7e) => State::Extension { value: *value },
            (State::SizeLf { value: 0 }, b'\n') => {
                self.line = 0;
                State::TrailerStart
            }
            (State::SizeLf { value }, b'\n') => {
                self.line = 0;
                State::Data { left: *value }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.line = 0;
                State::Size {
                    value: 0,
                    digits: 0,
                }
            }
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::Trailer, b'\t' | 0x20..=0x7e | 0x80..) => State::Trailer,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(Malformed),
        })
    }
}

/// Writes a body with the framing that the receiver was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// As it is: by length, or until the connection ends.
    Plain,
    /// In chunks, one for each piece that arrived.
    Chunked,
}

impl Encoder {
    /// Appends one piece of content.
    pub fn piece(self, content: &[u8], out: &mut Vec<u8>) {
        if content.is_empty() {
            // An empty chunk would be the end mark.
            return;
        }
        match self {
            Self::Plain => out.extend_from_slice(content),
            Self::Chunked => {
                // Writing to a Vec does not fail.
                let _ = write!(out, "{:x}\r\n", content.len());
                out.extend_from_slice(content);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Appends the end mark.
    pub fn end(self, out: &mut Vec<u8>) {
        match self {
            Self::Plain => {}
            Self::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let mut decoder = Decoder::new(Framing::Chunked);
        let (mut out, mut taken) = (Vec::new(), 0);
        for piece in input.chunks(step) {
            let n = decoder.decode(piece, |content| out.extend_from_slice(content))?;
            taken += n;
            if n < piece.len() {
                break;
            }
        }
        Ok((out, taken, decoder.is_done()))
    }

    #[test]
    fn chunks_come_out_whole_however_they_are_cut() {
        let input = b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nauthorization: x\r\n\r\nGET";
        for step in 1..input.len() {
            assert_eq!(
                decode(input, step).unwrap(),
                (b"hello world".to_vec(), input.len() - 3, true)
            );
        }
    }

    #[test]
    fn malformed_chunks_are_refused_and_are_never_done() {
        for input in [
            &b"\r\n"[..],
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b"0x5\r\nhello",
            b"5\nhello",
            b"5 \r\nhello",
            b"5;a\nb\r\nhello",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"ffffffffffffffff\r\n",
            b"0\r\nx: y\n\r\n",
            b"0\r\n\n",
        ] {
            assert_eq!(decode(input, 1), Err(Malformed), "{input:?}");
        }
        let long = [b"5;".as_slice(), &[b'a'; 300]].concat();
        assert_eq!(decode(&long, 7), Err(Malformed));
        assert!(!decode(b"5\r\nhel", 2).unwrap().2);
    }

    #[test]
    fn a_length_takes_no_byte_of_the_next_request() {
        let mut decoder = Decoder::new(Framing::Length(3));
        let mut out = Vec::new();
        assert_eq!(
            decoder.decode(b"abcdef", |content| out.extend_from_slice(content)),
            Ok(3)
        );
        assert!(decoder.is_done() && out == b"abc");
        assert!(Decoder::new(Framing::None).is_done());
    }

    #[test]
    fn what_the_encoder_writes_the_decoder_reads() {
        let mut wire = Vec::new();
        for piece in [&b"a"[..], b"", b"bcd"] {
            Encoder::Chunked.piece(piece, &mut wire);
        }
        Encoder::Chunked.end(&mut wire);
        assert_eq!(
            decode(&wire, 4).unwrap(),
            (b"abcd".to_vec(), wire.len(), true)
        );
    }
}
