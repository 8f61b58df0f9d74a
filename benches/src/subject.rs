//! Spanflame as a measured process.
fn main() {}
