//! Every sample belongs to the span that was active on its thread, whatever threads the span's task ran on.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use opentelemetry::trace::{FutureExt as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SimpleSpanProcessor};
use spanflame::{LabelSource, Profiler, Scope};
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::spans::{FIRST_SAMPLES, assert_no_orphans, id, named, nanos, profile_id, provider, runtime};
use crate::support::{BURNERS, Sample, alone, eventually, finish, profiler};

#[test]
fn interleaved_tasks_on_several_workers_keep_their_samples_apart() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    let tracer = provider.tracer("test");

    runtime().block_on(async {
        let mut tasks = Vec::new();
        for (name, burn) in BURNERS.iter().copied() {
            let span = tracer.start(name);
            let cx = Context::new().with_span(span);
            tasks.push(tokio::spawn(
                async move {
                    for round in 0..40 {
                        burn(Duration::from_millis(2 + round % 5));
                        // Give the worker away, so that another task goes on here and this one elsewhere.
                        if round % 4 == 0 {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        } else {
                            tokio::task::yield_now().await;
                        }
                    }
                }
                .with_context(cx),
            ));
        }
        for task in tasks {
            task.await.expect("no task fails");
        }
    });
    finish(&profiler);
    let spans = exporter.get_finished_spans().expect("spans");
    let samples = kept.samples();
    assert_no_orphans(&samples, &spans);

    let mut bare = 0;
    for (name, _) in BURNERS {
        let own = profile_id(named(&spans, name)).expect("every span is tagged");
        let burned: Vec<&Sample> = samples.iter().filter(|sample| sample.has(name)).collect();
        assert!(
            nanos(burned.iter().copied(), |_| true) > 0,
            "{name} was never seen: {stats:?}",
            stats = profiler.stats()
        );
        for sample in burned {
            if sample.span_id.is_none() {
                bare += 1;
                continue;
            }
            assert_eq!(sample.span_id.as_deref(), Some(&*own), "{sample:?}");
            assert_eq!(sample.span_name.as_deref(), Some(*name));
            assert_eq!(sample.trace_id, Some(named(&spans, name).span_context.trace_id().to_string()));
        }
    }
    assert!(bare <= FIRST_SAMPLES, "{bare} samples without a span");
    let stats = profiler.stats();
    assert_eq!(stats.lost.samples(), 0, "{stats:?}");
    assert_eq!(stats.label_source, LabelSource::Observer);
    assert!(stats.labelled > 0 && stats.labelled <= stats.samples);
    let labelled: i64 = samples.iter().filter(|s| s.span_id.is_some()).map(|s| s.count).sum();
    assert_eq!(labelled as u64, stats.labelled);
}

/// Burns in a root, in a child of it, in the root again, and in no span.
fn nest(provider: &SdkTracerProvider) {
    let tracer = provider.tracer("test");
    tracer.in_span("root", |_| {
        BURNERS[0].1(Duration::from_millis(400));
        tracer.in_span("child", |_| BURNERS[1].1(Duration::from_millis(400)));
        BURNERS[2].1(Duration::from_millis(400));
    });
    BURNERS[3].1(Duration::from_millis(400));
}

#[test]
fn a_child_counts_for_itself_or_its_root_as_the_scope_says_and_its_parent_is_restored() {
    let _turn = alone();
    // Of the receiving end, all is known: it adds children up, so that `auto` is as `all`.
    for (scope, child_counts) in [(Scope::All, true), (Scope::Auto, true), (Scope::Root, false)] {
        let (profiler, kept) = profiler(|builder| builder.scope(scope));
        let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
        if scope == Scope::Auto {
            eventually("the receiving end has been asked", || profiler.stats().scope == Scope::All);
        }
        nest(&provider);
        finish(&profiler);
        let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
        assert_no_orphans(&samples, &spans);
        let (root, child) = (named(&spans, "root"), named(&spans, "child"));
        assert_eq!(profile_id(root), Some(id(root)));
        assert_eq!(profile_id(child), child_counts.then(|| id(child)));
        let root_number = u64::from_be_bytes(root.span_context.span_id().to_bytes());
        let within = if child_counts { child } else { root };
        for (burner, span) in [(0, Some(root)), (1, Some(within)), (2, Some(root)), (3, None)] {
            let (name, _) = BURNERS[burner];
            assert!(nanos(&samples, |sample| sample.has(name)) > 0, "{name}");
            for sample in samples.iter().filter(|sample| sample.has(name)) {
                assert_eq!(sample.span_id, span.map(id), "{scope:?} {name}");
                assert_eq!(sample.span_name, span.map(|span| span.name.to_string()));
                assert_eq!(sample.local_root, span.filter(|_| child_counts).map(|_| root_number));
                assert_eq!(sample.parent, (burner == 1 && child_counts).then_some(root_number));
            }
        }
    }
}

#[test]
fn spans_that_are_not_exported_get_no_label() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (never, nothing) = provider(&profiler, Sampler::AlwaysOff);
    let (half, some) = provider(&profiler, Sampler::TraceIdRatioBased(0.5));
    let foreign_exporter = InMemorySpanExporter::default();
    let foreign = SdkTracerProvider::builder().with_simple_exporter(foreign_exporter.clone()).build();
    let (burn, foreign_burn) = (BURNERS[0], BURNERS[1]);

    never.tracer("test").in_span("never", |_| burn.1(Duration::from_millis(400)));
    foreign.tracer("test").in_span("foreign", |_| foreign_burn.1(Duration::from_millis(400)));
    let tracer = half.tracer("test");
    for _ in 0..40 {
        tracer.in_span("half", |_| BURNERS[2].1(Duration::from_millis(3)));
    }
    // One of ours inside a foreign one, and the other way round.
    foreign.tracer("test").in_span("outer", |_| {
        half.tracer("test").in_span("inner", |_| BURNERS[3].1(Duration::from_millis(5)));
    });
    finish(&profiler);

    let (samples, spans) = (kept.samples(), some.get_finished_spans().expect("spans"));
    assert_eq!(nothing.get_finished_spans().expect("spans").len(), 0);
    assert!(
        foreign_exporter.get_finished_spans().expect("spans").iter().all(|span| profile_id(span).is_none())
    );
    assert!(spans.len() > 1 && spans.len() < 41, "about half: {}", spans.len());
    assert_no_orphans(&samples, &spans);
    for (name, _) in [burn, foreign_burn] {
        assert!(nanos(&samples, |sample| sample.has(name)) > 0, "{name}");
        assert!(samples.iter().filter(|sample| sample.has(name)).all(|sample| sample.span_id.is_none()));
    }
}

#[test]
fn tracing_spans_are_followed_through_instrumented_futures() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    let dispatch = tracing::Dispatch::new(subscriber);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .on_thread_start({
            let dispatch = dispatch.clone();
            move || std::mem::forget(tracing::dispatcher::set_default(&dispatch))
        })
        .build()
        .expect("a runtime");
    let _default = tracing::dispatcher::set_default(&dispatch);
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for (index, (name, burn)) in BURNERS.iter().copied().enumerate().take(6) {
            let span = tracing::info_span!("request", otel.name = name, index);
            tasks.push(tokio::spawn(
                async move {
                    for round in 0..40 {
                        // Uneven, lest the slices run in step with the kernel's tick.
                        burn(Duration::from_millis(2 + round % 5));
                        tokio::task::yield_now().await;
                        async { BURNERS[6 + index].1(Duration::from_millis(2 + round % 3)) }
                            .instrument(tracing::info_span!("step", otel.name = BURNERS[6 + index].0))
                            .await;
                    }
                }
                .instrument(span),
            ));
        }
        for task in tasks {
            task.await.expect("no task fails");
        }
    });
    finish(&profiler);
    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    assert_no_orphans(&samples, &spans);
    let mut bare = 0;
    for (name, _) in BURNERS {
        let ids: HashSet<String> = spans.iter().filter(|span| span.name == *name).map(id).collect();
        assert!(nanos(&samples, |sample| sample.has(name)) > 0, "{name}");
        for sample in samples.iter().filter(|sample| sample.has(name)) {
            match &sample.span_id {
                Some(own) => assert!(ids.contains(own), "{name}: a foreign id {own}"),
                None => bare += 1,
            }
        }
    }
    assert!(bare <= FIRST_SAMPLES, "{bare} samples without a span");
}

#[test]
fn a_label_does_not_outlive_its_span_and_contexts_are_detached_in_any_order() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    let tracer = provider.tracer("test");
    let cx = Context::new().with_span(tracer.start_with_context("ended elsewhere", &Context::new()));
    {
        let _guard = cx.clone().attach();
        BURNERS[0].1(Duration::from_millis(400));
        std::thread::scope(|scope| {
            scope.spawn(|| cx.span().end());
        });
        BURNERS[1].1(Duration::from_millis(400));
    }
    // Detached in another order than attached.
    let (a, b) = (
        Context::new().with_span(tracer.start_with_context("a", &Context::new())),
        Context::new().with_span(tracer.start_with_context("b", &Context::new())),
    );
    let (first, second) = (a.clone().attach(), b.clone().attach());
    drop(first);
    BURNERS[2].1(Duration::from_millis(400));
    drop(second);
    BURNERS[3].1(Duration::from_millis(400));
    drop((a, b));
    finish(&profiler);

    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    let expected: HashMap<usize, Option<String>> = HashMap::from([
        (0, Some(id(named(&spans, "ended elsewhere")))),
        (1, None),
        (2, Some(id(named(&spans, "b")))),
        (3, None),
    ]);
    for (burner, span_id) in expected {
        let (name, _) = BURNERS[burner];
        assert!(nanos(&samples, |sample| sample.has(name)) > 0, "{name}");
        for sample in samples.iter().filter(|sample| sample.has(name)) {
            assert_eq!(sample.span_id, span_id, "{name}");
        }
    }
}

#[test]
fn profiles_are_labelled_with_the_provider_s_resource_and_carry_true_times() {
    let _turn = alone();
    let before = std::time::SystemTime::now();
    let (profiler, kept) = profiler(|builder| builder.label("region", "eu"));
    let (provider, _exporter) = provider(&profiler, Sampler::AlwaysOn);
    provider.tracer("test").in_span("work", |_| BURNERS[0].1(Duration::from_millis(400)));
    profiler.flush(Duration::from_secs(60)).expect("delivered");
    provider.tracer("test").in_span("work", |_| BURNERS[0].1(Duration::from_millis(400)));
    finish(&profiler);
    let profiles = kept.profiles();
    // More on a machine so busy that a window ended by itself.
    assert!(profiles.len() >= 2);
    assert!(profiles[0].start >= before);
    for pair in profiles.windows(2) {
        assert!(pair[1].start >= pair[0].start + pair[0].duration - Duration::from_millis(1));
    }
    for profile in &profiles {
        let value =
            |key: &str| profile.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        assert_eq!(value("__name__"), Some("process_cpu"));
        assert_eq!(value("service_name"), Some("checkout"));
        assert_eq!(value("region"), Some("eu"));
        assert_eq!(value("process.runtime.name"), Some("rust"));
    }
}

#[test]
fn an_attribute_that_finds_no_room_means_no_label() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_max_attributes_per_span(1)
        .with_span_processor(profiler.wrap(SimpleSpanProcessor::new(exporter.clone())))
        .build();
    let tracer = provider.tracer("test");
    // One that has room, first: what it teaches about the limit holds for spans that are no fuller.
    for _ in 0..2 {
        drop(tracer.start("empty"));
    }
    let builder = tracer.span_builder("full").with_attributes([KeyValue::new("a", 1)]);
    let cx = Context::new().with_span(builder.start_with_context(&tracer, &Context::new()));
    {
        let _guard = cx.attach();
        BURNERS[0].1(Duration::from_millis(400));
    }
    finish(&profiler);
    let spans = exporter.get_finished_spans().expect("spans");
    assert_eq!(profile_id(named(&spans, "full")), None);
    assert!(spans.iter().filter(|span| span.name == "empty").all(|span| profile_id(span).is_some()));
    assert!(kept.samples().iter().all(|sample| sample.span_id.is_none()));
    assert_eq!(profiler.stats().lost.attribute_refused, 1);
}

#[test]
fn stacks_are_whole_and_show_inlined_calls_with_files_and_lines() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder);
    BURNERS[4].1(Duration::from_millis(400));
    finish(&profiler);
    let samples = kept.samples();
    // The loop is inlined into the function that burns, which this test calls.
    let burned = samples.iter().filter(|sample| sample.has(BURNERS[4].0));
    let mut seen = 0;
    for Sample { frames, places, .. } in burned {
        seen += 1;
        let burner = frames.iter().position(|frame| frame == "bridge::support::burn_ebony");
        let burner = burner.unwrap_or_else(|| panic!("a name with its path: {frames:?}"));
        assert!(frames[burner - 1].ends_with("spin"), "{frames:?}");
        assert!(frames[burner + 1].starts_with("bridge::attribution::stacks_are_whole"), "{frames:?}");
        for frame in [burner - 1, burner] {
            let (file, line) = &places[frame];
            assert!(file.ends_with("tests/bridge/support.rs") && *line > 100, "{file}:{line}");
        }
        let hashed = |frame: &String| frame.rsplit_once("::h").is_some_and(|(_, hash)| hash.len() == 16);
        assert!(!frames.iter().any(hashed), "{frames:?}");
    }
    assert!(seen > 0);
    let stats = profiler.stats();
    assert!(stats.complete_stacks > 0.9, "{stats:?}");
    assert!(stats.effective_frequency > 0.0 && stats.effective_frequency <= 1000.0);
}

#[test]
fn work_on_other_threads_counts_for_the_span_where_its_context_is_taken_along() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    let tracer = provider.tracer("test");
    let cx = Context::new().with_span(tracer.start_with_context("request", &Context::new()));
    runtime().block_on(
        async {
            let cx = Context::current();
            tokio::task::spawn_blocking(move || {
                let _active = cx.attach();
                BURNERS[0].1(Duration::from_millis(400));
            })
            .await
            .expect("it ends well");
            tokio::task::spawn_blocking(|| BURNERS[1].1(Duration::from_millis(400)))
                .await
                .expect("it ends well");
        }
        .with_context(cx.clone()),
    );
    cx.span().end();
    finish(&profiler);
    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    for (burner, span_id) in [(0, Some(id(named(&spans, "request")))), (1, None)] {
        let (name, _) = BURNERS[burner];
        assert!(nanos(&samples, |sample| sample.has(name)) > 0, "{name}");
        assert!(samples.iter().filter(|sample| sample.has(name)).all(|sample| sample.span_id == span_id));
    }
}

/// Makes a span while it exports, as an instrumented HTTP client would.
struct Chatty {
    tracer: opentelemetry_sdk::trace::SdkTracer,
    suppressed: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl spanflame::ProfileExporter for Chatty {
    fn export(&mut self, _profile: &spanflame::Profile) -> Result<(), spanflame::ExportError> {
        self.suppressed
            .store(Context::is_current_telemetry_suppressed(), std::sync::atomic::Ordering::Release);
        self.tracer.in_span("push", |_| ());
        Ok(())
    }
}

#[test]
fn delivering_a_profile_makes_no_spans() {
    let _turn = alone();
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let suppressed = std::sync::Arc::default();
    let chatty = Chatty { tracer: provider.tracer("test"), suppressed: std::sync::Arc::clone(&suppressed) };
    let builder = Profiler::builder().exporter(chatty).frequency(1000).enabled(true);
    let profiler = builder.start().expect("the profiler starts");
    BURNERS[0].1(Duration::from_millis(400));
    finish(&profiler);
    assert!(profiler.stats().profiles >= 1);
    assert!(suppressed.load(std::sync::atomic::Ordering::Acquire));
    assert!(exporter.get_finished_spans().expect("spans").is_empty());
}
