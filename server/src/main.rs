//! The `spanflame` server.
fn main() {}
