//! The bridge as its users see it: real spans, real samples, real sockets.

mod attribution;
mod delivery;
mod labels;
#[cfg(feature = "pyroscope")]
mod pyroscope_agent;
mod support;
