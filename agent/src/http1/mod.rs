//! The HTTP/1.1 engine of the data path: strict where requests come in, exact where they go out, and without a body buffer in between.
//!
//! Own code because a general server hides what the gate must see (bare line feeds, absolute targets, a list of transfer codings) and keeps
//! the bytes of heads in its buffers. `httparse` splits the head; everything that decides is here. This room never holds a credential: heads
//! with a key in them are made and wiped in `inject`.

pub mod body;
pub mod fields;
pub mod head;
pub mod request;
pub mod response;
pub mod target;
pub mod upgrade;

pub use body::{Decoder, Encoder};
pub use fields::Fields;
pub use head::{Framing, Reject};
pub use request::RequestHead;
pub use response::ResponseHead;
pub use upgrade::Upgrade;

/// Longest head of a request or response. SDKs send under 2 KiB; nginx and hyper allow 8 to 16 KiB per line, and 32 KiB in all leaves room
/// for long `anthropic-beta` lists and tracing headers.
pub const HEAD_MAX_BYTES: usize = 32 * 1024;

/// Most header fields in a head, as in Apache and hyper.
pub const HEADERS_MAX: usize = 100;
