//! Span profiles for Rust services.

mod spans;
