//! The bridge behind the interface that every measured profiler has.

use crate::{attribution, cost, pprof, shortest};
use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use spanflame::bench_support::{self, Sampler, Unwinder};
use spanflame::{ExportError, Profile as Exported, ProfileExporter, Profiler, Receiver, Scope};
use spanflame_bench_rig::{Attribution, Profile, Subject, WeightedStack};
use std::sync::Arc;
use std::time::Duration;

/// Long enough for a busy machine; reaching it is an error.
const FLUSH: Duration = Duration::from_secs(60);

/// Keeps what the bridge exports.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<Vec<u8>>>>);

impl Captured {
    /// Every profile so far, decoded.
    pub(crate) fn profiles(&self) -> Result<Vec<pprof::Decoded>> {
        self.0.lock().iter().map(|gzipped| pprof::decode(gzipped)).collect()
    }
}

impl ProfileExporter for Captured {
    fn export(&mut self, profile: &Exported) -> Result<(), ExportError> {
        self.0.lock().push(profile.pprof.clone());
        Ok(())
    }

    fn receiver(&mut self) -> Option<Receiver> {
        Some(Receiver::full("benchmark"))
    }
}

/// The whole bridge, exporting to [`Captured`].
pub(crate) fn start_profiler(hz: u32, interval: Duration) -> Result<(Profiler, Captured)> {
    let captured = Captured::default();
    let profiler = Profiler::builder()
        .frequency(hz)
        .upload_interval(interval)
        .scope(Scope::All)
        .exporter(Box::new(captured.clone()))
        .start()?;
    Ok((profiler, captured))
}

pub(crate) enum Spanflame {
    Whole {
        profiler: Profiler,
        captured: Captured,
    },
    /// Without the collector, so that nobody but us empties the rings; a span is active.
    Bare {
        sampler: Box<Mutex<Sampler>>,
        span: u64,
    },
}

impl Subject for Spanflame {
    fn start(hz: u32, bare: bool) -> Result<Self> {
        if !bare {
            let (profiler, captured) = start_profiler(hz, Duration::from_secs(10))?;
            return Ok(Self::Whole { profiler, captured });
        }
        // The whole profiler reads this variable itself.
        let unwinder = match std::env::var("SPANFLAME_UNWINDER").as_deref() {
            Ok("frame-pointers") => Unwinder::FramePointers,
            _ => Unwinder::Tables,
        };
        let sampler = Sampler::start_with(hz, 128, unwinder).map_err(|error| anyhow!(error))?;
        let span = sampler.span(1).context("no room for a span")?;
        Ok(Self::Bare { sampler: Box::new(Mutex::new(sampler)), span })
    }

    fn signal_value(&self) -> Result<usize> {
        let value = bench_support::signal_value().context("the thread is not sampled")?;
        if let Self::Bare { span, .. } = self {
            bench_support::publish(*span);
        }
        Ok(value)
    }

    fn accept_wrapper(&self, handler: usize) {
        bench_support::accept_wrapper(handler);
    }

    fn discard(&self) -> u64 {
        match self {
            Self::Bare { sampler, .. } => sampler.lock().drain(),
            Self::Whole { .. } => 0,
        }
    }

    fn set_clock(&mut self, _running: bool, _hz: u32) -> Result<()> {
        // Each thread has a clock of its own; the rig blocks its signal instead.
        Ok(())
    }

    fn stop(self) -> Result<Profile> {
        let Self::Whole { profiler, captured } = self else { bail!("a bare sampler keeps no profile") };
        profiler.shutdown(FLUSH)?;
        let stacks = captured.profiles()?.into_iter().flat_map(|profile| profile.samples);
        let stack =
            |sample: pprof::Sample| WeightedStack { functions: sample.functions, nanos: sample.nanos };
        Ok(Profile { stacks: stacks.map(stack).collect(), signals: profiler.stats().samples })
    }

    fn cost(subject: Option<&Self>, what: &str, iterations: u64) -> Result<f64> {
        let profiler = match subject {
            Some(Self::Whole { profiler, .. }) => Some(profiler),
            Some(Self::Bare { .. }) => bail!("a bare sampler has no spans"),
            None => None,
        };
        cost::measure(profiler, what, iterations)
    }

    fn restart(&mut self, running: bool, hz: u32) -> Result<f64> {
        let Self::Whole { profiler, captured } = self else { bail!("a bare sampler has no governor") };
        if running {
            (*profiler, *captured) = start_profiler(hz, Duration::from_secs(10))?;
            return Ok(0.0);
        }
        profiler.shutdown(FLUSH)?;
        Ok(profiler.stats().effective_frequency)
    }

    fn spans(hz: u32, micros: u64, trials: usize) -> Result<Vec<u64>> {
        shortest::run(hz, Duration::from_micros(micros), trials)
    }

    fn attribute(samples: u64) -> Result<Attribution> {
        attribution::run(samples)
    }
}
