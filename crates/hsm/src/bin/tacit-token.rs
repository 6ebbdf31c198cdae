//! The token process: one custodian, one PKCS#11 module, one protocol.
fn main() {}
