//! A corpus of any size: many services, each sample in a span of a trace, on stack traces that the bridge took from the
//! demo service (`stacks.pb.gz`).
//!
//! Spans make up traces as in production: a local root with up to three spans below it, a few samples in each.

use std::io::Read;

use anyhow::{Context as _, ensure};
use buffa::Message;
use bytes::Bytes;
use flate2::read::GzDecoder;
use spanflame_wire::google::v1::{Function, Label, Location, Mapping, Profile, Sample, ValueType};

use crate::corpus::Random;
use crate::rig::push;

/// A minute of the demo service, its paths shortened.
const TAKEN: &[u8] = include_bytes!("stacks.pb.gz");
const PERIOD: i64 = 10_000_000;
const PODS: u64 = 5;
/// What differs between stack traces of one path through the program: the instruction in the leaf.
const LEAVES: u64 = 8;
/// Spans that are remembered, to be asked for.
const REMEMBERED: usize = 4096;

/// A span of the corpus.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) id: u64,
    /// Number of its service.
    pub(crate) service: usize,
    /// When the profile with its samples began, in Unix milliseconds.
    pub(crate) start_ms: i64,
}

/// How large a corpus is and what time it covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) services: usize,
    /// Samples of a profile, on the average.
    pub(crate) samples_per_profile: u64,
    /// The first profile's beginning, in Unix milliseconds.
    pub(crate) start_ms: i64,
    /// How far the beginnings of profiles that follow each other lie apart, in milliseconds.
    pub(crate) step_ms: f64,
}

/// Draws one profile after another.
pub(crate) struct Load {
    taken: Taken,
    services: Vec<Service>,
    extent: Extent,
    random: Random,
    profiles: u64,
    /// Samples in all profiles so far.
    pub(crate) samples: u64,
    /// Spans in all profiles so far.
    pub(crate) spans: u64,
    /// Some of them, each as likely as any other.
    pub(crate) remembered: Vec<Span>,
}

/// The demo service's tables and paths.
struct Taken {
    profile: Profile,
    /// Weights of its stack traces, each with those before it.
    weights: Vec<u64>,
}

struct Service {
    name: String,
    /// The string table, in which the demo's own crate is the service's.
    strings: Vec<String>,
    endpoints: Vec<String>,
}

impl Load {
    pub(crate) fn new(extent: Extent) -> anyhow::Result<Self> {
        let mut plain = Vec::new();
        GzDecoder::new(TAKEN).read_to_end(&mut plain)?;
        let profile = Profile::decode_from_slice(&plain)?;
        let in_order = |ids: &mut dyn Iterator<Item = u64>| ids.zip(1..).all(|(id, at)| id == at);
        ensure!(
            in_order(&mut profile.function.iter().map(|function| function.id))
                && in_order(&mut profile.location.iter().map(|location| location.id))
                && in_order(&mut profile.mapping.iter().map(|mapping| mapping.id)),
            "ids are places in the tables"
        );
        let mut sum = 0;
        let weights = profile.sample.iter().map(|sample| {
            sum += sample.value.first().map_or(0, |value| value.cast_unsigned());
            sum
        });
        let weights: Vec<u64> = weights.collect();
        let services = (0..extent.services).map(|at| Service::new(at, &profile.string_table)).collect();
        Ok(Self {
            taken: Taken { profile, weights },
            services,
            extent,
            random: Random::new(3),
            profiles: 0,
            samples: 0,
            spans: 0,
            remembered: Vec::new(),
        })
    }

    /// Name of a span's service.
    pub(crate) fn service(&self, span: &Span) -> &str {
        &self.services[span.service].name
    }

    fn start_ms(&self, profile: u64) -> i64 {
        self.extent.start_ms + (profile as f64 * self.extent.step_ms) as i64
    }

    /// The next profile as the body of a push, not compressed.
    pub(crate) fn next(&mut self) -> anyhow::Result<Bytes> {
        let number = self.random.below(self.services.len() as u64) as usize;
        let pod = self.random.below(PODS);
        let start_ms = self.start_ms(self.profiles);
        self.profiles += 1;
        let mean = self.extent.samples_per_profile;
        let wanted = mean / 2 + self.random.below(mean + 1);
        let service = &self.services[number];
        let mut draft = Draft::new(&self.taken.profile, &service.strings, start_ms);
        let mut trace = Trace::default();
        let mut left = 0;
        for _ in 0..wanted {
            if left == 0 {
                trace.next_span(&mut self.random);
                left = 1 + self.random.below(7);
                let span = Span { id: trace.span, service: number, start_ms };
                remember(&mut self.remembered, &mut self.random, self.spans, span);
                self.spans += 1;
                let name = &service.endpoints[(trace.span % service.endpoints.len() as u64) as usize];
                draft.enter(&trace, name);
            }
            left -= 1;
            draft.sample(self.taken.path(&mut self.random), self.random.below(LEAVES))?;
        }
        self.samples += wanted;
        Ok(push(&service.name, &format!("pod-{pod}"), draft.profile.encode_to_vec()))
    }
}

/// Keeps a fair choice of all spans (reservoir sampling, algorithm R).
fn remember(kept: &mut Vec<Span>, random: &mut Random, seen: u64, span: Span) {
    if kept.len() < REMEMBERED {
        kept.push(span);
    } else if let Some(place) = kept.get_mut(random.below(seen + 1) as usize) {
        *place = span;
    }
}

impl Service {
    fn new(at: usize, strings: &[String]) -> Self {
        let own = format!("service{at:02}");
        Self {
            name: format!("shop-{at:02}"),
            strings: strings.iter().map(|text| text.replace("example_axum_tracing", &own)).collect(),
            endpoints: (0..40).map(|name| format!("GET /v2/resource{name}/{{id}}")).collect(),
        }
    }
}

impl Taken {
    /// A stack trace, as often as it was taken.
    fn path(&self, random: &mut Random) -> usize {
        let drawn = random.below(self.weights.last().copied().unwrap_or(1));
        self.weights.partition_point(|&sum| sum <= drawn)
    }
}

/// Where spans are in their trace.
#[derive(Default)]
struct Trace {
    id: [u64; 2],
    root: u64,
    span: u64,
    /// Spans that may still join.
    left: u64,
}

impl Trace {
    fn next_span(&mut self, random: &mut Random) {
        self.span = random.next() | 1;
        if self.left == 0 {
            *self = Self {
                id: [random.next(), random.next() | 1],
                root: self.span,
                span: self.span,
                left: 1 + random.below(4),
            };
        }
        self.left -= 1;
    }
}

/// A profile that has just what its samples use, as the bridge sends it.
struct Draft<'a> {
    taken: &'a Profile,
    texts: &'a [String],
    profile: Profile,
    /// Numbers that strings, functions, mappings and leaves have here; 0 for none yet.
    strings: Vec<i64>,
    functions: Vec<u64>,
    mappings: Vec<u64>,
    locations: Vec<u64>,
    keys: [i64; 5],
    labels: Vec<Label>,
}

impl<'a> Draft<'a> {
    fn new(taken: &'a Profile, texts: &'a [String], start_ms: i64) -> Self {
        let mut draft = Self {
            taken,
            texts,
            profile: Profile {
                period: PERIOD,
                time_nanos: start_ms * 1_000_000,
                duration_nanos: 10_000_000_000,
                string_table: vec![String::new()],
                ..Default::default()
            },
            strings: vec![0; texts.len()],
            functions: vec![0; taken.function.len()],
            mappings: vec![0; taken.mapping.len()],
            locations: vec![0; taken.location.len() * LEAVES as usize],
            keys: [0; 5],
            labels: Vec::new(),
        };
        let mut value_type = |kind: &str, unit: &str| ValueType {
            r#type: draft.own(kind),
            unit: draft.own(unit),
            ..Default::default()
        };
        let types = [value_type("samples", "count"), value_type("cpu", "nanoseconds")];
        draft.profile.period_type = types[1].clone().into();
        draft.profile.sample_type = types.into();
        draft.keys = ["span_id", "trace_id", "span_name", "parent_span_id", "local_root_span_id"]
            .map(|key| draft.own(key));
        draft
    }

    /// A string that is in no table of the demo's.
    fn own(&mut self, text: &str) -> i64 {
        self.profile.string_table.push(text.to_owned());
        self.profile.string_table.len() as i64 - 1
    }

    fn string(&mut self, theirs: i64) -> i64 {
        let at = theirs as usize;
        if theirs != 0 && self.strings[at] == 0 {
            let texts = self.texts;
            self.strings[at] = self.own(&texts[at]);
        }
        self.strings[at]
    }

    /// Samples from here on are taken in this span.
    fn enter(&mut self, trace: &Trace, name: &str) {
        let [span_id, trace_id, span_name, parent, root] = self.keys;
        let text = |key, str| Label { key, str, ..Default::default() };
        let number = |key, id: u64| Label { key, num: id.cast_signed(), ..Default::default() };
        self.labels = vec![
            text(span_id, self.own(&format!("{:016x}", trace.span))),
            text(trace_id, self.own(&format!("{:016x}{:016x}", trace.id[0], trace.id[1]))),
            text(span_name, self.own(name)),
            number(root, trace.root),
        ];
        if trace.span != trace.root {
            self.labels.push(number(parent, trace.root));
        }
    }

    fn sample(&mut self, path: usize, leaf: u64) -> anyhow::Result<()> {
        let stack = &self.taken.sample.get(path).context("a path")?.location_id;
        let mut location_id = Vec::with_capacity(stack.len());
        for (depth, &location) in stack.iter().enumerate() {
            location_id.push(self.location(location, if depth == 0 { leaf } else { 0 }));
        }
        let label = self.labels.clone();
        self.profile.sample.push(Sample { location_id, value: vec![1, PERIOD], label, ..Default::default() });
        Ok(())
    }

    fn location(&mut self, theirs: u64, leaf: u64) -> u64 {
        let at = theirs as usize - 1;
        let place = at * LEAVES as usize + leaf as usize;
        if self.locations[place] == 0 {
            let mut location: Location = self.taken.location[at].clone();
            location.address += leaf * 4;
            location.mapping_id = self.mapping(location.mapping_id);
            for line in &mut location.line {
                line.function_id = self.function(line.function_id);
                line.line += leaf.cast_signed();
            }
            self.locations[place] = self.profile.location.len() as u64 + 1;
            location.id = self.locations[place];
            self.profile.location.push(location);
        }
        self.locations[place]
    }

    fn mapping(&mut self, theirs: u64) -> u64 {
        if theirs == 0 {
            return 0;
        }
        let at = theirs as usize - 1;
        if self.mappings[at] == 0 {
            let mut mapping: Mapping = self.taken.mapping[at].clone();
            mapping.filename = self.string(mapping.filename);
            mapping.build_id = self.string(mapping.build_id);
            self.mappings[at] = self.profile.mapping.len() as u64 + 1;
            mapping.id = self.mappings[at];
            self.profile.mapping.push(mapping);
        }
        self.mappings[at]
    }

    fn function(&mut self, theirs: u64) -> u64 {
        let at = theirs as usize - 1;
        if self.functions[at] == 0 {
            let mut function: Function = self.taken.function[at].clone();
            function.name = self.string(function.name);
            function.system_name = self.string(function.system_name);
            function.filename = self.string(function.filename);
            self.functions[at] = self.profile.function.len() as u64 + 1;
            function.id = self.functions[at];
            self.profile.function.push(function);
        }
        self.functions[at]
    }
}
