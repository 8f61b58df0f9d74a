//! Platforms without a sampler have nothing to symbolize.

use std::path::Path;

use super::Call;

pub(super) struct Reader;

impl Reader {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn read(&self, _module: &Path, offsets: &[u64]) -> Vec<Option<Vec<Call>>> {
        vec![None; offsets.len()]
    }
}
