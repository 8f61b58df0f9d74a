//! The backend for a `pyroscope` agent that the service already runs. The agent stops for good, or hangs, when a
//! backend's report fails or panics, so this one does neither: at worst it reports an empty profile.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, SystemTime};

use pyroscope::backend::{Backend, BackendImpl, BackendUninitialized, ReportBatch, ReportData, ThreadTag};
use pyroscope::error::Result;

use super::pprof::Encoded;
use super::{gzip, pprof};
use crate::aggregate::collector::Command;
use crate::stats::Counters;

/// A window waits for debug information half as long at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// A report is one profile; a window that makes more of them is reported over several intervals, up to this many.
const MAX_LEFT_OVER: usize = 4;

/// Makes the agent's reports from the profiler's windows.
pub(crate) struct SpanBackend {
    /// `None` when profiling is disabled.
    running: Option<Connection>,
    left_over: VecDeque<Encoded>,
}

/// To the profiler that makes the profiles.
pub(crate) struct Connection {
    pub(crate) commands: Sender<Command>,
    pub(crate) counters: Arc<Counters>,
}

impl SpanBackend {
    /// As the agent's builder takes it.
    pub(crate) fn for_agent(running: Option<Connection>) -> BackendImpl<BackendUninitialized> {
        BackendImpl::new(Box::new(Self::new(running)))
    }

    fn new(running: Option<Connection>) -> Self {
        Self { running, left_over: VecDeque::new() }
    }

    fn next_profile(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let Connection { commands, counters } = self.running.as_ref()?;
        let (reply, profiles) = channel();
        // A profiler that has stopped, or whose threads are gone, takes no command; what was left over is reported still.
        if commands.send(Command::Take(reply)).is_ok()
            && let Ok(encoded) = profiles.recv_timeout(patience)
        {
            self.left_over.extend(encoded);
        }
        if self.left_over.len() > MAX_LEFT_OVER {
            let excess = self.left_over.len() - MAX_LEFT_OVER;
            tracing::warn!(profiles = excess, "the agent reports too rarely for this many different stacks");
            counters.queue_full.add(self.left_over.drain(..excess).map(|profile| profile.samples).sum());
        }
        let profile = self.left_over.pop_front()?;
        let bytes = gzip(&profile.bytes);
        counters.profiles.add(1);
        counters.profile_bytes.add(bytes.len() as u64);
        Some(bytes)
    }

    fn next_report(&mut self, patience: Duration) -> ReportBatch {
        let profile = catch_unwind(AssertUnwindSafe(|| self.next_profile(patience))).unwrap_or_else(|_| {
            tracing::error!("a profile could not be made, its samples are lost");
            None
        });
        let profile = profile.unwrap_or_else(|| gzip(&pprof::encode_empty(SystemTime::now())));
        ReportBatch { profile_type: "process_cpu".to_owned(), data: ReportData::RawPprof(profile) }
    }
}

impl Drop for SpanBackend {
    fn drop(&mut self) {
        if let Some(Connection { counters, .. }) = &self.running {
            counters.shutdown.add(self.left_over.iter().map(|profile| profile.samples).sum());
        }
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
        Ok(self.next_report(PATIENCE))
    }

    /// A tag is private to the agent, so there is nothing to be had from one. Spans label samples here.
    fn add_tag(&self, _tag: ThreadTag) -> Result<()> {
        Ok(())
    }

    fn remove_tag(&self, _tag: ThreadTag) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::read::GzDecoder;
    use prost::Message as _;
    use pyroscope::encode::r#gen::google;
    use std::io::Read as _;
    use std::sync::mpsc::Receiver;
    use std::thread;

    use super::*;

    fn connected() -> (SpanBackend, Receiver<Command>, Arc<Counters>) {
        let (commands, inbox) = channel();
        let counters = Arc::<Counters>::default();
        (SpanBackend::new(Some(Connection { commands, counters: counters.clone() })), inbox, counters)
    }

    /// The bytes of a report, which must be a profile, and how many samples it has.
    fn samples(report: ReportBatch) -> usize {
        let ReportData::RawPprof(gzipped) = report.data else { panic!("not a profile") };
        let mut bytes = Vec::new();
        GzDecoder::new(&*gzipped).read_to_end(&mut bytes).expect("gzip");
        let profile = google::Profile::decode(&*bytes).expect("a profile");
        assert_eq!(profile.sample_type.len(), 2);
        profile.sample.len()
    }

    #[test]
    fn whatever_became_of_the_profiler_the_report_is_a_profile() {
        // Nobody answers.
        let (mut backend, inbox, _) = connected();
        assert_eq!(samples(backend.next_report(Duration::from_millis(1))), 0);
        // It is asked, and gone before it answers.
        let asked = thread::spawn(move || drop(inbox.recv().map(|_| inbox.recv())));
        assert_eq!(samples(backend.report().expect("always a report")), 0);
        asked.join().expect("no panic");
        // It is gone.
        assert_eq!(samples(backend.report().expect("always a report")), 0);
        // There never was one.
        assert_eq!(samples(SpanBackend::new(None).report().expect("always a report")), 0);
    }

    #[test]
    fn what_is_left_over_is_reported_or_counted() {
        let (mut backend, inbox, counters) = connected();
        let profile = || Encoded { bytes: pprof::encode_empty(SystemTime::UNIX_EPOCH), samples: 3 };
        let answering = thread::spawn(move || {
            if let Ok(Command::Take(reply)) = inbox.recv() {
                let profiles = (0..MAX_LEFT_OVER + 2).map(|_| profile()).collect();
                assert!(reply.send(profiles).is_ok(), "the backend waits");
            }
        });
        backend.next_report(Duration::from_secs(60));
        answering.join().expect("no panic");
        assert_eq!((counters.queue_full.get(), counters.profiles.get()), (2 * 3, 1));
        // The profiler is gone meanwhile.
        backend.next_report(Duration::from_secs(60));
        assert_eq!(counters.profiles.get(), 2);
        drop(backend);
        assert_eq!(counters.shutdown.get(), (MAX_LEFT_OVER as u64 - 2) * 3);
    }
}
