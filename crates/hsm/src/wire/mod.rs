//! The token process's protocol: frames, requests and answers, nothing else.
//!
//! A frame is `u32 length ‖ u64 request id ‖ u8 verb ‖ fields`, at most 64 KiB, big-endian, canonical: every value has one
//! encoding and trailing bytes are an error. Requests are pipelined; answers carry the id and may be matched in any order.
//! Both sides parse without panics and without allocating by a number that the other chose. Shares, keys and PINs have no
//! field here: what travels is ciphertext, public keys, MACs and names.

mod answer;
mod codec;
mod request;

pub use answer::{Answer, Hello, Ingested, State, parse_answer, write_answer};
pub use request::{Ingest, Request, Revoked, ShareRow, parse_request, write_request};

/// The protocol's version, exchanged in `Hello`.
pub const VERSION: u32 = 3;

/// Longest frame, without its length field. The largest message is a state with its revoked set; a header is below 8 KiB.
pub const FRAME_MAX: usize = 64 * 1024;

/// Length of the length field.
const PREFIX: usize = 4;

/// A frame that breaks the protocol. The connection cannot go on after one, since the peer is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than [`FRAME_MAX`].
    #[error("the frame is longer than {FRAME_MAX} bytes")]
    TooLong,
    /// It ends inside a field.
    #[error("the frame ends inside a field")]
    Truncated,
    /// Bytes follow the last field.
    #[error("bytes follow the last field")]
    Trailing,
    /// No such verb.
    #[error("unknown verb")]
    Verb,
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A name outside the rule for ids.
    #[error("a name must be 1 to 128 of the characters A-Z a-z 0-9 _ - .")]
    Name,
    /// A flag that is neither 0 nor 1.
    #[error("a flag is neither 0 nor 1")]
    Flag,
    /// A list that is not in strictly rising order.
    #[error("a list is not in strictly rising order")]
    Order,
    /// An error class that this version does not know.
    #[error("unknown error class")]
    Class,
}

/// One frame at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The id that the answer repeats.
    pub id: u64,
    /// Verb and fields.
    pub body: &'a [u8],
    /// How many bytes of the buffer the frame took, its length field included.
    pub taken: usize,
}

/// The frame at the front of `buffer`, or `None` when more bytes are needed.
///
/// # Errors
/// A length beyond [`FRAME_MAX`], or too short to hold an id and a verb: such a stream cannot be resynchronised.
pub fn parse_frame(buffer: &[u8]) -> Result<Option<Frame<'_>>, WireError> {
    let Some((length, rest)) = buffer.split_first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| WireError::TooLong)?;
    if length > FRAME_MAX {
        return Err(WireError::TooLong);
    }
    if length < 9 {
        return Err(WireError::Truncated);
    }
    let Some(frame) = rest.get(..length) else {
        return Ok(None);
    };
    let mut reader = codec::Reader::new(frame);
    let id = reader.u64()?;
    Ok(Some(Frame {
        id,
        body: &frame[8..],
        taken: PREFIX + length,
    }))
}

/// Appends a frame whose body `fill` writes; on a body over the bound nothing is appended.
fn write_frame(
    out: &mut Vec<u8>,
    id: u64,
    fill: impl FnOnce(&mut codec::Writer<'_>),
) -> Result<(), WireError> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let mut writer = codec::Writer(out);
    writer.u64(id);
    fill(&mut writer);
    let length = out.len() - start - PREFIX;
    if length > FRAME_MAX {
        out.truncate(start);
        return Err(WireError::TooLong);
    }
    let prefix = u32::try_from(length).map_err(|_| WireError::TooLong)?;
    out[start..start + PREFIX].copy_from_slice(&prefix.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests;
