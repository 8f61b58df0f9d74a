//! What all profiles of one push may take together.

use super::{IngestError, Limits};

/// The bytes that a push may still take. Once something did not fit nothing more does, so that what was refused costs no
/// further work either.
#[derive(Debug)]
pub struct Budget {
    left: usize,
    max: usize,
    /// Bytes that were sent, decompressed.
    sent: usize,
}

impl Budget {
    /// The whole of `max_push_bytes`.
    pub fn new(limits: &Limits) -> Self {
        Self { left: limits.max_push_bytes, max: limits.max_push_bytes, sent: 0 }
    }

    /// Counts bytes that were sent, decompressed: they are what a tenant's rate is about, taken or not.
    pub fn count(&mut self, sent: usize) {
        self.sent = self.sent.saturating_add(sent);
    }

    /// What was counted.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// What is left, in bytes.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Takes bytes of a profile out.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), IngestError> {
        self.take_for("raw_profile: together with the profiles before it", bytes)
    }

    /// Takes bytes out for what the field names.
    pub(super) fn take_for(&mut self, field: &str, bytes: usize) -> Result<(), IngestError> {
        let before = self.left;
        self.left = before.saturating_sub(bytes);
        if bytes <= before {
            return Ok(());
        }
        let got = (self.max - before).saturating_add(bytes);
        Err(IngestError::over(field, "max_push_bytes", self.max, got))
    }
}
