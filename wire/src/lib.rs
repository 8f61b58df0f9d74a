//! The messages and services that Spanflame's server speaks: Pyroscope's push, query and side interfaces,
//! OpenTelemetry's profiles and spans, the pprof profile and the labels of Java recordings, generated from `proto/`.
//!
//! Nothing but generated code may live here: it is large and slow to compile, and has no opinion of its own.
//! Module paths are the proto packages (`push::v1`, `types::v1`, `querier::v1`, `google::v1`,
//! `opentelemetry::proto::profiles::v1development`, `jfr::v1` and so on).

/// What clients in other languages are generated from: the interface as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

// Generated code answers to the generator's rules, not to the house's.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
mod generated {
    connectrpc::include_generated!("spanflame_wire.rs");
}

pub use generated::{capabilities, google, jfr, opentelemetry, push, querier, settings, types, version};
