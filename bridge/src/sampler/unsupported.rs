//! Platforms without a sampler: everything compiles, starting says why not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{ClockInUse, Module, Options, Sample, SamplerError, SamplerStats, Spent};
use crate::spans::SpanKey;

/// Never made here: [`Sampler::start`] always refuses.
pub(crate) enum Sampler {}

impl Sampler {
    pub(crate) fn start(_options: Options) -> Result<Self, SamplerError> {
        Err(SamplerError::Unsupported)
    }

    pub(crate) fn drain(&mut self, _sink: &mut dyn FnMut(&Sample<'_>)) {
        match *self {}
    }

    pub(crate) fn pause(&self) -> Duration {
        match *self {}
    }

    pub(crate) fn modules(&self) -> Arc<[Module]> {
        match *self {}
    }

    pub(crate) fn stats(&self) -> SamplerStats {
        match *self {}
    }

    pub(crate) fn not_expressible(&self) -> Vec<(Arc<Path>, u32)> {
        match *self {}
    }

    pub(crate) fn stop(&mut self) {
        match *self {}
    }

    pub(crate) fn clock(&self) -> ClockInUse {
        match *self {}
    }

    pub(crate) fn spent(&mut self) -> Spent {
        match *self {}
    }

    pub(crate) fn set_divider(&mut self, _divider: u32) {
        match *self {}
    }
}

pub(crate) fn at_fork(_child: extern "C" fn()) -> Result<(), SamplerError> {
    Err(SamplerError::Unsupported)
}

#[inline]
pub(crate) fn publish(_key: SpanKey) {}

pub(crate) fn register() {}

pub(crate) fn thread_id() -> i32 {
    0
}

pub(crate) fn thread_cpu_time(_tid: i32) -> Duration {
    Duration::ZERO
}
