//! Segments against what they were made of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::cache::BlockCache;
use super::super::head::Partition;
use super::super::memory_objects::Memory;
use super::super::objects::Objects;
use super::super::source::{Chunk, NO_SPAN, Source, SpanEntry, SpanLookup};
use super::*;
use crate::model::{Profile, SpanId, TraceId};
use crate::testing::PprofBuilder;

/// Numbers that look random and are the same at every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Profiles of two services, with spans that go on from one to the next and some samples without any.
fn profiles(seed: u64, count: u64) -> Vec<Profile> {
    let mut numbers = Numbers(seed);
    let mut all = Vec::new();
    for number in 0..count {
        let mut builder = PprofBuilder::new();
        for _ in 0..numbers.below(90) {
            let names: Vec<String> =
                (0..1 + numbers.below(6)).map(|depth| format!("f{depth}_{}", numbers.below(3))).collect();
            let frames: Vec<&str> = names.iter().map(String::as_str).collect();
            let trace = 1 + numbers.below(40);
            let span = trace * 100 + numbers.below(4);
            let texts = [
                ("span_id", format!("{span:016x}")),
                ("span_name", format!("GET /{}", span % 7)),
                ("trace_id", format!("{trace:032x}")),
                ("parent_span_id", format!("{:016x}", trace * 100)),
                ("local_root_span_id", format!("{:016x}", trace * 100)),
                ("local_root_span_name", "POST /".to_owned()),
            ];
            let told = numbers.below(texts.len() as u64 + 1) as usize;
            let labels: Vec<(&str, &str)> =
                texts[..told].iter().map(|(name, text)| (*name, text.as_str())).collect();
            builder = builder.sample(&frames, 1 + numbers.below(50) as i64, &labels);
        }
        let mut builder = builder.sample(&["always"], 1, &[]);
        if numbers.below(4) == 0 {
            let note = builder.string("lost.ring_full=3");
            builder.pprof.comment.push(note);
        }
        builder.pprof.time_nanos += (number * 2_000_000_000 + numbers.below(1000)) as i64;
        let service = ["checkout", "payments"][numbers.below(2) as usize];
        all.extend(
            builder
                .profiles(&[("service_name", service), ("pod", ["a", "b", "c"][numbers.below(3) as usize])]),
        );
    }
    all
}

fn part(profiles: &[Profile]) -> Arc<dyn Source> {
    let partition = Partition::new(0);
    partition.insert(&TenantId::anonymous(), profiles);
    partition.tenant(&TenantId::anonymous()).unwrap()
}

struct Fixture {
    objects: Arc<Memory>,
    cache: Arc<BlockCache>,
}

impl Fixture {
    fn new(cache_bytes: u64) -> Self {
        Self { objects: Arc::default(), cache: Arc::new(BlockCache::new(cache_bytes)) }
    }

    fn segment(&self, sources: &[Arc<dyn Source>]) -> Arc<Segment> {
        let tenant = TenantId::anonymous();
        let name = format!("segments/{}.segment", self.objects.0.lock().len());
        let written = write(recipe(name.clone(), &tenant, None), sources).unwrap().unwrap();
        assert_eq!(written.meta.bytes, written.bytes.len() as u64);
        assert!(self.objects.create(&name, written.bytes).unwrap());
        self.open(written.meta)
    }

    fn open(&self, meta: SegmentMeta) -> Arc<Segment> {
        let objects = Arc::clone(&self.objects) as Arc<dyn Objects>;
        Arc::new(Segment::new(meta, objects, Arc::clone(&self.cache)))
    }
}

fn recipe<'a>(name: String, tenant: &'a TenantId, keep: Option<&'a dyn Fn(&Chunk) -> bool>) -> Recipe<'a> {
    Recipe { name, tenant, level: 0, now_ms: 7, keep, pace: &|| Ok(()) }
}

/// All that a source knows, in words that do not depend on its numbers.
fn told(source: &dyn Source) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    let series = source.series(None).unwrap();
    for series in &series {
        let mut names: Vec<String> = source
            .span_names(series.id)
            .unwrap()
            .into_iter()
            .map(|name| source.string(name).unwrap())
            .collect();
        names.sort_unstable();
        told.insert(format!("{:?} {:?} {:?} {names:?}", series.labels, series.types, series.range));
    }
    let wanted: Vec<u32> = series.iter().map(|series| series.id).collect();
    let chunks = source.chunks(&wanted, None).unwrap();
    assert_eq!(chunks.len() as u64, source.profiles());
    for chunk in chunks {
        let of_series = &series[chunk.series as usize];
        let mut stacks = vec![String::new(); chunk.stacks.len()];
        source
            .stacks(&chunk.stacks, &mut |row, symbols, locations| {
                for &number in locations {
                    for line in symbols.lines(symbols.location(number)) {
                        stacks[row] += symbols.string(symbols.function_name(line.function));
                        stacks[row] += &format!(":{} ", line.line);
                    }
                }
            })
            .unwrap();
        let known: Vec<u32> =
            chunk.runs.iter().map(|run| run.entry).filter(|entry| *entry != NO_SPAN).collect();
        let mut entries = source.entries(&known).unwrap().into_iter();
        let mut rows = BTreeSet::new();
        for (run, of) in chunk.runs.iter().enumerate() {
            let span = if of.entry == NO_SPAN { None } else { entries.next() };
            let span = span.map_or_else(String::new, |SpanEntry { span, .. }| {
                let text = |number| source.string(number).unwrap();
                assert_eq!(span.name, of.name);
                format!(
                    "{:?} {:?} {:?} {:?} {} {}",
                    span.span_id,
                    span.trace_id,
                    span.parent,
                    span.local_root,
                    text(span.name),
                    text(span.local_root_name)
                )
            });
            for row in chunk.rows(run) {
                let values: Vec<i64> = (0..of_series.types.len()).map(|at| chunk.column(at)[row]).collect();
                rows.insert(format!("{span} {} {values:?}", stacks[row]));
            }
        }
        told.insert(format!(
            "{:?} {} {} {} {} {:?} {rows:?}",
            of_series.labels, chunk.id, chunk.start_nanos, chunk.duration_nanos, chunk.period, chunk.totals
        ));
    }
    source
        .losses(&mut |number, range, losses| {
            told.insert(format!("{:?} {range:?} {losses:?}", series[number as usize].labels));
        })
        .unwrap();
    told
}

/// What a look-up finds: span and series with their sums, and the values of their rows.
fn found(sources: &[Arc<dyn Source>], lookup: SpanLookup) -> BTreeMap<String, (u64, i64, i64, i64, i64)> {
    let mut all: BTreeMap<String, (u64, i64, i64, i64, i64)> = BTreeMap::new();
    for source in sources {
        let mut entries = Vec::new();
        source.spans(lookup, &mut |entry| entries.push(entry.clone())).unwrap();
        for entry in entries {
            let series = source.series(Some(&[entry.series])).unwrap().remove(0);
            let span = &entry.span;
            let key = format!("{:?} {:?} {:?} {:?}", series.labels, span.span_id, span.trace_id, span.parent);
            let sum = all.entry(key).or_insert((0, 0, i64::MAX, i64::MIN, 0));
            sum.0 += entry.samples;
            sum.1 += entry.cpu_nanos;
            sum.2 = sum.2.min(entry.range.start_ms);
            sum.3 = sum.3.max(entry.range.end_ms);
            for found in source.runs(&[entry.id]).unwrap() {
                assert_eq!(found.chunk.runs[found.run].entry, entry.id);
                sum.4 += found.chunk.column(0)[found.chunk.rows(found.run)].iter().sum::<i64>();
            }
        }
    }
    all
}

fn assert_found_alike(a: &[Arc<dyn Source>], b: &[Arc<dyn Source>]) {
    let mut hits = 0;
    for trace in 0..45u64 {
        let span = |bits| SpanId::new(bits).unwrap();
        let mut lookups = vec![SpanLookup::Trace(TraceId::new(u128::from(trace + 1)).unwrap())];
        for number in 0..5 {
            let id = span(trace * 100 + number + 1);
            lookups.extend(
                [SpanLookup::Span, SpanLookup::Children, SpanLookup::LocalRoot, SpanLookup::Family]
                    .map(|of| of(id)),
            );
        }
        for lookup in lookups {
            let expected = found(a, lookup);
            hits += expected.len();
            assert_eq!(found(b, lookup), expected, "{lookup:?}");
        }
    }
    assert!(hits > 50, "{hits}");
}

#[test]
fn a_segment_answers_as_what_it_was_made_of() {
    // Room for nothing, and for everything.
    for (cache_bytes, count) in [(0, 40), (64 << 20, 150)] {
        let part = part(&profiles(1, count));
        let fixture = Fixture::new(cache_bytes);
        let segment = fixture.segment(&[Arc::clone(&part)]);
        assert_eq!(told(&*segment), told(&*part));
        assert_eq!(segment.bounds(), part.bounds());
        assert_eq!(segment.span_count(), part.span_count());
        assert_eq!(segment.stack_count().unwrap(), part.stack_count().unwrap());
        assert_found_alike(&[Arc::clone(&part)], &[segment as Arc<dyn Source>]);
        assert!(fixture.cache.bytes() <= cache_bytes);
    }
}

#[test]
fn segments_become_one_that_answers_as_all_of_them() {
    let fixture = Fixture::new(64 << 20);
    let parts: Vec<Arc<dyn Source>> = (1..5).map(|seed| part(&profiles(seed, 40))).collect();
    let segments: Vec<Arc<dyn Source>> =
        parts.iter().map(|part| fixture.segment(&[Arc::clone(part)]) as Arc<dyn Source>).collect();
    let merged = fixture.segment(&segments) as Arc<dyn Source>;
    assert_eq!(merged.profiles(), parts.iter().map(|part| part.profiles()).sum::<u64>());
    assert_found_alike(&parts, &[Arc::clone(&merged)]);
    // The same profiles at one time are the same whatever way they took.
    let at_once = fixture.segment(&parts) as Arc<dyn Source>;
    assert_eq!(told(&*merged), told(&*at_once));
    // One pass more changes nothing, not even a byte of what the manifest counts.
    let again = fixture.segment(&[Arc::clone(&merged)]);
    assert_eq!(told(&*again), told(&*merged));
}

#[test]
fn spans_of_a_series_and_a_time_are_all_there_and_few_others() {
    let later = |seed: u64| {
        let mut profiles = profiles(seed, 250);
        profiles.iter_mut().for_each(|profile| profile.start_nanos += seed as i64 * 500_000_000_000);
        part(&profiles)
    };
    let parts: Vec<Arc<dyn Source>> = (1..13).map(later).collect();
    let segment = Fixture::new(16 << 20).segment(&parts);
    let bounds = segment.bounds().unwrap();
    let all = |wanted: Option<&[u32]>, range| {
        let mut entries: Vec<SpanEntry> = Vec::new();
        segment.all_spans(wanted, range, &mut |entry| entries.push(entry.clone())).unwrap();
        entries
    };
    let whole = all(None, None);
    let blocks = segment.blocks();
    assert!(blocks.len() > 20, "{}", blocks.len());
    let is_there = |series: u32, range: TimeRange| {
        let narrowed = all(Some(&[series]), Some(range));
        let passes = |entry: &&SpanEntry| entry.series == series && range.overlaps(&entry.range);
        let ids = |entries: &[SpanEntry]| entries.iter().filter(passes).map(|e| e.id).collect::<Vec<_>>();
        assert_eq!(ids(&narrowed), ids(&whole));
        narrowed.len()
    };
    for of_series in segment.series(None).unwrap() {
        // By series alone, then by time too.
        let theirs = all(Some(&[of_series.id]), None).len();
        assert!(theirs * 3 < whole.len(), "{theirs} of {}", whole.len());
        let starts: Vec<i64> = (bounds.start_ms..bounds.end_ms).step_by(300_000).collect();
        let at = |start_ms: &i64| TimeRange { start_ms: *start_ms, end_ms: start_ms + 20_000 };
        let visited: usize = starts.iter().map(|start_ms| is_there(of_series.id, at(start_ms))).sum();
        assert!(visited * 2 < theirs * starts.len(), "{visited} by {}, of {theirs} each", starts.len());
        // Where blocks begin and end.
        for TimeRange { start_ms, end_ms } in blocks.iter().map(|block| block.range) {
            for ms in [start_ms, end_ms] {
                is_there(of_series.id, TimeRange { start_ms: ms, end_ms: ms });
            }
        }
    }
    assert!(all(Some(&[]), None).is_empty());
}

#[test]
fn chunks_are_picked_by_series_and_time() {
    let part = part(&profiles(3, 200));
    let fixture = Fixture::new(1 << 20);
    let segment = fixture.segment(&[Arc::clone(&part)]);
    let series = segment.series(None).unwrap();
    let bounds = segment.bounds().unwrap();
    for of_series in &series {
        let theirs = part
            .series(None)
            .unwrap()
            .into_iter()
            .find(|series| series.labels == of_series.labels && series.types == of_series.types);
        let theirs = theirs.unwrap().id;
        for start_ms in (bounds.start_ms..bounds.end_ms).step_by(60_000) {
            let range = TimeRange { start_ms, end_ms: start_ms + 20_000 };
            let ids = |source: &dyn Source, series: u32| {
                let chunks = source.chunks(&[series], Some(range)).unwrap();
                chunks.iter().map(|chunk| chunk.id).collect::<BTreeSet<_>>()
            };
            assert_eq!(ids(&*segment, of_series.id), ids(&*part, theirs));
        }
        let mut starts = Vec::new();
        segment.chunks_of(of_series.id, &mut |chunk| starts.push(chunk.start_nanos)).unwrap();
        assert!(starts.is_sorted() && !starts.is_empty());
    }
}

#[test]
fn flipped_bytes_are_noticed_or_not_looked_at() {
    let fixture = Fixture::new(1 << 20);
    let segment = fixture.segment(&[part(&profiles(5, 3))]);
    let expected = told(&*segment);
    let meta = segment.meta().clone();
    let whole = fixture.objects.get(&meta.name).unwrap();
    let mut noticed = 0;
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fixture.objects.0.lock().insert(meta.name.clone(), bytes);
        let segment = fixture.open(meta.clone());
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| told(&*segment)));
        match read {
            Ok(told) => assert_eq!(told, expected, "byte {at}"),
            Err(_) => {
                assert!(segment.is_damaged(), "byte {at}");
                noticed += 1;
            }
        }
    }
    assert!(noticed > whole.len() / 6, "{noticed} of {}", whole.len());
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let fixture = Fixture::new(1 << 20);
    let segment = fixture.segment(&[part(&profiles(5, 2))]);
    let meta = segment.meta().clone();
    let mut bytes = fixture.objects.get(&meta.name).unwrap();
    let trailer = bytes.len() - 28;
    bytes[trailer + 12] = VERSION as u8 + 1;
    let sum = crc32fast::hash(&bytes[trailer..trailer + 24]).to_le_bytes();
    bytes[trailer + 24..].copy_from_slice(&sum);
    fixture.objects.0.lock().insert(meta.name.clone(), bytes);
    let error = fixture.open(meta).series(None).unwrap_err();
    assert!(error.to_string().contains("written in format version 3, this version reads up to 2"), "{error}");
}

#[test]
fn nothing_makes_no_segment() {
    let tenant = TenantId::anonymous();
    let name = || "segments/none.segment".to_owned();
    assert!(write(recipe(name(), &tenant, None), &[]).unwrap().is_none());
    let part = part(&profiles(1, 3));
    assert!(write(recipe(name(), &tenant, Some(&|_| false)), &[part]).unwrap().is_none());
}

#[test]
fn what_does_not_stay_leaves_nothing_behind() {
    let fixture = Fixture::new(1 << 20);
    let all = profiles(8, 30);
    let (kept, gone): (Vec<Profile>, Vec<Profile>) =
        all.iter().cloned().partition(|profile| profile.start_nanos % 3 == 0);
    assert!(!kept.is_empty() && !gone.is_empty());
    let tenant = TenantId::anonymous();
    let whole = fixture.segment(&[part(&all)]) as Arc<dyn Source>;
    let keep = |chunk: &Chunk| chunk.start_nanos % 3 == 0;
    let name = "segments/kept.segment".to_owned();
    let written = write(recipe(name.clone(), &tenant, Some(&keep)), &[whole]).unwrap().unwrap();
    assert!(fixture.objects.create(&name, written.bytes).unwrap());
    let left = fixture.open(written.meta);
    let expected = fixture.segment(&[part(&kept)]);
    assert_eq!(left.profiles(), kept.len() as u64);
    assert_eq!(left.stack_count().unwrap(), expected.stack_count().unwrap());
    assert_eq!(left.symbol_bytes(), expected.symbol_bytes());
    assert_found_alike(&[expected as Arc<dyn Source>], &[left as Arc<dyn Source>]);
}
