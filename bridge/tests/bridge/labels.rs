//! What samples say about their span in words: whose name, which labels, and how many of them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{BURNERS, Sample, alone, finish, profiler};
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::trace::{SpanBuilder, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider, SimpleSpanProcessor};
use spanflame::{Profiler, Scope, SpanNames};

const ENOUGH: Duration = Duration::from_millis(400);

fn tracer(profiler: &Profiler) -> SdkTracer {
    let processor = profiler.wrap(SimpleSpanProcessor::new(InMemorySpanExporter::default()));
    SdkTracerProvider::builder().with_span_processor(processor).build().tracer("test")
}

fn burned(samples: &[Sample], burner: usize) -> Vec<&Sample> {
    let burned: Vec<_> = samples.iter().filter(|sample| sample.has(BURNERS[burner].0)).collect();
    assert!(!burned.is_empty(), "{}", BURNERS[burner].0);
    burned
}

#[test]
fn the_name_has_a_scope_of_its_own() {
    let _turn = alone();
    let own_and_root = (Some("child"), Some("root"));
    for (scope, names, (of_child, of_root)) in [
        (Scope::All, SpanNames::Auto, own_and_root),
        (Scope::Root, SpanNames::Auto, (Some("root"), Some("root"))),
        (Scope::All, SpanNames::Root, (Some("root"), Some("root"))),
        (Scope::Root, SpanNames::All, own_and_root),
        (Scope::All, SpanNames::Off, (None, None)),
        (Scope::Root, SpanNames::Off, (None, None)),
    ] {
        let (profiler, kept) = profiler(|builder| builder.scope(scope).span_names(names));
        let tracer = tracer(&profiler);
        let (mut root_id, mut child_id) = (String::new(), String::new());
        tracer.in_span("root", |cx| {
            root_id = cx.span().span_context().span_id().to_string();
            tracer.in_span("child", |cx| {
                child_id = cx.span().span_context().span_id().to_string();
                BURNERS[0].1(ENOUGH);
            });
            BURNERS[1].1(ENOUGH);
        });
        finish(&profiler);
        let samples = kept.samples();
        let id_of_child = if scope == Scope::All { &child_id } else { &root_id };
        for (burner, id, name) in [(0, id_of_child, of_child), (1, &root_id, of_root)] {
            for sample in burned(&samples, burner) {
                assert_eq!(sample.span_id.as_ref(), Some(id), "{scope:?} {names:?}");
                assert_eq!(sample.span_name.as_deref(), name, "{scope:?} {names:?}");
            }
        }
    }
}

#[test]
fn attributes_and_baggage_become_labels_that_children_have_too() {
    let _turn = alone();
    let configure = |scope| {
        profiler(|builder| {
            builder.scope(scope).attribute_label("http.route").attribute_label("step").baggage_label("tenant")
        })
    };
    for scope in [Scope::All, Scope::Root] {
        let (profiler, kept) = configure(scope);
        let tracer = tracer(&profiler);
        let incoming = Context::new().with_baggage([KeyValue::new("tenant", "acme")]);
        let start = |name: &'static str, attributes: &[KeyValue], parent: &Context| {
            let builder = SpanBuilder::from_name(name).with_attributes(attributes.to_vec());
            Context::new().with_span(builder.start_with_context(&tracer, parent))
        };
        let root = start("root", &[KeyValue::new("http.route", "/pay"), KeyValue::new("user", 7)], &incoming);
        // Nothing but the parent's span is in this context: its baggage is not.
        let child = start("child", &[KeyValue::new("step", 2)], &root);
        let stranger = start("stranger", &[], &Context::new());
        for (burner, cx) in [&root, &child, &stranger].into_iter().enumerate() {
            let _active = cx.clone().attach();
            BURNERS[burner].1(ENOUGH);
        }
        drop((root, child, stranger));
        finish(&profiler);
        let samples = kept.samples();
        let of_root = vec![("http_route", "/pay"), ("tenant", "acme")];
        let of_child = match scope {
            Scope::All => vec![("http_route", "/pay"), ("step", "2"), ("tenant", "acme")],
            _ => of_root.clone(),
        };
        for (burner, expected) in [(0, of_root), (1, of_child), (2, Vec::new())] {
            for sample in burned(&samples, burner) {
                let labels: Vec<_> = sample.labels.iter().map(|(k, v)| (&**k, &**v)).collect();
                assert_eq!(labels, expected, "{scope:?}");
            }
        }
    }
}

#[test]
fn names_are_bounded_in_each_profile_and_normalized_on_the_profiler_s_own_thread() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| {
        builder.max_span_names(2).span_name_normalizer(|name| {
            assert_eq!(std::thread::current().name(), Some("spanflame-collect"));
            Cow::Borrowed(name.split('?').next().unwrap_or(name))
        })
    });
    let tracer = tracer(&profiler);
    let deadline = Instant::now() + Duration::from_secs(240);
    // A window may end anywhere in a round, and on a slow machine more than once: then fewer names meet in it.
    let mut round = 0;
    while round < 2 || profiler.stats().folded.span_names < 2 {
        assert!(Instant::now() < deadline, "{:?}", profiler.stats());
        for (path, (_, burn)) in BURNERS.iter().enumerate().take(4) {
            for query in 0..3 {
                tracer.in_span(format!("{round}/{path}?{query}"), |_| burn(Duration::from_millis(150)));
            }
        }
        profiler.flush(Duration::from_secs(60)).expect("delivered");
        round += 1;
    }
    finish(&profiler);
    let mut names = BTreeSet::new();
    for profile in kept.profiles() {
        let mut of_profile = BTreeSet::new();
        for sample in crate::support::decode(&profile.pprof) {
            let Some(path) = (0..4).find(|path| sample.has(BURNERS[*path].0)) else { continue };
            // The first sample may be taken before the thread is known.
            let Some(name) = sample.span_name else { continue };
            if name != "other" {
                let (round_of, path_of) = name.split_once('/').expect("a round and a path, without a query");
                assert!(round_of.parse::<u32>().is_ok_and(|of| of < round), "{name}");
                assert_eq!(path_of, path.to_string());
            }
            of_profile.insert(name);
        }
        assert!(of_profile.iter().filter(|name| *name != "other").count() <= 2, "{of_profile:?}");
        names.append(&mut of_profile);
    }
    assert!(names.contains("other") && names.len() >= 3, "{names:?}");
    let folded = profiler.stats().folded;
    assert!(folded.span_names >= 2 && folded.labels == 0 && folded.normalizer_panics == 0, "{folded:?}");
}

/// Short spans are not exact one by one: at 100 samples a second, 5 ms of CPU make a sample in every other span. Over
/// many, the sum is right.
#[test]
fn a_thousand_short_spans_add_up_although_many_have_no_sample() {
    const SPANS: u32 = 1000;
    const EACH: Duration = Duration::from_millis(5);
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All).frequency(100));
    let tracer = tracer(&profiler);
    let (before, began) = (crate::support::cpu_time(), Instant::now());
    for _ in 0..SPANS {
        tracer.in_span("short", |_| BURNERS[0].1(EACH));
    }
    let used = crate::support::cpu_time() - before;
    finish(&profiler);
    let samples = kept.samples();
    let in_spans: Vec<&Sample> = samples.iter().filter(|s| s.span_name.as_deref() == Some("short")).collect();
    let mut ids: Vec<&str> = in_spans.iter().filter_map(|s| s.span_id.as_deref()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(!ids.is_empty() && ids.len() < SPANS as usize, "{} spans have samples", ids.len());
    let nanos: i64 = in_spans.iter().map(|sample| sample.nanos).sum();
    // A period of 10 ms ends at a random place of each span of 5: a binomial count around half the spans. Each sample
    // is 10 ms, so the sum's standard error is at most sqrt(1000) / 2 of them; five of those.
    let error = Duration::from_millis(10) * 16 * 5;
    let sum = Duration::from_nanos(nanos as u64);
    let range = used.saturating_sub(error)..used + error;
    assert!(range.contains(&sum), "{sum:?} of {used:?} in {:?}", began.elapsed());
}
