//! Profiles as files: out of a data directory as pprof, and into one.
//!
//! What is exported is imported as it was, as far as pprof and its comments can say it. No command line here.

mod export;
mod import;
mod message;

pub use self::export::{ExportError, ExportOptions, Exported, export};
pub use self::import::{ImportOptions, Imported, import};

#[cfg(test)]
mod tests;
