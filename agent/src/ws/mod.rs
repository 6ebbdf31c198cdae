//! WebSockets: Realtime and Responses of OpenAI, Live of Gemini, and whatever the providers' tables name.
//!
//! The gate lets in exactly RFC 6455's handshake ([`crate::http1::Upgrade`]); the pipeline leases, decides and binds as for any request; here
//! both handshakes are made ([`handshake`]) and messages relayed ([`relay`]), each of the app's judged before it goes on and each of the
//! provider's searched and metered ([`frames`]). This room must never pass a byte that was not a message: there is no tunnel, no extension,
//! and no compressed frame. WebSocket over HTTP/2 (RFC 8441) is not offered; clients open an HTTP/1.1 connection for it.

mod exchange;
pub mod frames;
pub mod handshake;
pub mod relay;
mod room;

pub use exchange::{Opening, Sockets};
pub use frames::Frames;
pub use handshake::Offer;
pub use relay::{Closed, Ending, Hooks, Side};
