//! The gRPC contract of the two sockets (package `tacit.v1`) and its generated code, never edited by hand.
//!
//! The `.proto` files are the documentation of each rpc and field. Messages that carry ciphertext of shares or sealed
//! keys have a [`std::fmt::Debug`] that prints their name alone.
#![forbid(unsafe_code)]

/// Generated from `tacit/v1/*.proto`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("tacit.v1");
}

/// Largest message of either socket, in bytes: a sealed key of sixteen `rsa-oaep` shares is under 12 KiB.
pub const MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// Metadata key that every call must carry, with the value [`CLIENT_VALUE`]: a web client that was tricked into
/// talking to the socket cannot add it.
pub const CLIENT_KEY: &str = "tacit-client";

/// The value of [`CLIENT_KEY`].
pub const CLIENT_VALUE: &str = "1";

/// Metadata key under which a refusal carries its stable code (`key_revoked`, `upstream_not_allowed`, …).
pub const ERROR_KEY: &str = "tacit-error";

/// Version of the session layer that this build speaks.
pub const SESSION_PROTOCOL: u32 = 1;

macro_rules! prints_name_only {
    ($($message:ident),+ $(,)?) => {$(
        impl std::fmt::Debug for v1::$message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($message), "(redacted)"))
            }
        }
    )+};
}

prints_name_only!(
    AddKeyRequest,
    BackupChunk,
    Delivery,
    LeaseResponse,
    OpenSessionRequest,
    RotateKeyRequest,
    VerifyKeyResponse
);
