//! Spanflame's server: keeps profiles, finds a span's flame graph by its id, and answers Grafana's Pyroscope data source.
//!
//! Data goes one way: [`ingest`] turns input into the [`model`], [`store`] keeps it, [`query`] answers from the store.

pub mod ingest;
pub mod model;
pub mod query;
pub mod selector;
pub mod store;
