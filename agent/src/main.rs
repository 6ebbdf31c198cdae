//! tacit-agent.

fn main() {}
