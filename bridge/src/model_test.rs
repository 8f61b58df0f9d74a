//! Random interleavings of spans over threads and tasks, against a small model: after every step, what each thread's
//! label resolves to, and in the end what the encoder makes of it. Threads run in lockstep, so nothing depends on time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{
    FutureExt as _, SpanBuilder, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    TracerProvider as _,
};
use opentelemetry::{Context, ContextGuard};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use parking_lot::Mutex;
use proptest::prelude::*;
use prost::Message as _;
use pyroscope::encode::r#gen::google;

use crate::aggregate::{Added, Aggregator, Editor, Limits, SpanLabel, Window};
use crate::config::SpanNames;
use crate::export::pprof::{self, SampleLabels};
use crate::live::{Charge, Live, Tagging};
use crate::spans::SpanRecord;
use crate::symbolize::Symbolizer;
use crate::{ExportError, Profile, ProfileExporter, Profiler, sampler};

const THREADS: usize = 3;

struct Nowhere;

impl ProfileExporter for Nowhere {
    fn export(&mut self, _profile: &Profile) -> Result<(), ExportError> {
        Ok(())
    }
}

/// Who makes a span.
#[derive(Clone, Copy, Debug)]
enum Maker {
    Ours,
    /// A second provider of ours.
    Another,
    /// Ours, and not sampled.
    Unsampled,
    /// Without a processor of ours.
    Foreign,
}

#[derive(Clone, Copy, Debug)]
enum Parent {
    None,
    /// What is current on the thread.
    Current,
    /// A context made earlier.
    Context(usize),
    Remote,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Start {
        thread: usize,
        maker: Maker,
        parent: Parent,
    },
    End {
        thread: usize,
        span: usize,
    },
    Evict {
        span: usize,
    },
    /// Another context with the same span.
    Derive {
        context: usize,
    },
    Attach {
        thread: usize,
        context: usize,
    },
    AttachNothing {
        thread: usize,
    },
    /// Drops a guard that is held, the newest or any.
    Detach {
        thread: usize,
        guard: usize,
    },
    /// A task that runs in a context; polled here and there.
    Spawn {
        context: usize,
    },
    Poll {
        thread: usize,
        task: usize,
    },
    Tag(Tagging),
    Name(SpanNames),
}

fn step() -> impl Strategy<Value = Step> {
    let (thread, any) = (0..THREADS, 0..1000usize);
    let maker = prop_oneof![
        6 => Just(Maker::Ours),
        2 => Just(Maker::Another),
        1 => Just(Maker::Unsampled),
        1 => Just(Maker::Foreign),
    ];
    let parent = prop_oneof![
        2 => Just(Parent::None),
        5 => Just(Parent::Current),
        3 => any.clone().prop_map(Parent::Context),
        1 => Just(Parent::Remote),
    ];
    prop_oneof![
        8 => (thread.clone(), maker, parent).prop_map(|(thread, maker, parent)| Step::Start { thread, maker, parent }),
        3 => (thread.clone(), any.clone()).prop_map(|(thread, span)| Step::End { thread, span }),
        1 => any.clone().prop_map(|span| Step::Evict { span }),
        1 => any.clone().prop_map(|context| Step::Derive { context }),
        8 => (thread.clone(), any.clone()).prop_map(|(thread, context)| Step::Attach { thread, context }),
        1 => thread.clone().prop_map(|thread| Step::AttachNothing { thread }),
        6 => (thread.clone(), prop_oneof![2 => Just(0), 1 => any.clone()])
            .prop_map(|(thread, guard)| Step::Detach { thread, guard }),
        2 => any.clone().prop_map(|context| Step::Spawn { context }),
        4 => (thread, any).prop_map(|(thread, task)| Step::Poll { thread, task }),
        1 => prop_oneof![Just(Tagging::Root), Just(Tagging::All), Just(Tagging::Off)].prop_map(Step::Tag),
        1 => prop_oneof![
            Just(SpanNames::Auto), Just(SpanNames::Root), Just(SpanNames::All), Just(SpanNames::Off)
        ]
        .prop_map(Step::Name),
    ]
}

/// What should be known of a span.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    span: SpanId,
    trace: TraceId,
    parent: Option<SpanId>,
    root: SpanId,
    tagged: bool,
    name: String,
    root_name: String,
}

struct ModelSpan {
    context: SpanContext,
    /// `None` when none of our processors tagged it or its local root.
    known: Option<Known>,
    lives: bool,
}

#[derive(Clone)]
struct ModelContext {
    real: Context,
    span: Option<usize>,
    /// Whether its span was alive when the context was made: then a child finds it even after its end.
    remembers: bool,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// With the context that it runs in, and where it notes what it sees.
type ModelTask = (ModelContext, Arc<Mutex<Task>>, Arc<Mutex<Option<SpanRecord>>>);

type Guards = Vec<Option<ContextGuard>>;
type Order = Box<dyn FnOnce(&mut Guards) -> Option<SpanRecord> + Send>;

/// A thread that does what it is told, one thing after the other.
struct Worker {
    orders: Sender<Order>,
    replies: Receiver<Option<SpanRecord>>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start() -> Self {
        let (orders, inbox) = channel::<Order>();
        let (outbox, replies) = channel();
        let thread = thread::spawn(move || {
            let mut guards = Guards::new();
            for order in inbox {
                let reply = order(&mut guards);
                if outbox.send(reply).is_err() {
                    return;
                }
            }
        });
        Self { orders, replies, thread }
    }

    fn tell(
        &self,
        order: impl FnOnce(&mut Guards) -> Option<SpanRecord> + Send + 'static,
    ) -> Option<SpanRecord> {
        self.orders.send(Box::new(order)).expect("the thread lives");
        self.replies.recv().expect("the thread lives")
    }

    fn run(&self, order: impl FnOnce(&mut Guards) + Send + 'static) {
        self.tell(move |guards| {
            order(guards);
            None
        });
    }
}

/// What a sample of the calling thread would carry now.
fn seen() -> Option<SpanRecord> {
    Live::get().table.read(sampler::label())
}

/// The real thing and the model, side by side.
struct World<'a> {
    workers: &'a [Worker],
    tracers: &'a [SdkTracer; 4],
    charge: Charge,
    tagging: Tagging,
    names: SpanNames,
    spans: Vec<ModelSpan>,
    contexts: Vec<ModelContext>,
    /// Per thread, what is attached; a hole where a guard was dropped out of order.
    attached: Vec<Vec<Option<ModelContext>>>,
    tasks: Vec<ModelTask>,
    /// Every record that was seen, with what it should say.
    observed: Vec<(SpanRecord, Known)>,
}

impl World<'_> {
    fn current(&self, thread: usize) -> ModelContext {
        let top = self.attached[thread].last().cloned().flatten();
        top.unwrap_or(ModelContext { real: Context::new(), span: None, remembers: false })
    }

    fn expected(&self, context: &ModelContext) -> Option<&Known> {
        let span = &self.spans[context.span?];
        span.known.as_ref().filter(|_| span.lives)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Start { thread, maker, parent } => self.start(thread, maker, parent),
            Step::End { thread, span } => {
                let Some((real, index)) = self.pick_span(span) else { return };
                self.workers[thread].run(move |_| real.span().end());
                self.spans[index].lives = false;
            }
            Step::Evict { span } => {
                let Some((_, index)) = self.pick_span(span) else { return };
                let id = |span: &ModelSpan| crate::context::span_id(&span.context);
                let crowded = id(&self.spans[index]);
                let table = &Live::get().table;
                table.crowd_out(crowded);
                for span in self.spans.iter_mut().filter(|span| table.are_neighbours(id(span), crowded)) {
                    span.lives = false;
                }
            }
            Step::Derive { context } => {
                let Some(context) = self.pick_context(context) else { return };
                let real = context.real.with_value(7u8);
                let remembers = self.expected(&context).is_some();
                self.contexts.push(ModelContext { real, span: context.span, remembers });
            }
            Step::Attach { thread, context } => {
                let Some(context) = self.pick_context(context) else { return };
                self.attach(thread, context);
            }
            Step::AttachNothing { thread } => {
                self.attach(thread, ModelContext { real: Context::new(), span: None, remembers: false });
            }
            Step::Detach { thread, guard } => {
                let held: Vec<usize> = (0..self.attached[thread].len())
                    .rev()
                    .filter(|i| self.attached[thread][*i].is_some())
                    .collect();
                let Some(at) = held.get(guard % held.len().max(1)).copied() else { return };
                self.workers[thread].run(move |guards| {
                    guards[at] = None;
                    while guards.last().is_some_and(Option::is_none) {
                        guards.pop();
                    }
                });
                let attached = &mut self.attached[thread];
                attached[at] = None;
                while attached.last().is_some_and(Option::is_none) {
                    attached.pop();
                }
            }
            Step::Spawn { context } => {
                let Some(context) = self.pick_context(context) else { return };
                let inside = Arc::new(Mutex::new(None));
                let noted = inside.clone();
                let body = std::future::poll_fn(move |_| {
                    *noted.lock() = seen();
                    Poll::Pending
                });
                let task: Task = Box::pin(body.with_context(context.real.clone()));
                self.tasks.push((context, Arc::new(Mutex::new(task)), inside));
            }
            Step::Poll { thread, task } => {
                if self.tasks.is_empty() {
                    return;
                }
                let (context, task, inside) = self.tasks[task % self.tasks.len()].clone();
                self.workers[thread].run(move |_| {
                    let mut waiting = std::task::Context::from_waker(Waker::noop());
                    assert!(task.lock().as_mut().poll(&mut waiting).is_pending());
                });
                let inside = *inside.lock();
                self.compare(inside, &context);
            }
            Step::Tag(tagging) => {
                self.tagging = tagging;
                self.charge.set_tagging(tagging);
            }
            Step::Name(names) => {
                self.names = names;
                Live::get().set_wording(names, 10, Vec::new());
            }
        }
    }

    fn pick_span(&self, number: usize) -> Option<(Context, usize)> {
        let own: Vec<_> = self.contexts.iter().filter_map(|cx| Some((cx.real.clone(), cx.span?))).collect();
        own.get(number % own.len().max(1)).cloned()
    }

    fn pick_context(&self, number: usize) -> Option<ModelContext> {
        self.contexts.get(number % self.contexts.len().max(1)).cloned()
    }

    fn attach(&mut self, thread: usize, context: ModelContext) {
        let real = context.real.clone();
        self.workers[thread].run(move |guards| guards.push(Some(real.attach())));
        self.attached[thread].push(Some(context));
    }

    fn start(&mut self, thread: usize, maker: Maker, parent: Parent) {
        let parent = match parent {
            Parent::None => ModelContext { real: Context::new(), span: None, remembers: false },
            Parent::Current => self.current(thread),
            Parent::Context(number) => match self.pick_context(number) {
                Some(context) => context,
                None => return,
            },
            Parent::Remote => {
                let number = self.spans.len() as u64 + 1;
                let span = SpanContext::new(
                    TraceId::from(u128::from(number) << 64 | 5),
                    SpanId::from(number << 32 | 5),
                    TraceFlags::SAMPLED,
                    true,
                    TraceState::NONE,
                );
                let real = Context::new().with_remote_span_context(span);
                ModelContext { real, span: None, remembers: false }
            }
        };
        let name = format!("span {}", self.spans.len());
        let tracer = self.tracers[maker as usize].clone();
        let made = Arc::new(Mutex::new(None));
        let (slot, cx, builder) = (made.clone(), parent.real.clone(), SpanBuilder::from_name(name.clone()));
        self.workers[thread].run(move |_| {
            *slot.lock() = Some(Context::new().with_span(builder.start_with_context(&tracer, &cx)));
        });
        let real = made.lock().take().expect("made");
        let context = real.span().span_context().clone();

        let ours = matches!(maker, Maker::Ours | Maker::Another) && self.tagging != Tagging::Off;
        let known = ours.then(|| {
            let parent_span = parent.span.map(|index| &self.spans[index]);
            // A remote parent is another process's.
            let parent_id = parent_span.map(|span| span.context.span_id());
            let of_parent =
                parent_span.filter(|span| parent.remembers || span.lives).and_then(|span| span.known.clone());
            let tagged = of_parent.is_none() || self.tagging == Tagging::All;
            let described = match self.names {
                SpanNames::Auto | SpanNames::Off => tagged,
                SpanNames::Root => of_parent.is_none(),
                SpanNames::All => true,
            };
            let own_name = if self.names == SpanNames::Off { String::new() } else { name };
            let of_root = of_parent.as_ref().map(|parent| parent.root_name.clone());
            let name = if described { own_name } else { of_root.clone().expect("only roots have no root") };
            Known {
                span: context.span_id(),
                trace: context.trace_id(),
                parent: parent_id,
                root: of_parent.map_or(context.span_id(), |parent| parent.root),
                tagged,
                root_name: of_root.unwrap_or_else(|| name.clone()),
                name,
            }
        });
        self.contexts.push(ModelContext { real, span: Some(self.spans.len()), remembers: known.is_some() });
        self.spans.push(ModelSpan { context, lives: known.is_some(), known });
    }

    /// Compares what was seen where `context` is current.
    fn compare(&mut self, found: Option<SpanRecord>, context: &ModelContext) {
        let expected = self.expected(context).cloned();
        let number = |id: SpanId| u64::from_be_bytes(id.to_bytes());
        let facts = found.map(|r| (r.span_id.0, r.trace_id.0, r.parent.0, r.local_root.0, r.tagged));
        let wanted = expected.as_ref().map(|known| {
            let trace = u128::from_be_bytes(known.trace.to_bytes());
            let parent = known.parent.map_or(0, number);
            (number(known.span), trace, parent, number(known.root), known.tagged)
        });
        assert_eq!(facts, wanted);
        if let (Some(found), Some(known)) = (found, expected) {
            self.observed.push((found, known));
        }
    }

    fn compare_all(&mut self) {
        for thread in 0..THREADS {
            let found = self.workers[thread].tell(|_| seen());
            let current = self.current(thread);
            self.compare(found, &current);
        }
    }

    /// What the encoder says of every record that was seen.
    fn compare_encoded(&self) {
        let mut rows = Aggregator::new(Limits::default(), Editor::new(Live::get().label_sets(), 1000, None));
        let mut wanted: Vec<(SpanLabel, Vec<(String, String)>)> = Vec::new();
        for (record, known) in &self.observed {
            let label = SpanLabel::from(record);
            if wanted.iter().any(|(present, _)| *present == label) {
                continue;
            }
            assert_eq!(rows.add(&[0x5], Some(label), 1), Added::Whole);
            let id = if known.tagged { known.span } else { known.root };
            let mut labels = vec![
                ("span_id".to_owned(), id.to_string()),
                ("trace_id".to_owned(), known.trace.to_string()),
            ];
            let mut text = |key: &str, value: &str| labels.push((key.to_owned(), value.to_owned()));
            if !known.name.is_empty() {
                text("span_name", &known.name);
            }
            let signed = |id: SpanId| i64::from_be_bytes(id.to_bytes()).to_string();
            if let Some(parent) = known.parent.filter(|_| known.tagged) {
                text("parent_span_id", &signed(parent));
            }
            text("local_root_span_id", &signed(known.root));
            if id != known.root && !known.root_name.is_empty() {
                text("local_root_span_name", &known.root_name);
            }
            wanted.push((label, labels));
        }
        let window = Window {
            start: UNIX_EPOCH,
            duration: Duration::from_secs(1),
            period: Duration::from_millis(10),
            modules: Arc::from([]),
            rows: rows.take(),
            notes: Vec::new(),
        };
        let labels = SampleLabels { trace_id: true, relations: true, root_names: true };
        let symbols = pprof::Symbols::look_up(&window, &mut Symbolizer::new());
        let encoded = pprof::encode(&window, &symbols, labels, &[], pprof::Limits::default());
        let mut samples = Vec::new();
        for profile in &encoded {
            let profile = google::Profile::decode(&*profile.bytes).expect("pprof");
            let string = |index: i64| profile.string_table[index as usize].clone();
            samples.extend(profile.sample.iter().map(|sample| {
                let value = |label: &google::Label| match label.str {
                    0 => label.num.to_string(),
                    text => string(text),
                };
                sample.label.iter().map(|label| (string(label.key), value(label))).collect::<Vec<_>>()
            }));
        }
        let wanted: Vec<_> = wanted.into_iter().map(|(_, labels)| labels).collect();
        assert_eq!(samples, wanted);
    }
}

#[test]
fn every_thread_s_label_is_that_of_its_context_whatever_happens() {
    let _turn = sampler::TURN.lock();
    let profiler = Profiler::builder().exporter(Nowhere).enabled(true).frequency(1);
    let profiler = profiler.start().expect("the profiler starts");
    let live = Live::get();
    // From here on, the test decides.
    let charge = live.take_charge();
    let provider = |sampler| {
        SdkTracerProvider::builder()
            .with_sampler(sampler)
            .with_span_processor(profiler.span_processor())
            .build()
    };
    let tracers = [
        provider(Sampler::AlwaysOn),
        provider(Sampler::AlwaysOn),
        provider(Sampler::AlwaysOff),
        SdkTracerProvider::builder().build(),
    ]
    .map(|provider| provider.tracer("test"));
    let workers: Vec<Worker> = (0..THREADS).map(|_| Worker::start()).collect();

    proptest!(ProptestConfig::with_cases(300), |(
        tagging in prop_oneof![Just(Tagging::Root), Just(Tagging::All)],
        steps in proptest::collection::vec(step(), 1..80),
    )| {
        charge.set_tagging(tagging);
        live.set_wording(SpanNames::Auto, 10, Vec::new());
        let mut world = World {
            workers: &workers,
            tracers: &tracers,
            charge,
            tagging,
            names: SpanNames::Auto,
            spans: Vec::new(),
            contexts: Vec::new(),
            attached: vec![Vec::new(); THREADS],
            tasks: Vec::new(),
            observed: Vec::new(),
        };
        for step in steps {
            world.step(step);
            world.compare_all();
        }
        world.compare_encoded();
        for worker in &workers {
            worker.run(|guards| while guards.pop().is_some() {});
        }
    });
    charge.end();
    for Worker { orders, thread, .. } in workers {
        drop(orders);
        thread.join().expect("it ends well");
    }
}
