//! Events become samples of the profiles that a recording holds.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::chunk::{Chunk, Constant};
use super::reader::{Fault, Reader, Text};
use super::stacks::{Names, Stacks};
use super::types::{Value, Wanted};
use super::{Memory, Snapshot};
use crate::ingest::assemble::{Assembler, Header, LabelValue, profile_types};
use crate::ingest::labels::SeriesLabels;
use crate::ingest::{Budget, IngestError, Limits};
use crate::model::Profile;

type Map<K, V> = HashMap<K, V, RandomState>;

/// The time between samples where the sender told none, in nanoseconds: agents sample a hundred times a second.
const DEFAULT_PERIOD: i64 = 10_000_000;

/// What a profile made of a recording is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Cpu,
    Wall,
    AllocationInNewTlab,
    AllocationOutsideTlab,
    AllocationSample,
    Mutex,
    Block,
    Live,
    Malloc,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Cpu,
        Self::Wall,
        Self::AllocationInNewTlab,
        Self::AllocationOutsideTlab,
        Self::AllocationSample,
        Self::Mutex,
        Self::Block,
        Self::Live,
        Self::Malloc,
    ];

    /// The profile's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "process_cpu",
            Self::Wall => "wall",
            Self::Mutex => "mutex",
            Self::Block => "block",
            _ => "memory",
        }
    }

    /// Types and units of its values.
    fn values(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Cpu => &[("cpu", "nanoseconds")],
            Self::Wall => &[("wall", "nanoseconds")],
            Self::AllocationInNewTlab => {
                &[("alloc_in_new_tlab_objects", "count"), ("alloc_in_new_tlab_bytes", "bytes")]
            }
            Self::AllocationOutsideTlab => {
                &[("alloc_outside_tlab_objects", "count"), ("alloc_outside_tlab_bytes", "bytes")]
            }
            Self::AllocationSample => &[("alloc_sample_objects", "count"), ("alloc_sample_bytes", "bytes")],
            Self::Mutex | Self::Block => &[("contentions", "count"), ("delay", "nanoseconds")],
            Self::Live => &[("live", "count")],
            Self::Malloc => &[("malloc_objects", "count"), ("malloc_bytes", "bytes")],
        }
    }

    /// Type and unit of its period.
    fn period(self) -> (&'static str, &'static str) {
        match self {
            Self::Cpu => ("cpu", "nanoseconds"),
            Self::Wall => ("wall", "nanoseconds"),
            Self::AllocationInNewTlab | Self::AllocationOutsideTlab | Self::AllocationSample => {
                ("space", "bytes")
            }
            Self::Mutex => ("mutex", "count"),
            Self::Block => ("block", "count"),
            Self::Live => ("objects", "count"),
            Self::Malloc => ("", ""),
        }
    }

    /// Whether its values are times that samples stand for.
    fn is_sampled_time(self) -> bool {
        matches!(self, Self::Cpu | Self::Wall)
    }
}

/// Events that are read; others are read over.
#[derive(Debug, Clone, Copy)]
enum Event {
    ExecutionSample,
    WallClockSample,
    AllocationInNewTlab,
    AllocationOutsideTlab,
    AllocationSample,
    MonitorEnter,
    ThreadPark,
    LiveObject,
    Malloc,
    ActiveSetting,
}

impl Event {
    fn of(class: &str) -> Option<Self> {
        Some(match class {
            "jdk.ExecutionSample" => Self::ExecutionSample,
            "profiler.WallClockSample" => Self::WallClockSample,
            "jdk.ObjectAllocationInNewTLAB" => Self::AllocationInNewTlab,
            "jdk.ObjectAllocationOutsideTLAB" => Self::AllocationOutsideTlab,
            "jdk.ObjectAllocationSample" => Self::AllocationSample,
            "jdk.JavaMonitorEnter" => Self::MonitorEnter,
            "jdk.ThreadPark" => Self::ThreadPark,
            "profiler.LiveObject" => Self::LiveObject,
            "profiler.Malloc" => Self::Malloc,
            "jdk.ActiveSetting" => Self::ActiveSetting,
            _ => return None,
        })
    }
}

/// What tells one sample from another. Everything is 0 where the event says nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Identity {
    stack: u64,
    context: u64,
    span: u64,
    span_name: u64,
    trace: (u64, u64),
}

/// The fields of an event.
#[derive(Default)]
struct Fields<'a> {
    identity: Identity,
    state: Option<u64>,
    /// How many samples it stands for.
    samples: Option<u64>,
    duration: u64,
    /// Of what was allocated.
    size: u64,
    tlab_size: u64,
    weight: u64,
    name: Option<Text<'a>>,
    value: Option<Text<'a>>,
}

impl<'a> Fields<'a> {
    fn read(chunk: &Chunk<'a>, class: u64, reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let mut fields = Self::default();
        chunk.types.read_fields(class, reader, |name, value| match (name, value) {
            (Wanted::StackTrace, Value::Number(key)) => fields.identity.stack = key,
            (Wanted::ContextId, Value::Number(id)) => fields.identity.context = id,
            (Wanted::SpanId, Value::Number(id)) => fields.identity.span = id,
            (Wanted::SpanName, Value::Number(id)) => fields.identity.span_name = id,
            (Wanted::TraceIdHigh, Value::Number(half)) => fields.identity.trace.0 = half,
            (Wanted::TraceIdLow, Value::Number(half)) => fields.identity.trace.1 = half,
            (Wanted::State, Value::Number(key)) => fields.state = Some(key),
            (Wanted::Samples, Value::Number(count)) => fields.samples = Some(count),
            (Wanted::Duration, Value::Number(ticks)) => fields.duration = ticks,
            (Wanted::AllocationSize | Wanted::Size, Value::Number(bytes)) => fields.size = bytes,
            (Wanted::TlabSize, Value::Number(bytes)) => fields.tlab_size = bytes,
            (Wanted::Weight, Value::Number(bytes)) => fields.weight = bytes,
            (Wanted::Name, Value::Text(text)) => fields.name = Some(text),
            (Wanted::Value, Value::Text(text)) => fields.value = Some(text),
            _ => {}
        })?;
        Ok(fields)
    }
}

/// What a thread did when it was sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Sleeping,
    Other,
}

/// The states of a chunk, each read once.
#[derive(Default)]
struct States(Map<u64, State>);

impl States {
    fn get(&mut self, chunk: &Chunk<'_>, key: Option<u64>, memory: &mut Memory) -> Result<State, Fault> {
        let Some(key) = key else { return Ok(State::Other) };
        if let Some(&known) = self.0.get(&key) {
            return Ok(known);
        }
        let name = chunk.constant_text(Constant::ThreadState, key, Wanted::Name, memory)?;
        let state = match name.as_deref() {
            Some("STATE_RUNNABLE") => State::Running,
            Some("STATE_SLEEPING") => State::Sleeping,
            _ => State::Other,
        };
        self.0.insert(key, state);
        Ok(state)
    }
}

/// Samples of one kind in one chunk, those with the same identity added up.
#[derive(Default)]
struct Samples {
    numbers: Map<Identity, usize>,
    /// Only as many of the values count as the kind has types.
    rows: Vec<(Identity, [i64; 2])>,
}

impl Samples {
    fn add(
        &mut self,
        identity: Identity,
        values: [i64; 2],
        limits: &Limits,
        memory: &mut Memory,
    ) -> Result<(), IngestError> {
        let next = self.rows.len();
        let row = *self.numbers.entry(identity).or_insert(next);
        if row < next {
            for (sum, value) in self.rows[row].1.iter_mut().zip(values) {
                *sum = sum.saturating_add(value);
            }
            return Ok(());
        }
        let max = limits.max_samples;
        if next >= max {
            return Err(IngestError::over("jfr: distinct samples", "max_samples", max, next + 1));
        }
        // The row, and its number under its identity.
        memory.take(2 * size_of::<(Identity, [i64; 2])>())?;
        self.rows.push((identity, values));
        Ok(())
    }
}

/// The profiles of a recording, as far as it was read.
pub(super) struct Recording<'a> {
    assemblers: Vec<Assembler<'a>>,
    period: i64,
    limits: &'a Limits,
    /// What async-profiler was told to sample.
    event: String,
}

impl<'a> Recording<'a> {
    /// No samples yet, of series with these labels, one for each kind; all of them know this of a span.
    pub(super) fn new(
        series: &'a [SeriesLabels],
        span: &[(&str, LabelValue<'_>)],
        header: Header,
        limits: &'a Limits,
    ) -> Result<Self, IngestError> {
        let period = if header.period > 0 { header.period } else { DEFAULT_PERIOD };
        let assembler = |(kind, series): (Kind, &'a SeriesLabels)| {
            let types = profile_types(kind.name(), kind.values(), kind.period())?;
            let period = if kind.is_sampled_time() { period } else { 0 };
            let mut assembler = Assembler::new(series, types, Header { period, ..header }, limits);
            assembler.for_all(span.iter().copied());
            Ok(assembler)
        };
        let assemblers =
            Kind::ALL.into_iter().zip(series).map(assembler).collect::<Result<_, IngestError>>()?;
        Ok(Self { assemblers, period, limits, event: String::new() })
    }

    /// Adds the samples of a chunk.
    pub(super) fn add(
        &mut self,
        chunk: &Chunk<'_>,
        snapshot: &Snapshot<'_>,
        memory: &mut Memory,
    ) -> Result<(), Fault> {
        let samples = self.collect(chunk, memory)?;
        let mut names = Names::new(chunk, self.limits);
        for ((kind, samples), assembler) in Kind::ALL.into_iter().zip(samples).zip(&mut self.assemblers) {
            let mut stacks = Stacks::default();
            for (identity, values) in samples.rows {
                let Some(stack) = stacks.get(identity.stack, &mut names, assembler, memory)? else {
                    continue;
                };
                let ids = Ids::of(&identity, snapshot);
                let labels = snapshot
                    .labels(identity.context as i64)
                    .chain(ids.labels())
                    .chain([("jfr_event", &*self.event)])
                    .map(|(name, text)| (name, LabelValue::Text(text)));
                assembler.sample(stack, labels, &values[..kind.values().len()])?;
            }
        }
        Ok(())
    }

    /// The profiles, the empty ones left out.
    pub(super) fn finish(self, budget: &mut Budget) -> Result<Vec<Profile>, IngestError> {
        let mut profiles = Vec::new();
        for assembler in self.assemblers {
            profiles.extend(assembler.finish(budget)?);
        }
        Ok(profiles)
    }

    fn collect<'c>(
        &mut self,
        chunk: &Chunk<'c>,
        memory: &mut Memory,
    ) -> Result<[Samples; Kind::ALL.len()], Fault> {
        let events: Map<u64, Event> =
            chunk.types.iter().filter_map(|(id, name)| Some((id, Event::of(name)?))).collect();
        let mut states = States::default();
        let mut samples: [Samples; Kind::ALL.len()] = Default::default();
        for event in chunk.events() {
            let (class, mut reader) = event?;
            let Some(&event) = events.get(&class) else { continue };
            let fields = Fields::read(chunk, class, &mut reader)?;
            let identity = fields.identity;
            let state = match event {
                Event::ExecutionSample | Event::WallClockSample => states.get(chunk, fields.state, memory)?,
                _ => State::Other,
            };
            let mut add = |kind: Kind, count: i64, amount: i64| {
                samples[kind as usize].add(identity, [count, amount], self.limits, memory)
            };
            let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
            match event {
                Event::ExecutionSample => {
                    // A state that is not known is none in which a thread sleeps.
                    if state != State::Sleeping {
                        add(Kind::Cpu, self.period, 0)?;
                    }
                    if self.event == "wall" {
                        add(Kind::Wall, self.period, 0)?;
                    }
                }
                Event::WallClockSample => {
                    let nanos = self.period.saturating_mul(signed(fields.samples.unwrap_or(1)));
                    // Nothing else tells of CPU time then.
                    if self.event == "wall" && state == State::Running {
                        add(Kind::Cpu, nanos, 0)?;
                    }
                    add(Kind::Wall, nanos, 0)?;
                }
                Event::AllocationInNewTlab => add(Kind::AllocationInNewTlab, 1, signed(fields.tlab_size))?,
                Event::AllocationOutsideTlab => add(Kind::AllocationOutsideTlab, 1, signed(fields.size))?,
                Event::AllocationSample => add(Kind::AllocationSample, 1, signed(fields.weight))?,
                Event::MonitorEnter => add(Kind::Mutex, 1, chunk.header.nanos(fields.duration))?,
                Event::ThreadPark => add(Kind::Block, 1, chunk.header.nanos(fields.duration))?,
                Event::LiveObject => add(Kind::Live, 1, 0)?,
                Event::Malloc => add(Kind::Malloc, 1, signed(fields.size))?,
                Event::ActiveSetting => {
                    let mut text =
                        |text: Option<Text<'c>>| text.map(|text| chunk.text(text, memory)).transpose();
                    if text(fields.name)?.as_deref() == Some("event") {
                        self.event = text(fields.value)?.unwrap_or_default().into_owned();
                    }
                }
            }
        }
        Ok(samples)
    }
}

/// What an identity says of the span, as text.
struct Ids<'a> {
    span: Option<String>,
    trace: Option<String>,
    span_name: Option<&'a str>,
}

impl<'a> Ids<'a> {
    fn of(identity: &Identity, snapshot: &Snapshot<'a>) -> Self {
        let Identity { span, span_name, trace: (high, low), .. } = *identity;
        Self {
            span: (span != 0).then(|| format!("{span:016x}")),
            trace: ((high, low) != (0, 0)).then(|| format!("{high:016x}{low:016x}")),
            span_name: if span_name == 0 { None } else { snapshot.string(span_name as i64) },
        }
    }

    fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let ids = [("span_id", self.span.as_deref()), ("trace_id", self.trace.as_deref())];
        let all = ids.into_iter().chain([("span_name", self.span_name)]);
        all.filter_map(|(name, text)| Some((name, text?)))
    }
}
