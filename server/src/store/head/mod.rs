//! The head: what the log holds, in memory and ready for queries.
//!
//! Partitioned as the log is: one partition for each log file, which becomes segments when it is closed. Nothing here
//! touches a disk.
//!
//! Locks are held for moments only. A query takes a read lock to pick `Arc`s of immutable chunks, adds them up with no
//! lock at all, and takes the read lock again, for a bounded batch of stack traces at a time, to learn their names; the
//! one writer takes the write lock for one profile at a time. So neither waits for the other's whole work.

mod spans;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use self::spans::SpanIndex;
use super::StoreError;
use super::source::{Chunk, FoundRun, NO_SPAN, SeriesEntry, Source, SpanEntry, SpanLookup, SpanRun};
use crate::model::{
    Labels, Loss, Numbers, Profile, ProfileType, Symbols, SymbolsBuilder, TenantId, TimeRange,
};

/// Stack traces visited under one read lock.
const STACKS_PER_LOCK: usize = 256;
/// Span entries visited under one read lock.
const ENTRIES_PER_LOCK: usize = 4096;

/// The part of the head that one log file holds.
#[derive(Debug)]
pub(super) struct Partition {
    tenants: RwLock<HashMap<TenantId, Arc<TenantPart>>>,
    bytes: AtomicUsize,
    since_ms: i64,
}

impl Partition {
    /// An empty one, made at this time in Unix milliseconds.
    pub(super) fn new(since_ms: i64) -> Self {
        Self { tenants: RwLock::default(), bytes: AtomicUsize::new(0), since_ms }
    }

    /// When it was made.
    pub(super) fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// Makes profiles visible to queries.
    pub(super) fn insert(&self, tenant: &TenantId, profiles: &[Profile]) {
        let part = Arc::clone(self.tenants.write().entry(tenant.clone()).or_default());
        let mut absorbed = None;
        for profile in profiles {
            let mut inner = part.inner.write();
            let before = inner.bytes();
            inner.insert(profile, &mut absorbed);
            self.bytes.fetch_add(inner.bytes() - before, Ordering::Relaxed);
        }
    }

    /// What a tenant has here.
    pub(super) fn tenant(&self, tenant: &TenantId) -> Option<Arc<TenantPart>> {
        self.tenants.read().get(tenant).cloned()
    }

    /// Memory taken, by the sizes of the entries.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What each tenant has here.
    pub(super) fn tenants(&self) -> BTreeMap<TenantId, Arc<TenantPart>> {
        self.tenants.read().iter().map(|(tenant, part)| (tenant.clone(), Arc::clone(part))).collect()
    }
}

/// One tenant's part of a partition.
#[derive(Debug, Default)]
pub(super) struct TenantPart {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    symbols: SymbolsBuilder,
    series: Vec<SeriesEntry>,
    /// Names of spans by series.
    span_names: Vec<HashSet<u32>>,
    series_ids: HashMap<(Labels, Arc<[ProfileType]>), u32>,
    chunks: Vec<Arc<Chunk>>,
    /// Numbers of the chunks of each series.
    chunks_of: Vec<Vec<u32>>,
    spans: SpanIndex,
    /// What senders lost, by series and time of the profile that told it.
    losses: Vec<(u32, TimeRange, Vec<Loss>)>,
    bounds: Option<TimeRange>,
    bytes: usize,
}

/// Tables taken over last, with the numbers that their entries got here.
struct Absorbed {
    theirs: Arc<Symbols>,
    numbers: Numbers,
}

impl Inner {
    fn bytes(&self) -> usize {
        self.bytes + self.symbols.bytes() + self.spans.bytes()
    }

    fn insert(&mut self, profile: &Profile, absorbed: &mut Option<Absorbed>) {
        let same = absorbed.take().filter(|a| Arc::ptr_eq(&a.theirs, &profile.symbols));
        let Absorbed { numbers, .. } = absorbed.insert(same.unwrap_or_else(|| {
            let numbers = self.symbols.absorb(&profile.symbols);
            Absorbed { theirs: Arc::clone(&profile.symbols), numbers }
        }));
        let range = profile.interval();
        let series = self.series_id(profile, range);

        // Rows of one span side by side: the span index then points to runs.
        let rows = profile.rows();
        let mut order: Vec<u32> = (0..rows as u32).collect();
        order.sort_by_key(|&row| profile.row_spans[row as usize]);
        let cpu = profile.types.iter().position(ProfileType::is_cpu_time);
        let counts = SampleCounts::new(&profile.types, profile.period);
        let chunk_index = self.chunks.len() as u32;
        let mut runs: Vec<SpanRun> = Vec::new();
        let mut found: Vec<(u32, SpanEntry)> = Vec::with_capacity(profile.spans.len());
        let mut start = 0;
        while start < rows {
            let number = profile.row_spans[order[start] as usize];
            let length =
                order[start..].iter().take_while(|&&row| profile.row_spans[row as usize] == number).count();
            let rows_of_run = &order[start..start + length];
            let mut span = profile.spans[number as usize].clone();
            span.name = numbers.strings[span.name as usize];
            span.local_root_name = numbers.strings[span.local_root_name as usize];
            let name = span.name;
            if name != 0 && self.span_names[series as usize].insert(name) {
                self.bytes += 8;
            }
            if number != 0 {
                let of_row = |&row: &u32| counts.of(|t| profile.column(t)[row as usize]);
                let samples = rows_of_run.iter().map(of_row).fold(0, u64::saturating_add);
                let cpu_nanos = cpu.map_or(0, |column| {
                    let column = profile.column(column);
                    rows_of_run.iter().fold(0i64, |sum, &r| sum.saturating_add(column[r as usize]))
                });
                let entry = SpanEntry { id: 0, span, series, samples, cpu_nanos, range };
                found.push((runs.len() as u32, entry));
            }
            start += length;
            runs.push(SpanRun { name, entry: NO_SPAN, end: start as u32 });
        }
        for ((run, _), entry) in found.iter().zip(self.spans.add(chunk_index, &found)) {
            runs[*run as usize].entry = entry;
        }

        let column = |index: usize| profile.column(index);
        let mut values = Vec::with_capacity(profile.values.len());
        for column in (0..profile.types.len()).map(column) {
            values.extend(order.iter().map(|&row| column[row as usize]));
        }
        let totals = (0..profile.types.len())
            .map(|t| column(t).iter().fold(0i64, |sum, &value| sum.saturating_add(value)))
            .collect();
        let chunk = Chunk {
            id: profile.id,
            series,
            start_nanos: profile.start_nanos,
            duration_nanos: profile.duration_nanos,
            period: profile.period,
            runs: runs.into(),
            stacks: order
                .iter()
                .map(|&row| numbers.stacks[profile.row_stacks[row as usize] as usize])
                .collect(),
            values: values.into(),
            totals,
        };
        self.bytes += chunk.bytes() + 4;
        self.chunks_of[series as usize].push(chunk_index);
        self.chunks.push(Arc::new(chunk));
        if !profile.losses.is_empty() {
            self.bytes +=
                profile.losses.iter().map(|loss| size_of::<Loss>() + loss.cause.len()).sum::<usize>() + 48;
            self.losses.push((series, range, profile.losses.clone()));
        }
        self.bounds = Some(self.bounds.map_or(range, |bounds| bounds.union(range)));
    }

    fn series_id(&mut self, profile: &Profile, range: TimeRange) -> u32 {
        let key = (profile.labels.clone(), Arc::clone(&profile.types));
        if let Some(&id) = self.series_ids.get(&key) {
            let entry = &mut self.series[id as usize];
            entry.range = entry.range.union(range);
            return id;
        }
        let id = self.series.len() as u32;
        self.bytes += size_of::<SeriesEntry>() + profile.labels.heap_bytes() + 64;
        self.series.push(SeriesEntry { id, labels: key.0.clone(), types: Arc::clone(&key.1), range });
        self.span_names.push(HashSet::new());
        self.chunks_of.push(Vec::new());
        self.series_ids.insert(key, id);
        id
    }
}

/// How many samples a row stands for: senders add equal ones up.
pub(crate) struct SampleCounts {
    count: Option<usize>,
    cpu: Option<(usize, i64)>,
}

impl SampleCounts {
    /// Told by the column that counts samples; else by CPU time over its period; else one a row.
    pub(crate) fn new(types: &[ProfileType], period: i64) -> Self {
        let by_period = |t: &ProfileType| {
            t.is_cpu_time() && t.period_type == t.sample_type && t.period_unit == t.sample_unit
        };
        Self {
            count: types.iter().position(ProfileType::is_sample_count),
            cpu: types.iter().position(by_period).filter(|_| period > 0).map(|column| (column, period)),
        }
    }

    /// The samples of one row whose values `value` tells by column.
    pub(crate) fn of(&self, value: impl Fn(usize) -> i64) -> u64 {
        match (self.count, self.cpu) {
            (Some(column), _) => value(column).max(0) as u64,
            (None, Some((column, period))) => (value(column).max(0) as u64 / period as u64).max(1),
            (None, None) => 1,
        }
    }
}

impl Source for TenantPart {
    fn bounds(&self) -> Option<TimeRange> {
        self.inner.read().bounds
    }

    fn profiles(&self) -> u64 {
        self.inner.read().chunks.len() as u64
    }

    fn series(&self, among: Option<&[u32]>) -> Result<Vec<SeriesEntry>, StoreError> {
        let inner = self.inner.read();
        Ok(match among {
            Some(numbers) => numbers.iter().map(|&number| inner.series[number as usize].clone()).collect(),
            None => inner.series.clone(),
        })
    }

    fn chunks(&self, wanted: &[u32], range: Option<TimeRange>) -> Result<Vec<Arc<Chunk>>, StoreError> {
        let inner = self.inner.read();
        let passes = |chunk: &&Arc<Chunk>| {
            range.is_none_or(|range| range.overlaps(&chunk.interval()))
                && wanted.binary_search(&chunk.series).is_ok()
        };
        Ok(inner.chunks.iter().filter(passes).cloned().collect())
    }

    fn chunks_of(&self, series: u32, visit: &mut dyn FnMut(&Arc<Chunk>)) -> Result<(), StoreError> {
        let mut chunks: Vec<Arc<Chunk>> = {
            let inner = self.inner.read();
            inner.chunks_of[series as usize]
                .iter()
                .map(|&at| Arc::clone(&inner.chunks[at as usize]))
                .collect()
        };
        chunks.sort_by_key(|chunk| chunk.start_nanos);
        chunks.iter().for_each(visit);
        Ok(())
    }

    fn find(
        &self,
        lookups: &[SpanLookup],
        visit: &mut dyn FnMut(usize, &SpanEntry),
    ) -> Result<(), StoreError> {
        for (at, &lookup) in lookups.iter().enumerate() {
            self.inner.read().spans.visit(lookup, &mut |entry| visit(at, entry));
        }
        Ok(())
    }

    fn all_spans(
        &self,
        _: Option<&[u32]>,
        _: Option<TimeRange>,
        visit: &mut dyn FnMut(&SpanEntry),
    ) -> Result<(), StoreError> {
        let mut start = 0;
        while self.inner.read().spans.visit_some(start, ENTRIES_PER_LOCK, visit) {
            start += ENTRIES_PER_LOCK;
        }
        Ok(())
    }

    fn entries(&self, numbers: &[u32]) -> Result<Vec<SpanEntry>, StoreError> {
        let mut entries = Vec::with_capacity(numbers.len());
        for batch in numbers.chunks(ENTRIES_PER_LOCK) {
            let inner = self.inner.read();
            entries.extend(batch.iter().map(|&number| inner.spans.entry(number).clone()));
        }
        Ok(entries)
    }

    fn runs(&self, entries: &[u32]) -> Result<Vec<FoundRun>, StoreError> {
        let inner = self.inner.read();
        let mut found = Vec::new();
        for &entry in entries {
            inner.spans.postings(entry, |chunk, run| {
                found.push(FoundRun { chunk: Arc::clone(&inner.chunks[chunk as usize]), run: run as usize });
            });
        }
        Ok(found)
    }

    fn span_count(&self) -> u64 {
        self.inner.read().spans.span_count()
    }

    fn span_names(&self, series: u32) -> Result<Vec<u32>, StoreError> {
        Ok(self.inner.read().span_names[series as usize].iter().copied().collect())
    }

    fn string(&self, index: u32) -> Result<String, StoreError> {
        Ok(self.inner.read().symbols.symbols().string(index).to_owned())
    }

    fn stack_count(&self) -> Result<u32, StoreError> {
        Ok(self.inner.read().symbols.symbols().stack_count() as u32)
    }

    fn stacks(
        &self,
        stacks: &[u32],
        visit: &mut dyn FnMut(usize, &Symbols, &[u32]),
    ) -> Result<(), StoreError> {
        for (batch, numbers) in stacks.chunks(STACKS_PER_LOCK).enumerate() {
            let inner = self.inner.read();
            let symbols = inner.symbols.symbols();
            for (at, &stack) in numbers.iter().enumerate() {
                visit(batch * STACKS_PER_LOCK + at, symbols, symbols.stack(stack));
            }
        }
        Ok(())
    }

    fn losses(&self, visit: &mut dyn FnMut(u32, TimeRange, &[Loss])) -> Result<(), StoreError> {
        let inner = self.inner.read();
        inner.losses.iter().for_each(|(series, range, losses)| visit(*series, *range, losses));
        Ok(())
    }

    fn symbol_bytes(&self) -> u64 {
        self.inner.read().symbols.bytes() as u64
    }

    fn index_bytes(&self) -> u64 {
        self.inner.read().spans.bytes() as u64
    }
}
