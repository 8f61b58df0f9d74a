//! Profiles as a busy Rust service sends them, the same at every run.

use std::io::Write;

use buffa::Message;
use flate2::Compression;
use flate2::write::GzEncoder;
use spanflame_wire::google::v1::{Function, Label, Line, Location, Profile, Sample, ValueType};

const PERIOD: i64 = 10_000_000;
const FUNCTIONS: u64 = 3000;
/// Samples that one span has on the average.
const SAMPLES_PER_SPAN: u64 = 4;

/// A small generator of numbers (SplitMix64): what matters is that every run draws the same.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// An encoded profile.
pub(crate) struct Encoded {
    /// pprof, gzipped as agents send it.
    pub(crate) gzipped: Vec<u8>,
    /// Bytes of the pprof before compression.
    pub(crate) bytes: usize,
}

struct Strings(Vec<String>);

impl Strings {
    fn add(&mut self, text: String) -> i64 {
        self.0.push(text);
        self.0.len() as i64 - 1
    }
}

/// A CPU profile of ten seconds that began then: so many samples on stacks of 15 to 60 frames, each with its span.
pub(crate) fn profile(random: &mut Random, start_ms: i64, samples: u64) -> Encoded {
    let mut strings = Strings(vec![String::new()]);
    let mut value_type = |kind: &str, unit: &str| ValueType {
        r#type: strings.add(kind.to_owned()),
        unit: strings.add(unit.to_owned()),
        ..Default::default()
    };
    let sample_type = vec![value_type("samples", "count"), value_type("cpu", "nanoseconds")];
    let mut pprof = Profile {
        sample_type,
        period_type: value_type("cpu", "nanoseconds").into(),
        period: PERIOD,
        time_nanos: start_ms * 1_000_000,
        duration_nanos: 10_000_000_000,
        ..Default::default()
    };
    let keys = ["span_id", "trace_id", "span_name"].map(|key| strings.add(key.to_owned()));
    let endpoints: Vec<i64> =
        (0..40).map(|at| strings.add(format!("GET /api/v2/resource{at}/{{id}}"))).collect();
    let mut known = vec![0u64; FUNCTIONS as usize];
    let mut span = [0; 3];
    for sample in 0..samples {
        if sample == 0 || random.below(SAMPLES_PER_SPAN) == 0 {
            let trace = format!("{:016x}{:016x}", random.next(), random.next());
            let id = strings.add(format!("{:016x}", random.next() | 1));
            span = [id, strings.add(trace), endpoints[random.below(40) as usize]];
        }
        let label =
            keys.iter().zip(span).map(|(&key, str)| Label { key, str, ..Default::default() }).collect();
        let location_id = stack(random)
            .into_iter()
            .map(|function| location(&mut pprof, &mut strings, &mut known, function))
            .collect();
        pprof.sample.push(Sample { location_id, value: vec![1, PERIOD], label, ..Default::default() });
    }
    pprof.string_table = strings.0;
    let plain = pprof.encode_to_vec();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&plain).expect("memory takes it");
    Encoded { gzipped: encoder.finish().expect("memory takes it"), bytes: plain.len() }
}

/// Functions of one stack trace, the leaf first: some paths through a program are much hotter than others, and rare ones
/// never end. An hour of ten pods, 1.75 million samples, has 94,000 different stack traces, a tree of 161,000 nodes.
fn stack(random: &mut Random) -> Vec<u64> {
    let depth = 15 + random.below(16) + random.below(16) + random.below(16);
    // Choices thin out with depth, so that traces share their beginnings as those of a program do.
    let mut at = 1;
    let mut frames = Vec::with_capacity(depth as usize);
    for level in 0..depth {
        let way = match (level % 5, random.below(100)) {
            (0..4, _) | (_, 0..70) => 0,
            (_, 70..92) => 1,
            _ => 2,
        };
        at = Random::new(at * 131 + way).next() % FUNCTIONS;
        frames.push(at);
    }
    frames.reverse();
    frames
}

fn location(pprof: &mut Profile, strings: &mut Strings, known: &mut [u64], function: u64) -> u64 {
    let id = &mut known[function as usize];
    if *id == 0 {
        *id = pprof.function.len() as u64 + 1;
        let name = strings.add(format!(
            "<shop::checkout::stage{}::Pipeline<T> as core::future::future::Future>::poll_step{function}",
            function % 17
        ));
        let filename = strings.add(format!("src/checkout/stage{}/pipeline{function}.rs", function % 17));
        let line = vec![Line { function_id: *id, line: 1 + function as i64 % 400, ..Default::default() }];
        pprof.function.push(Function { id: *id, name, system_name: name, filename, ..Default::default() });
        pprof.location.push(Location {
            id: *id,
            address: 0x5555_0000 + function * 64,
            line,
            ..Default::default()
        });
    }
    *id
}
