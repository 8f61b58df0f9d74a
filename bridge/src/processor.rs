//! The span processor: tags spans with `pyroscope.profile.id` and keeps the table of live spans. It never waits for
//! input or output, changes nothing else of a span, and passes every call on. Where span names or label attributes are
//! on, it takes locks that are held for moments: for a look-up, or for adding a name that is new.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::trace::{Span as _, TraceContextExt};
use opentelemetry::{Context, Key, KeyValue, StringValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use crate::carrier::start;
use crate::config::SpanNames;
use crate::context::{self, View};
use crate::labels::ProfileLabels;
use crate::live::{self, Live, Tagging, Wording};
use crate::profiler::{Flusher, Profiler};
use crate::spans::{LabelSetId, SpanId, SpanRecord, label_values};

/// The span attribute that Grafana looks for: the id of the span whose profile to ask for.
pub const PROFILE_ID: &str = "pyroscope.profile.id";

/// How long a flush may take that was asked for without a time.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects a tracer provider's spans to the profiler.
///
/// Around another processor (from [`Profiler::wrap`]) or on its own (from [`Profiler::span_processor`]). Prefer
/// the former: a provider with two processors copies every span once more when it ends.
///
/// The provider's `force_flush` ends the current window and delivers profiles after spans, within five seconds. What comes
/// of the profiles is logged; the result is the spans' own.
#[derive(Debug)]
pub struct SpanProfileProcessor<P = NoProcessor> {
    inner: P,
    live: &'static Live,
    /// As many attributes as a span of the provider is known to take.
    room: AtomicUsize,
    labels: Option<Arc<ProfileLabels>>,
    flusher: Flusher,
    /// Set where the processor is all that the user holds: then it stops the profiler, too.
    owned: Option<Profiler>,
}

/// Stands where a [`SpanProfileProcessor`] wraps no other processor.
#[derive(Debug)]
pub struct NoProcessor;

impl<P> SpanProfileProcessor<P> {
    /// For a profiler that whoever started it stops.
    pub(crate) fn new(inner: P, profiler: &Profiler) -> Self {
        let (labels, flusher) = (profiler.labels(), profiler.flusher());
        Self { inner, live: Live::get(), room: AtomicUsize::new(0), labels, flusher, owned: None }
    }

    /// For one that is stopped with the tracer provider.
    pub(crate) fn owning(inner: P, profiler: Profiler) -> Self {
        let processor = Self::new(inner, &profiler);
        Self { owned: Some(profiler), ..processor }
    }

    /// For none.
    pub(crate) fn unprofiled(inner: P) -> Self {
        let (labels, flusher) = (None, Flusher::default());
        Self { inner, live: Live::get(), room: AtomicUsize::new(0), labels, flusher, owned: None }
    }

    fn started(&self, span: &mut Span, cx: &Context) {
        let tagging = self.live.tagging();
        if tagging == Tagging::Off || !span.span_context().is_sampled() {
            return;
        }
        let span_id = context::span_id(span.span_context());
        let trace_id = context::trace_id(span.span_context());

        // A remote parent lives in another process: for this one, the span is a root.
        let parent_span = cx.span();
        let parent_context = parent_span.span_context();
        let has_local_parent = parent_context.is_valid() && !parent_context.is_remote();
        let parent_id = if has_local_parent { context::span_id(parent_context) } else { SpanId(0) };
        let seen = View::of(cx).and_then(|view| view.record).filter(|record| record.span_id == parent_id);
        let parent = match seen {
            Some(record) => Some(record),
            None => context::find(self.live, parent_context).map(|(_, record)| record),
        };
        // A parent that we do not know has no profile, so its child is the outermost span that has one.
        let parent = parent.filter(|parent| parent.trace_id == trace_id);

        let tagged = parent.is_none() || tagging == Tagging::All;
        // What is not said of the span itself is said of its local root.
        let wording = self.live.wording();
        let described = match wording.names {
            SpanNames::Auto | SpanNames::Off => tagged,
            SpanNames::Root => parent.is_none(),
            SpanNames::All => true,
        };
        let data = match (described, &parent) {
            (false, Some(_)) => None,
            _ if wording.names == SpanNames::Off && !wording.labels => None,
            // The only way to a span's name and attributes leads over a copy of all its data. Without ours, it is one
            // text less to copy.
            _ => span.exported_data(),
        };
        if tagged && !self.tag(span, span_id, data.as_ref()) {
            // No attribute, no label: what is exported must lead to a profile, and the other way round.
            self.live.attribute_refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let labels = match (&data, &parent) {
            (Some(data), _) => self.describe(wording, data, cx, parent.as_ref()),
            (None, Some(parent)) if !described => parent.root_labels,
            (None, _) => LabelSetId::NONE,
        };
        let key = self.live.table.insert(&SpanRecord {
            span_id,
            parent: parent_id,
            local_root: parent.map_or(span_id, |parent| parent.local_root),
            trace_id,
            labels,
            root_labels: parent.map_or(labels, |parent| parent.root_labels),
            tagged,
        });
        if let Some(key) = key
            && live::labels_at_start()
        {
            start::started(self.live, span_id, key);
        }
    }

    /// Adds the attribute. Whether the span has it then, as far as can be told: not without `before`, what the span
    /// was before.
    fn tag(&self, span: &mut Span, span_id: SpanId, before: Option<&SpanData>) -> bool {
        span.set_attribute(KeyValue::new(Key::from_static_str(PROFILE_ID), hex(span_id)));
        let Some(before) = before else { return true };
        let attributes = before.attributes.len();
        // A provider has one limit for all of its spans, so one more copy of a span tells it for those as full or less.
        if attributes < self.room.load(Ordering::Relaxed) {
            return true;
        }
        let after = span.exported_data();
        if after.is_some_and(|after| after.dropped_attributes_count > before.dropped_attributes_count) {
            return false;
        }
        self.room.fetch_max(attributes + 1, Ordering::Relaxed);
        true
    }

    /// What samples say about the span in words.
    fn describe(
        &self,
        wording: Wording,
        data: &SpanData,
        cx: &Context,
        parent: Option<&SpanRecord>,
    ) -> LabelSetId {
        let name = if wording.names == SpanNames::Off { "" } else { &*data.name };
        if !wording.labels {
            return self.live.label_sets().intern(name, &[]);
        }
        let inherited = parent.and_then(|parent| self.live.label_sets().get(parent.labels));
        let inherited = inherited.as_ref().map_or(&[][..], |set| &set.labels);
        let labels = label_values(&self.live.label_keys(), &data.attributes, cx, inherited);
        self.live.label_sets().intern(name, &labels)
    }

    fn ended(&self, span: &SpanData) {
        if span.span_context.is_sampled() {
            let span_id = context::span_id(&span.span_context);
            self.live.table.remove(span_id);
            if live::labels_at_start() {
                start::ended(self.live, span_id);
            }
        }
    }

    fn learn(&self, resource: &Resource) {
        if let Some(labels) = &self.labels {
            labels.learn(resource);
        }
    }
}

/// 16 lower-case hexadecimal characters, most significant first, as W3C writes span ids.
fn hex(id: SpanId) -> StringValue {
    let digits = id.hex();
    StringValue::from(str::from_utf8(&digits).expect("hexadecimal digits are ASCII").to_owned())
}

impl<P: SpanProcessor> SpanProcessor for SpanProfileProcessor<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.started(span, cx);
        self.inner.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        self.ended(&span);
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        // Spans first, here and below: they are what the caller asked for. Profiles get what time is left.
        let result = self.inner.force_flush();
        self.flusher.flush_or_log(deadline.saturating_duration_since(Instant::now()));
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let start = Instant::now();
        let result = self.inner.shutdown_with_timeout(timeout);
        if let Some(profiler) = &self.owned {
            profiler.stop_or_log(timeout.saturating_sub(start.elapsed()));
        }
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.learn(resource);
        self.inner.set_resource(resource);
    }
}

impl SpanProcessor for NoProcessor {
    fn on_start(&self, _span: &mut Span, _cx: &Context) {}

    fn on_end(&self, _span: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use std::hint::black_box;

    use parking_lot::Mutex;

    use super::*;
    use crate::{ExportError, Profile, ProfileExporter};

    /// What was delivered, in order.
    #[derive(Clone, Debug, Default)]
    struct Deliveries(Arc<Mutex<Vec<&'static str>>>);

    impl ProfileExporter for Deliveries {
        fn export(&mut self, _profile: &Profile) -> Result<(), ExportError> {
            self.0.lock().push("profile");
            Ok(())
        }
    }

    impl SpanProcessor for Deliveries {
        fn on_start(&self, _span: &mut Span, _cx: &Context) {}

        fn on_end(&self, _span: SpanData) {}

        fn force_flush(&self) -> OTelSdkResult {
            self.0.lock().push("spans");
            Ok(())
        }

        fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
            assert!(timeout > Duration::ZERO);
            Ok(())
        }
    }

    /// A profiler whose windows do not end by themselves meanwhile, with a sample.
    fn sampling(deliveries: &Deliveries) -> Profiler {
        let profiler = Profiler::builder().exporter(deliveries.clone()).enabled(true).frequency(1000);
        let profiler = profiler.upload_interval(Duration::from_secs(15)).start().expect("starts");
        let deadline = Instant::now() + Duration::from_secs(60);
        while profiler.stats().samples == 0 {
            assert!(Instant::now() < deadline, "no sample");
            black_box((0..1_000_000u64).fold(0, |sum, i| sum ^ black_box(i)));
        }
        profiler
    }

    #[test]
    fn spans_are_flushed_before_profiles_whoever_holds_the_profiler() {
        let _turn = crate::sampler::TURN.lock();
        let both = Some(&["spans", "profile"]);
        let deliveries = Deliveries::default();
        let owner = SpanProfileProcessor::owning(deliveries.clone(), sampling(&deliveries));
        owner.force_flush().expect("flushed");
        assert_eq!(deliveries.0.lock().first_chunk(), both);
        drop(owner);

        let deliveries = Deliveries::default();
        let profiler = sampling(&deliveries);
        let processor = profiler.wrap(deliveries.clone());
        processor.force_flush().expect("flushed");
        assert_eq!(deliveries.0.lock().first_chunk(), both);
        processor.shutdown_with_timeout(Duration::from_secs(60)).expect("spans are");
        assert!(profiler.stats().running, "its owner stops it");
        drop(profiler);
        processor.force_flush().expect("no profile is left to wait for");
        assert_eq!(deliveries.0.lock().last(), Some(&"spans"));
    }
}
