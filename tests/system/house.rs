//! A server with an empty store, a tap before it, and a span collector beside it.

use std::collections::BTreeMap;
use std::process::Command;

use spanflame_tests::binaries::{binary, serve};
use spanflame_tests::collector::{Collector, Span};
use spanflame_tests::pprof::Sample;
use spanflame_tests::process::Process;
use spanflame_tests::tap::{Pushed, Tap};
use tempfile::TempDir;

pub(crate) struct House {
    // Fields drop in this order: who asks before who answers.
    pub(crate) tap: Tap,
    pub(crate) collector: Collector,
    pub(crate) server: Process,
    pub(crate) address: String,
    pub(crate) data: TempDir,
}

impl House {
    pub(crate) fn open() -> Self {
        let data = tempfile::tempdir().expect("there is room for temporary files");
        let server = serve(data.path());
        let address = server.address();
        Self { tap: Tap::start(&address), collector: Collector::start(), server, address, data }
    }

    /// An example, set up to export its spans to the collector and to push its profiles through the tap.
    pub(crate) fn example(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command
            .env_clear()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", self.collector.endpoint())
            .env("PYROSCOPE_SERVER_ADDRESS", self.tap.address())
            // Milliseconds until spans are exported.
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
            // Several windows within a test, and spans that reach across them.
            .env("SPANFLAME_UPLOAD_INTERVAL", "2")
            // More workers than cores, so that they are preempted, too.
            .env("TOKIO_WORKER_THREADS", "4");
        command
    }

    /// The spans that were exported, by id.
    ///
    /// # Panics
    /// When there are none, or two of one id.
    pub(crate) fn spans(&self) -> BTreeMap<String, Span> {
        let exported = self.collector.spans();
        assert!(!exported.is_empty(), "no spans were exported");
        let count = exported.len();
        let spans: BTreeMap<_, _> = exported.into_iter().map(|span| (span.span_id.clone(), span)).collect();
        assert_eq!(spans.len(), count, "each span is exported once");
        spans
    }

    /// The samples of all profiles that the server took.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        acknowledged(&self.tap.profiles())
    }
}

/// The samples of those profiles that the server took.
pub(crate) fn acknowledged(profiles: &[Pushed]) -> Vec<Sample> {
    let taken = profiles.iter().filter(|profile| profile.acknowledged);
    taken.flat_map(|profile| profile.samples.iter().cloned()).collect()
}

/// Whether a span is another's descendant, or that span itself.
pub(crate) fn is_within<'a>(spans: &'a BTreeMap<String, Span>, mut span: &'a Span, ancestor: &str) -> bool {
    loop {
        if span.span_id == ancestor {
            return true;
        }
        match span.parent.as_ref().and_then(|parent| spans.get(parent)) {
            Some(parent) => span = parent,
            None => return false,
        }
    }
}

/// The first span of a span's trace in its process.
pub(crate) fn local_root<'a>(spans: &'a BTreeMap<String, Span>, mut span: &'a Span) -> &'a Span {
    while let Some(parent) = span.parent.as_ref().and_then(|parent| spans.get(parent)) {
        span = parent;
    }
    span
}

/// The samples of one span alone.
pub(crate) fn own<'a>(samples: &'a [Sample], span: &'a str) -> impl Iterator<Item = &'a Sample> {
    samples.iter().filter(move |sample| sample.span_id() == Some(span))
}

/// The samples of a span and its descendants.
pub(crate) fn family<'a>(
    samples: &'a [Sample],
    spans: &'a BTreeMap<String, Span>,
    span: &'a Span,
) -> impl Iterator<Item = &'a Sample> {
    let within = |id: &str| spans.get(id).is_some_and(|of_sample| is_within(spans, of_sample, &span.span_id));
    samples.iter().filter(move |sample| sample.span_id().is_some_and(within))
}

/// Which function alone a span burns CPU time in, and how much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burn {
    pub(crate) span: &'static str,
    pub(crate) function: &'static str,
    pub(crate) milliseconds: u32,
}

/// Fails if a sample is labelled with a span that does not burn what the sample's stack shows, or if too many that show
/// the work of a span are labelled with none.
pub(crate) fn assert_samples_are_in_their_spans(
    spans: &BTreeMap<String, Span>,
    burns: &[Burn],
    samples: &[Sample],
) {
    let shown = |sample: &Sample| burns.iter().filter(|burn| sample.runs(burn.function)).collect::<Vec<_>>();
    // A sample must never have another span's id. That it has none, when a thread is new or a span is about to end, is a
    // loss, and one in fifty the most that is put up with.
    let (work, lost): (Vec<_>, Vec<_>) = samples
        .iter()
        .filter(|sample| !shown(sample).is_empty())
        .partition(|sample| sample.span_id().is_some());
    eprintln!("{} samples of spans' work, and {} that are labelled with no span", work.len(), lost.len());
    assert!(lost.len() * 50 <= work.len(), "the work of spans, labelled with none: {lost:#?}");

    for sample in samples {
        let Some(id) = sample.span_id() else { continue };
        let shown = shown(sample);
        let span = spans.get(id).unwrap_or_else(|| panic!("no such span was exported: {sample:#?}"));
        let foreign = shown.iter().find(|burn| burn.span != span.name);
        assert!(foreign.is_none(), "{foreign:?} in the sample of {span:?}: {sample:#?}");
        for (label, value) in [("trace_id", &span.trace_id), ("span_name", &span.name)] {
            assert_eq!(sample.labels.get(label), Some(value), "{label} of {sample:#?}");
        }
        assert_eq!(sample.id_number("parent_span_id"), span.parent, "{sample:#?}");
        let root = local_root(spans, span).span_id.clone();
        assert_eq!(sample.id_number("local_root_span_id"), Some(root), "{sample:#?}");
    }
}

/// Fails unless the CPU time is shared out between the spans as it was burned.
///
/// Each sample falls into a span's share with that share's probability, so the standard deviation of what is measured
/// is √(share · (1 − share) ÷ samples). Samples that stand for more time than others count for fewer: their number is
/// (Σ time)² ÷ Σ time². Five deviations are allowed, which chance alone exceeds once in a million runs, and one
/// percentage point for what the spans do besides burning.
pub(crate) fn assert_shares(burns: &[(Burn, u32)], spans: &BTreeMap<String, Span>, samples: &[Sample]) {
    let burned: f64 = burns.iter().map(|(burn, times)| f64::from(burn.milliseconds * times)).sum();
    let mut cpu: BTreeMap<&str, f64> = BTreeMap::new();
    let (mut count, mut squares) = (0, 0.0);
    for sample in samples.iter().filter(|sample| sample.count() > 0) {
        if let Some(span) = sample.span_id().and_then(|id| spans.get(id)) {
            *cpu.entry(&span.name).or_default() += sample.cpu() as f64;
            count += sample.count();
            squares += (sample.cpu() as f64).powi(2) / sample.count() as f64;
        }
    }
    let sampled: f64 = cpu.values().sum();
    assert!(sampled > 0.0, "no sample is in a span");
    let samples = sampled.powi(2) / squares;
    eprintln!("{count} samples in spans, as good as {samples:.0}: {:.0} ms of {burned:.0} ms", sampled / 1e6);
    for (burn, times) in burns {
        let expected = f64::from(burn.milliseconds * times) / burned;
        let measured = cpu.get(burn.span).copied().unwrap_or_default() / sampled;
        let tolerance = 5.0 * (expected * (1.0 - expected) / samples).sqrt() + 0.01;
        eprintln!("{:>16}: {measured:.3} of the CPU time, {expected:.3} ± {tolerance:.3} burned", burn.span);
        assert!(
            (measured - expected).abs() <= tolerance,
            "{}: {measured:.3} of the CPU time instead of {expected:.3} ± {tolerance:.3}",
            burn.span
        );
    }
}
