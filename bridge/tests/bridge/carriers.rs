//! What carries labels to threads: guard, future, closure and `tracing` layer. These tests are run twice: where the
//! profiler observes contexts, and, by `foreign_observer`, where another component does.

use std::collections::HashSet;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use rayon::prelude::*;
use spanflame::{LabelSource, Scope, SpanProfileExt as _, SpanProfileLayer, attach, in_current_context};
use tracing::{Dispatch, Instrument as _};
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::spans::{
    FIRST_SAMPLES, assert_labels, assert_no_orphans, id, named, nanos, profile_id, provider, runtime,
};
use crate::support::{BURNERS, Sample, alone, finish, observed, profiler};

/// How long to burn where a sample is expected.
const LONG: Duration = Duration::from_millis(350);

fn burn(burner: usize) {
    BURNERS[burner].1(LONG);
}

/// A root span, in a context of its own.
fn root(provider: &SdkTracerProvider, name: &str) -> Context {
    let tracer = provider.tracer("test");
    Context::new().with_span(tracer.start_with_context(name.to_owned(), &Context::new()))
}

/// A child of the current span.
fn child(provider: &SdkTracerProvider, name: &str) -> Context {
    Context::current_with_span(provider.tracer("test").start(name.to_owned()))
}

/// OpenTelemetry's layer with or without context activation, and ours after or before it.
#[derive(Clone, Copy, Debug)]
struct Layers {
    activation: bool,
    ours_first: bool,
}

impl Layers {
    const EVERY: [Self; 4] = [
        Self { activation: true, ours_first: false },
        Self { activation: true, ours_first: true },
        Self { activation: false, ours_first: false },
        Self { activation: false, ours_first: true },
    ];

    fn dispatch(self, provider: &SdkTracerProvider) -> Dispatch {
        let tracer = provider.tracer("test");
        let ours = SpanProfileLayer::new();
        let registry = tracing_subscriber::registry();
        if self.ours_first {
            let otel = tracing_opentelemetry::layer().with_tracer(tracer);
            registry.with(ours).with(otel.with_context_activation(self.activation)).into()
        } else {
            let otel = tracing_opentelemetry::layer().with_tracer(tracer);
            registry.with(otel.with_context_activation(self.activation)).with(ours).into()
        }
    }
}

/// Layers in a list, which does not tell them their dispatch.
fn list_of_layers(provider: &SdkTracerProvider) -> Dispatch {
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let layers = vec![otel.with_context_activation(false).boxed(), SpanProfileLayer::new().boxed()];
    tracing_subscriber::registry().with(layers).into()
}

/// Burns 0 in "… root", 1 in its child, 2 in the root again, and 3 in no span.
fn nest_guards(provider: &SdkTracerProvider) {
    let cx = root(provider, "guard root");
    {
        let _root = attach(cx);
        burn(0);
        {
            let _child = attach(child(provider, "guard child"));
            burn(1);
        }
        burn(2);
    }
    burn(3);
}

fn nest_futures(provider: &SdkTracerProvider) {
    let body = async {
        burn(0);
        tokio::task::yield_now().await;
        async { burn(1) }.with_span_profile(child(provider, "future child")).await;
        async { burn(2) }.with_current_span_profile().await;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(body.with_span_profile(root(provider, "future root")));
    burn(3);
}

fn nest_closures(provider: &SdkTracerProvider) {
    let within = |cx: Context, burner| {
        let work = {
            let _active = attach(cx);
            in_current_context(move || burn(burner))
        };
        // Where nothing is current.
        work();
    };
    let root = root(provider, "closure root");
    within(root.clone(), 0);
    let child = {
        let _root = attach(root.clone());
        child(provider, "closure child")
    };
    within(child, 1);
    within(root, 2);
    burn(3);
}

fn nest_tracing(style: &str, dispatch: &Dispatch) {
    let _default = tracing::dispatcher::set_default(dispatch);
    tracing::info_span!("root", otel.name = format!("{style} root")).in_scope(|| {
        burn(0);
        tracing::info_span!("child", otel.name = format!("{style} child")).in_scope(|| burn(1));
        burn(2);
    });
    burn(3);
}

#[test]
fn each_carrier_labels_a_thread_and_gives_the_label_back() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    // The first use of a carrier; spans before it are not tagged where contexts are not observed.
    drop(attach(Context::new()));
    assert_eq!(
        profiler.stats().label_source,
        if observed() { LabelSource::Observer } else { LabelSource::Wrappers }
    );

    nest_guards(&provider);
    nest_futures(&provider);
    nest_closures(&provider);
    for layers in Layers::EVERY {
        nest_tracing(&format!("{layers:?}"), &layers.dispatch(&provider));
    }
    nest_tracing("list", &list_of_layers(&provider));
    finish(&profiler);
    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    assert_no_orphans(&samples, &spans);

    let styles = ["guard", "future", "closure", "list"].map(str::to_owned);
    let styles: Vec<String> =
        styles.into_iter().chain(Layers::EVERY.map(|layers| format!("{layers:?}"))).collect();
    for (burner, kind) in [(0, " root"), (1, " child"), (2, " root"), (3, "")] {
        let (name, _) = BURNERS[burner];
        let mut expected: HashSet<Option<String>> = styles
            .iter()
            .map(|style| (burner != 3).then(|| id(named(&spans, &format!("{style}{kind}")))))
            .collect();
        let seen: HashSet<Option<String>> =
            samples.iter().filter(|sample| sample.has(name)).map(|sample| sample.span_id.clone()).collect();
        expected.retain(|id| !seen.contains(id));
        assert!(expected.is_empty(), "{name}: no samples of {expected:?}");
        let own = |id: &Option<String>| {
            spans
                .iter()
                .any(|span| (Some(crate::spans::id(span)) == *id) && span.name.ends_with(kind) && burner != 3)
        };
        let foreign: Vec<_> =
            seen.iter().filter(|id| burner == 3 && id.is_some() || burner != 3 && !own(id)).collect();
        assert!(foreign.is_empty(), "{name}: samples of {foreign:?}");
    }
    // Both ids on every sample.
    for child in spans.iter().filter(|span| span.name.ends_with(" child")) {
        let parent = u64::from_be_bytes(child.parent_span_id.to_bytes());
        let own = id(child);
        let inner: Vec<&Sample> =
            samples.iter().filter(|sample| sample.span_id.as_ref() == Some(&own)).collect();
        assert!(!inner.is_empty() && parent != 0);
        for sample in inner {
            assert_eq!((sample.parent, sample.local_root), (Some(parent), Some(parent)), "{}", child.name);
        }
    }
}

#[test]
fn guards_and_entered_spans_may_be_dropped_in_any_order() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    drop(attach(Context::new()));
    {
        let [a, b, c] = ["a", "b", "c"].map(|name| root(&provider, name));
        let (first, second, third) = (attach(a), attach(b), attach(c));
        drop(second);
        burn(0);
        drop(third);
        burn(1);
        drop(first);
        burn(2);
    }
    for (layers, burner) in Layers::EVERY.into_iter().zip([3, 5, 7, 9]) {
        let dispatch = layers.dispatch(&provider);
        let _default = tracing::dispatcher::set_default(&dispatch);
        let span = |name| tracing::info_span!(parent: None, "span", otel.name = format!("{layers:?} {name}"));
        let (first, second) = (span("first"), span("second"));
        let (outer, inner) = (first.enter(), second.enter());
        drop(outer);
        burn(burner);
        drop(inner);
        burn(burner + 1);
    }
    finish(&profiler);
    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    assert_labels(&samples, &[(0, Some(named(&spans, "c"))), (1, Some(named(&spans, "a"))), (2, None)]);
    for (layers, burner) in Layers::EVERY.into_iter().zip([3, 5, 7, 9]) {
        let second = named(&spans, &format!("{layers:?} second")).clone();
        assert_labels(&samples, &[(burner, Some(&second)), (burner + 1, None)]);
    }
}

#[test]
fn what_is_not_exported_has_no_label_and_what_is_around_it_gets_its_own_back() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (ours, exporter) = provider(&profiler, Sampler::AlwaysOn);
    let (unsampled, nothing) = provider(&profiler, Sampler::AlwaysOff);
    let foreign = SdkTracerProvider::builder().build();
    drop(attach(Context::new()));
    let remote =
        SpanContext::new(TraceId::from(7), SpanId::from(9), TraceFlags::SAMPLED, true, TraceState::NONE);
    let outer = root(&ours, "outer");
    {
        let _outer = attach(outer.clone());
        for (burner, inner) in [
            root(&unsampled, "unsampled"),
            root(&foreign, "foreign"),
            Context::new().with_remote_span_context(remote),
            Context::new(),
            outer.with_telemetry_suppressed(),
            outer.with_value(7u8),
            root(&ours, "another root"),
        ]
        .into_iter()
        .enumerate()
        {
            let _inner = attach(inner);
            burn(burner);
        }
        burn(7);
    }
    drop(outer);
    finish(&profiler);
    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    assert_no_orphans(&samples, &spans);
    assert!(nothing.get_finished_spans().expect("spans").is_empty());
    let (outer, another) = (Some(named(&spans, "outer")), Some(named(&spans, "another root")));
    assert_labels(&samples, &[(0, None), (1, None), (2, None), (3, None)]);
    assert_labels(&samples, &[(4, outer), (5, outer), (6, another), (7, outer)]);
}

#[test]
fn a_span_that_ends_elsewhere_leaves_no_label() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    drop(attach(Context::new()));
    let [guard, future] = ["guard", "future"].map(|name| root(&provider, name));
    let end = |cx: &Context| {
        let cx = cx.clone();
        std::thread::spawn(move || cx.span().end()).join().expect("no panic");
    };
    {
        let _active = attach(guard.clone());
        burn(0);
        end(&guard);
        burn(1);
    }
    runtime().block_on(
        async {
            burn(2);
            end(&future);
            burn(3);
            tokio::task::yield_now().await;
            burn(4);
        }
        .with_span_profile(future.clone()),
    );
    finish(&profiler);
    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    let (guard, future) = (named(&spans, "guard"), named(&spans, "future"));
    assert_labels(&samples, &[(0, Some(guard)), (1, None), (2, Some(future)), (3, None), (4, None)]);
}

#[test]
fn a_context_between_two_tracing_spans_counts_where_it_can_be_seen() {
    let _turn = alone();
    // Each is burned four times.
    let short = |burner: usize| BURNERS[burner].1(LONG / 3);
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    for (plain, first) in [(true, 0), (false, 6)] {
        for layers in Layers::EVERY {
            let dispatch = layers.dispatch(&provider);
            let _default = tracing::dispatcher::set_default(&dispatch);
            tracing::info_span!("outer").in_scope(|| {
                short(first);
                let cx = child(&provider, "between");
                let between = || {
                    short(first + 1);
                    tracing::info_span!("inner").in_scope(|| short(first + 2));
                    short(first + 3);
                };
                if plain {
                    let _active = cx.attach();
                    between();
                } else {
                    let _active = attach(cx);
                    between();
                }
                short(first + 4);
            });
            short(first + 5);
        }
    }
    finish(&profiler);
    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    assert_no_orphans(&samples, &spans);
    for (first, seen) in [(0, observed()), (6, true)] {
        // What nobody tells us of does not change the label.
        let between = if seen { "between" } else { "outer" };
        let expected = [Some("outer"), Some(between), Some("inner"), Some(between), Some("outer"), None];
        for (burner, expected) in expected.into_iter().enumerate() {
            let (name, _) = BURNERS[first + burner];
            let burned: Vec<&Sample> = samples.iter().filter(|sample| sample.has(name)).collect();
            assert!(nanos(burned.iter().copied(), |_| true) > 0, "{name}");
            for sample in burned {
                assert_eq!(sample.span_name.as_deref(), expected, "{name}");
            }
        }
    }
}

#[test]
fn closures_take_the_span_along_to_threads_and_pools() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
    let run = |name: &str, first: usize| {
        std::thread::scope(|scope| scope.spawn(in_current_context(|| burn(first))).join()).expect("no panic");
        runtime().block_on(async {
            let blocking = tokio::task::spawn_blocking(in_current_context(move || burn(first + 1)));
            blocking.await.expect(name);
        });
        pool.install(in_current_context(|| burn(first + 2)));
        let cx = Context::current();
        pool.install(|| {
            (0..8).into_par_iter().for_each_init(
                || attach(cx.clone()),
                |_active, _| BURNERS[first + 3].1(Duration::from_millis(60)),
            );
        });
    };
    {
        let _active = attach(root(&provider, "request"));
        run("guard", 0);
    }
    // What a layer labels without attaching it is taken along as well.
    let dispatch = Layers { activation: false, ours_first: false }.dispatch(&provider);
    tracing::dispatcher::with_default(&dispatch, || {
        tracing::info_span!("job").in_scope(|| run("layer", 4));
    });
    std::thread::spawn(|| burn(8)).join().expect("no panic");
    pool.install(|| burn(9));
    finish(&profiler);
    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    let (request, job) = (Some(named(&spans, "request")), Some(named(&spans, "job")));
    for (burner, span) in (0..4).map(|n| (n, request)).chain((4..8).map(|n| (n, job))) {
        let (name, _) = BURNERS[burner];
        let seen: Vec<Option<String>> =
            samples.iter().filter(|sample| sample.has(name)).map(|sample| sample.span_id.clone()).collect();
        let labelled = seen.iter().flatten().count();
        assert!(
            labelled > 0 && seen.iter().flatten().all(|seen| Some(seen) == span.map(id).as_ref()),
            "{name}"
        );
        // Each burns on at most two threads.
        assert!(seen.len() - labelled <= 2, "{name}: {seen:?}");
    }
    assert_labels(&samples, &[(8, None), (9, None)]);
}

/// Burns in slices and gives the worker away in between.
async fn take_turns(burner: usize) {
    for round in 0..40 {
        BURNERS[burner].1(Duration::from_millis(2 + round % 5));
        if round % 4 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// Polls within a guard of its own.
async fn within_guards(future: impl Future<Output = ()>, cx: Context) {
    let mut future = pin!(future);
    std::future::poll_fn(|task| {
        let _active = attach(cx.clone());
        future.as_mut().poll(task)
    })
    .await;
}

#[test]
fn interleaved_tasks_keep_their_samples_apart_whatever_carries_their_spans() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    // Two subscribers: their spans have the same numbers.
    let layers = [(true, false), (false, true)];
    let dispatches =
        layers.map(|(activation, ours_first)| Layers { activation, ours_first }.dispatch(&provider));
    runtime().block_on(async {
        let mut tasks = Vec::new();
        for (burner, (name, _)) in BURNERS.iter().enumerate() {
            let work: Pin<Box<dyn Future<Output = ()> + Send>> = match burner % 5 {
                0 => Box::pin(take_turns(burner).with_span_profile(root(&provider, name))),
                1 => Box::pin(within_guards(take_turns(burner), root(&provider, name))),
                2 => Box::pin(in_blocking_tasks(burner, root(&provider, name))),
                which => {
                    let dispatch = &dispatches[which - 3];
                    let span = tracing::dispatcher::with_default(dispatch, || {
                        tracing::info_span!("task", otel.name = *name)
                    });
                    Box::pin(take_turns(burner).instrument(span))
                }
            };
            tasks.push(tokio::spawn(work));
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
        let own = profile_id(named(&spans, name)).expect("every span is tagged");
        let burned: Vec<&Sample> = samples.iter().filter(|sample| sample.has(name)).collect();
        assert!(!burned.is_empty(), "{name} was never seen");
        for sample in burned {
            match &sample.span_id {
                Some(id) => assert_eq!(*id, own, "{name}: a foreign id"),
                None => bare += 1,
            }
        }
    }
    // The blocking tasks have threads of their own, as many again.
    assert!(bare <= 2 * FIRST_SAMPLES, "{bare} samples without a span");
}

/// Each slice on whatever thread of the blocking pool is free.
async fn in_blocking_tasks(burner: usize, cx: Context) {
    for round in 0..40 {
        let slice = {
            let _active = attach(cx.clone());
            in_current_context(move || BURNERS[burner].1(Duration::from_millis(2 + round % 5)))
        };
        tokio::task::spawn_blocking(slice).await.expect("no panic");
    }
}
