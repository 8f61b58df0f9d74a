//! Span profiles for Rust services.

mod sampler;
mod spans;
