//! The sampler of Linux on x86-64.

use std::sync::Arc;

use super::{Module, Options, Sample, SamplerError, SamplerStats};
use crate::spans::SpanKey;

/// Samples the process until [`stop`](Self::stop).
pub(crate) struct Sampler {
    options: Options,
}

impl Sampler {
    /// Starts sampling every thread.
    pub(crate) fn start(options: Options) -> Result<Self, SamplerError> {
        if !(1..=1000).contains(&options.frequency) {
            return Err(SamplerError::Frequency(options.frequency));
        }
        Ok(Self { options })
    }

    /// Hands over every sample taken since the last call.
    pub(crate) fn drain(&mut self, _sink: &mut dyn FnMut(&Sample<'_>)) {
        let _ = &self.options;
    }

    /// The modules that samples may refer to, loaded ones first.
    pub(crate) fn modules(&self) -> Arc<[Module]> {
        Arc::from([])
    }

    /// What became of the samples.
    pub(crate) fn stats(&self) -> SamplerStats {
        SamplerStats::default()
    }

    /// Stops the timers; what was sampled before can still be drained.
    pub(crate) fn stop(&mut self) {}
}

/// Makes `key` what samples of the calling thread are stamped with.
#[inline]
pub(crate) fn publish(_key: SpanKey) {}
