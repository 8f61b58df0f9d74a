//! Turns windows into profiles as the receiving end wants them, and has spans tagged accordingly.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
#[cfg(feature = "pyroscope")]
use std::sync::mpsc::{Receiver as Channel, SendError};

#[cfg(feature = "pyroscope")]
use opentelemetry::Context;

use super::Receiver;
use super::pprof::{self, SampleLabels, Symbols};
use super::unlabelled::Unlabelled;
use crate::aggregate::Window;
#[cfg(feature = "pyroscope")]
use crate::aggregate::collector::Job;
use crate::config::{Scope, TraceIdLabel};
use crate::live::{Charge, Tagging};
use crate::stats::Counters;
use crate::symbolize::Symbolizer;

/// Which spans are tagged and how samples are labelled: the same decision, so that a tagged span has a profile and a
/// label leads to a tagged span.
pub(crate) struct Policy {
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
    /// Whether it was said that much runs in no span.
    told: bool,
    /// Samples lost on the way out, as of the last window.
    lost: [u64; 4],
}

impl Encoder {
    pub(crate) fn new(policy: Policy, counters: Arc<Counters>) -> Self {
        let symbolizer = Symbolizer::counted(counters.clone());
        Self { policy, counters, symbolizer, told: false, lost: [0; 4] }
    }

    /// From now on, spans are tagged and samples labelled as suits `receiver`. Whether it is another than before.
    pub(crate) fn suit(&mut self, receiver: Receiver) -> bool {
        let changed = self.policy.receiver != receiver;
        self.policy.receiver = receiver;
        self.policy.apply();
        changed
    }

    /// What the receiving end calls itself.
    pub(crate) fn receiver(&self) -> &str {
        &self.policy.receiver.name
    }

    pub(crate) fn tagging(&self) -> Tagging {
        self.policy.tagging()
    }

    /// Takes in symbols that came too late for their window. Whether there are more to come.
    pub(crate) fn rest(&mut self) -> bool {
        let busy = self.symbolizer.rest();
        self.counters.symbols.set(self.symbolizer.kept() as u64);
        busy
    }

    /// Samples lost on the way out.
    fn lost(&self) -> [u64; 4] {
        let Counters { exporter_busy, queue_full, rejected, failed, .. } = &*self.counters;
        [exporter_busy.get(), queue_full.get(), rejected.get(), failed.get()]
    }

    /// What a reader must know of the way that a window takes from here on, `now` being what is lost so far.
    fn notes(&self, now: [u64; 4]) -> Vec<String> {
        const CAUSES: [&str; 4] = ["lost.exporter_busy", "lost.queue_full", "lost.rejected", "lost.failed"];
        let source = format!("{:?}", crate::live::label_source()).to_lowercase();
        let mut notes = vec![format!("scope={}", self.tagging().name()), format!("label_source={source}")];
        if !self.policy.receiver.name.is_empty() {
            notes.push(format!("server={}", self.policy.receiver.name));
        }
        let causes =
            CAUSES.iter().zip(now).zip(self.lost).map(|((cause, now), before)| (cause, now - before));
        notes.extend(causes.filter(|(_, lost)| *lost > 0).map(|(cause, lost)| format!("{cause}={lost}")));
        notes
    }

    /// The window's profiles. None if they cannot be made, which is counted.
    pub(crate) fn encode(&mut self, window: &Window) -> Vec<pprof::Encoded> {
        let labels = self.policy.sample_labels();
        let lost = self.lost();
        let mut notes = self.notes(lost);
        let symbolizer = &mut self.symbolizer;
        // Symbolization reads files that someone else wrote. Whatever is wrong with one of them costs this window,
        // not the thread.
        let encoded = catch_unwind(AssertUnwindSafe(|| {
            let symbols = Symbols::look_up(window, symbolizer);
            let unlabelled = Unlabelled::of(window, &symbols);
            notes.extend(unlabelled.notes());
            let profiles = pprof::encode(window, &symbols, labels, &notes, pprof::Limits::default());
            (profiles, unlabelled)
        }));
        self.counters.symbols.set(self.symbolizer.kept() as u64);
        match encoded {
            Ok((profiles, unlabelled)) => {
                if !profiles.is_empty() {
                    self.lost = lost;
                }
                self.tell(window, &unlabelled);
                self.counters.unlabelled.lock().add(unlabelled);
                profiles
            }
            Err(_) => {
                self.symbolizer = Symbolizer::counted(self.counters.clone());
                self.counters.failed.add(window.rows.samples());
                tracing::error!("a profile could not be made, its samples are lost");
                Vec::new()
            }
        }
    }

    /// Says once that spans exist and most of the CPU time runs outside of them.
    fn tell(&mut self, window: &Window, unlabelled: &Unlabelled) {
        if self.told {
            return;
        }
        if let Some(call_site) = unlabelled.worth_telling(window) {
            self.told = true;
            tracing::warn!(
                share = %format_args!("{:.2}", unlabelled.share()),
                call_site,
                "most of the cpu time runs in no span. where work moves to another thread or task, take the context \
                 along (spanflame::in_current_context); Profiler::unlabelled lists the call sites"
            );
        }
    }

    /// The body of a thread without an exporter: makes profiles when asked to.
    #[cfg(feature = "pyroscope")]
    pub(crate) fn serve(mut self, jobs: &Channel<Job>) {
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        for job in jobs {
            // Whoever asked may have stopped waiting.
            match job {
                Job::Encode(window, reply) => {
                    let profiles = self.encode(window.window());
                    window.arrived();
                    if let Err(SendError(profiles)) = reply.send(profiles) {
                        self.counters.exporter_busy.add(profiles.iter().map(|profile| profile.samples).sum());
                    }
                }
                Job::Flush { reply, .. } => drop(reply.send(Ok(()))),
                // Left over at the end, when nobody asks any more.
                Job::Window(window) => {
                    self.counters.shutdown.add(window.window().rows.samples());
                    window.arrived();
                }
                Job::Stop(reply) => {
                    let _ = reply.send(Ok(()));
                    return;
                }
            }
        }
    }
}
