//! The backend for a `pyroscope` agent that the service already runs. The agent stops for good, or hangs, when a
//! backend's report fails or panics, so this one does neither: at worst it reports an empty profile.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, SystemTime};

use pyroscope::backend::{Backend, BackendImpl, BackendUninitialized, ReportBatch, ReportData, ThreadTag};
use pyroscope::error::Result;

use super::{gzip, pprof};
use crate::aggregate::collector::Command;

/// Symbols of a large executable take a second or two, once.
const PATIENCE: Duration = Duration::from_secs(5);
/// A report is one profile; a window that makes more of them is reported over several intervals, up to this many.
const MAX_LEFT_OVER: usize = 4;

/// Makes the agent's reports from the profiler's windows.
pub(crate) struct SpanBackend {
    /// `None` when profiling is disabled.
    commands: Option<Sender<Command>>,
    left_over: VecDeque<Vec<u8>>,
}

impl SpanBackend {
    /// As the agent's builder takes it.
    pub(crate) fn for_agent(commands: Option<Sender<Command>>) -> BackendImpl<BackendUninitialized> {
        BackendImpl::new(Box::new(Self { commands, left_over: VecDeque::new() }))
    }

    fn next_profile(&mut self) -> Option<Vec<u8>> {
        let (reply, profiles) = channel();
        if let Some(commands) = &self.commands
            && commands.send(Command::Take(reply)).is_ok()
            && let Ok(encoded) = profiles.recv_timeout(PATIENCE)
        {
            self.left_over.extend(encoded.into_iter().map(|profile| profile.bytes));
        }
        if self.left_over.len() > MAX_LEFT_OVER {
            let excess = self.left_over.len() - MAX_LEFT_OVER;
            tracing::warn!(profiles = excess, "the agent reports too rarely for this many different stacks");
            self.left_over.drain(..excess);
        }
        self.left_over.pop_front()
    }
}

impl Backend for SpanBackend {
    fn initialize(&mut self) -> Result<()> {
        Ok(())
    }

    fn shutdown(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    fn report(&mut self) -> Result<ReportBatch> {
        let profile = catch_unwind(AssertUnwindSafe(|| self.next_profile())).unwrap_or_else(|_| {
            tracing::error!("a profile could not be made, its samples are lost");
            None
        });
        let profile = profile.unwrap_or_else(|| pprof::encode_empty(SystemTime::now()));
        Ok(ReportBatch { profile_type: "process_cpu".to_owned(), data: ReportData::RawPprof(gzip(&profile)) })
    }

    /// A tag is private to the agent, so there is nothing to be had from one. Spans label samples here.
    fn add_tag(&self, _tag: ThreadTag) -> Result<()> {
        Ok(())
    }

    fn remove_tag(&self, _tag: ThreadTag) -> Result<()> {
        Ok(())
    }
}
