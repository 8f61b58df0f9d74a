//! The bridge as its users see it: real spans, real samples, real sockets.

mod attribution;
mod carriers;
mod delivery;
mod foreign_observer;
mod labels;
mod parents;
#[cfg(feature = "pyroscope")]
mod pyroscope_agent;
mod spans;
mod support;
