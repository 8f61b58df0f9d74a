//! Span profiles for Rust services.
