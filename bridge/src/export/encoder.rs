//! Turns windows into profiles as the receiving end wants them, and has spans tagged accordingly.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
#[cfg(feature = "pyroscope")]
use std::sync::mpsc::Receiver as Channel;

#[cfg(feature = "pyroscope")]
use opentelemetry::Context;

use super::Receiver;
use super::pprof::{self, SampleLabels};
use crate::aggregate::Window;
#[cfg(feature = "pyroscope")]
use crate::aggregate::collector::Job;
use crate::config::{Scope, TraceIdLabel};
use crate::live::{Charge, Live, Tagging};
use crate::stats::Counters;
use crate::symbolize::Symbolizer;

/// Which spans are tagged and how samples are labelled: the same decision, so that a tagged span has a profile and a
/// label leads to a tagged span.
pub(crate) struct Policy {
    pub(crate) live: &'static Live,
    pub(crate) charge: Charge,
    pub(crate) scope: Scope,
    pub(crate) trace_ids: TraceIdLabel,
    pub(crate) receiver: Receiver,
}

impl Policy {
    fn tagging(&self) -> Tagging {
        match self.scope {
            Scope::Root => Tagging::Root,
            Scope::All => Tagging::All,
            Scope::Auto if self.receiver.nested_spans => Tagging::All,
            Scope::Auto => Tagging::Root,
        }
    }

    pub(crate) fn apply(&self) {
        self.charge.set_tagging(self.tagging());
    }

    fn sample_labels(&self) -> SampleLabels {
        SampleLabels {
            trace_id: match self.trace_ids {
                TraceIdLabel::Always => true,
                TraceIdLabel::Never => false,
                TraceIdLabel::Auto => self.receiver.trace_ids,
            },
            relations: self.tagging() == Tagging::All,
            root_names: self.tagging() == Tagging::All && self.receiver.nested_spans,
        }
    }
}

/// Made and used on one thread.
pub(crate) struct Encoder {
    policy: Policy,
    pub(crate) counters: Arc<Counters>,
    symbolizer: Symbolizer,
}

impl Encoder {
    pub(crate) fn new(policy: Policy, counters: Arc<Counters>) -> Self {
        Self { policy, counters, symbolizer: Symbolizer::new() }
    }

    /// From now on, spans are tagged and samples labelled as suits `receiver`. Whether it is another than before.
    pub(crate) fn suit(&mut self, receiver: Receiver) -> bool {
        let changed = self.policy.receiver != receiver;
        self.policy.receiver = receiver;
        self.policy.apply();
        changed
    }

    pub(crate) fn tagging(&self) -> Tagging {
        self.policy.tagging()
    }

    /// The window's profiles. None if they cannot be made, which is counted.
    pub(crate) fn encode(&mut self, window: &Window) -> Vec<pprof::Encoded> {
        let labels = self.policy.sample_labels();
        let Self { policy, symbolizer, .. } = self;
        // Symbolization reads files that someone else wrote. Whatever is wrong with one of them costs this window,
        // not the thread.
        let encoded = catch_unwind(AssertUnwindSafe(|| {
            pprof::encode(window, symbolizer, &policy.live.names, labels, pprof::Limits::default())
        }));
        self.counters.symbols.set(self.symbolizer.kept() as u64);
        encoded.unwrap_or_else(|_| {
            self.symbolizer = Symbolizer::new();
            self.counters.failed.add(window.rows.samples());
            tracing::error!("a profile could not be made, its samples are lost");
            Vec::new()
        })
    }

    /// The body of a thread without an exporter: makes profiles when asked to.
    #[cfg(feature = "pyroscope")]
    pub(crate) fn serve(mut self, jobs: &Channel<Job>) {
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        for job in jobs {
            // Whoever asked may have stopped waiting.
            let _ = match job {
                Job::Encode(window, reply) => reply.send(self.encode(&window)).is_ok(),
                Job::Flush(reply, _place) => reply.send(Ok(())).is_ok(),
                Job::Window(window, _) => {
                    // Left over at the end, when nobody asks any more.
                    self.counters.shutdown.add(window.rows.samples());
                    true
                }
                Job::Stop { reply, .. } => {
                    let _ = reply.send(Ok(()));
                    return;
                }
            };
        }
    }
}
