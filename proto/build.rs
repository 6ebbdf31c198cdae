//! Compiles `tacit/v1/*.proto` with protox, a protobuf compiler in Rust, so that no `protoc` needs to be installed.

use std::error::Error;

/// Messages whose fields hold ciphertext of shares, sealed keys or the store, or a bearer token: they get no `Debug`, so that no log line, no
/// `tonic::Request` and no test failure prints them.
const UNPRINTABLE: &[&str] = &[
    "tacit.v1.AddKeyRequest",
    "tacit.v1.BackupChunk",
    "tacit.v1.Delivery",
    "tacit.v1.LeaseResponse",
    "tacit.v1.OpenSessionRequest",
    "tacit.v1.RotateKeyRequest",
    "tacit.v1.VerifyKeyResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "tacit/v1/terms.proto",
        "tacit/v1/workload.proto",
        "tacit/v1/admin.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure()
        .skip_debug(UNPRINTABLE)
        .compile_fds(descriptors)?;
    Ok(())
}
