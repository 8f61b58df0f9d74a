//! The pyroscope agent's own sampler (`backend-pprof-rs`) as a measured process.

use anyhow::{Context, Result, bail};
use pyroscope::ThreadId;
use pyroscope::backend::{
    BackendConfig, BackendImpl, BackendReady, PprofConfig, ReportData, Tag, ThreadTag, pprof_backend,
};
use spanflame_bench_rig::{
    Profile, Subject, WeightedStack, cpu_per_window, cpu_to_start, resident_memory, serve, set_interval_timer, time_per_call,
};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

struct Pyroscope {
    backend: BackendImpl<BackendReady>,
    hz: u32,
}

impl Subject for Pyroscope {
    fn start(hz: u32, _bare: bool) -> Result<Self> {
        let backend = pprof_backend(PprofConfig { sample_rate: hz }, BackendConfig::default());
        Ok(Self { backend: backend.initialize()?, hz })
    }

    fn set_clock(&mut self, running: bool, hz: u32) -> Result<()> {
        set_interval_timer(running.then_some(hz));
        Ok(())
    }

    fn stop(mut self) -> Result<Profile> {
        set_interval_timer(None);
        let ReportData::Reports(reports) = self.backend.report()?.data else { bail!("not stack traces") };
        let stacks = reports.iter().flat_map(|report| &report.data);
        let stack = |(trace, count): (&pyroscope::backend::StackTrace, &usize)| WeightedStack {
            functions: trace.frames.iter().filter_map(|frame| frame.name.clone()).collect(),
            nanos: *count as u64 * 1_000_000_000 / u64::from(self.hz),
        };
        let signals = stacks.clone().map(|(_, count)| *count as u64).sum();
        Ok(Profile { stacks: stacks.map(stack).collect(), signals })
    }

    fn cost(subject: Option<&Self>, what: &str, iterations: u64) -> Result<f64> {
        let backend = || Ok::<_, anyhow::Error>(&subject.context("not started")?.backend);
        // What the agent's `tag_wrapper` does on entering and leaving a scope.
        let scope = || {
            let tag = || ThreadTag::new(ThreadId::pthread_self(), Tag::new("span".into(), "a".into()));
            if let Ok(backend) = backend() {
                let _ = backend.add_tag(tag());
                let _ = backend.remove_tag(tag());
            }
        };
        match what {
            "tag-scope" | "tag-scope-loaded" if subject.is_none() => bail!("not started"),
            "tag-scope" => Ok(time_per_call(iterations, scope)),
            "window-cpu" => {
                let mut running = Self::start(100, false)?;
                let cpu = cpu_per_window(iterations, || Ok(drop(running.backend.report()?)))?;
                Ok(cpu.as_nanos() as f64)
            }
            "start-cpu" => Ok(cpu_to_start(|| Self::start(100, false))?.0.as_nanos() as f64),
            "start-memory" => {
                let before = resident_memory()?;
                let (_, _running) = cpu_to_start(|| Self::start(100, false))?;
                Ok(resident_memory()?.saturating_sub(before) as f64)
            }
            "tag-scope-loaded" => Ok(beside_a_busy_thread(|| time_per_call(iterations, scope))),
            _ => bail!("this subject has no operation {what}"),
        }
    }
}

/// Runs `work` while another thread burns CPU, so that there are samples to be tagged.
fn beside_a_busy_thread<R>(work: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| while !done.load(Relaxed) {});
        let result = work();
        done.store(true, Relaxed);
        result
    })
}

fn main() -> Result<()> {
    serve::<Pyroscope>()
}
