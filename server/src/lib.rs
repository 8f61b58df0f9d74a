//! Spanflame's server: keeps profiles, finds a span's flame graph by its id, and answers Grafana's Pyroscope data source.
//!
//! Data goes one way: the interface hands input to [`ingest`], which turns it into the [`model`]; [`store`] keeps profiles and
//! [`traces`] spans, [`query`] answers from the store, and the interface writes the answer. [`serve`] holds it together. [`transfer`] moves
//! profiles between a data directory and files.

mod api;
pub mod attime;
pub mod cancel;
pub mod config;
pub mod error;
pub mod ingest;
mod json;
pub mod model;
mod pattern;
mod pprof_tables;
pub mod query;
pub mod reload;
pub mod selector;
pub mod serve;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod tokens;
pub mod traces;
pub mod transfer;
mod ui;
mod user_settings;

#[cfg(test)]
mod testing;
