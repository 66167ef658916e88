//! The engineer's binary.
fn main() {}
