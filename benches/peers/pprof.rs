//! Stock pprof as a measured process; which unwinder it has is the manifest's choice.

use anyhow::Result;
use pprof::ProfilerGuard;
use spanflame_bench_rig::{Profile, Subject, WeightedStack, serve, set_interval_timer};

struct Pprof {
    guard: ProfilerGuard<'static>,
    hz: u32,
}

impl Subject for Pprof {
    fn start(hz: u32, _bare: bool) -> Result<Self> {
        Ok(Self { guard: ProfilerGuard::new(i32::try_from(hz)?)?, hz })
    }

    fn set_clock(&mut self, running: bool, hz: u32) -> Result<()> {
        set_interval_timer(running.then_some(hz));
        Ok(())
    }

    fn stop(self) -> Result<Profile> {
        set_interval_timer(None);
        let report = self.guard.report().build()?;
        let stack = |(frames, count): (&pprof::Frames, &isize)| WeightedStack {
            functions: frames.frames.iter().flatten().map(pprof::Symbol::name).collect(),
            nanos: *count as u64 * 1_000_000_000 / u64::from(self.hz),
        };
        let signals = report.data.values().sum::<isize>() as u64;
        Ok(Profile { stacks: report.data.iter().map(stack).collect(), signals })
    }
}

fn main() -> Result<()> {
    serve::<Pprof>()
}
