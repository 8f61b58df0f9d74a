//! A block of profiles as it lies in the file: its columns are found, their numbers still packed.
//!
//! A look-up needs little of a block, and unpacks no more than that. Whoever wants all of it makes a
//! [`Block`](super::block::Block) of it.

use super::super::codec::{CodecError, Input};
use super::super::head::SampleCounts;
use super::super::source::{SeriesEntry, SpanEntry, SpanLookup};
use super::block::{MOST, Most};
use super::columns::{Column, unzigzag};
use crate::model::{SpanId, SpanRef, TimeRange, TraceId, interval};

type Result<T> = std::result::Result<T, CodecError>;

pub(super) const TOO_FEW: CodecError = CodecError("fewer entries than were told");
const ZERO: CodecError = CodecError("id of zero");
const NOTHING: CodecError = CodecError("reference to nothing");

/// What a profile is, its runs and rows aside.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) id: [u8; 16],
    pub(super) series: u32,
    pub(super) start_nanos: i64,
    pub(super) duration_nanos: i64,
    pub(super) period: i64,
    pub(super) runs: u32,
    pub(super) rows: u32,
}

impl Head {
    /// The time it covers.
    pub(super) fn interval(&self) -> TimeRange {
        interval(self.start_nanos, self.duration_nanos)
    }
}

/// The columns of the span entries.
struct SpanColumns<'a> {
    ids: &'a [[u8; 8]],
    traces: &'a [[u8; 16]],
    span: Column<'a>,
    parent: Column<'a>,
    local_root: Column<'a>,
    trace: Column<'a>,
    name: Column<'a>,
    local_root_name: Column<'a>,
}

/// A block that is not unpacked.
pub(super) struct Packed<'a> {
    pub(super) profiles: Vec<Head>,
    pub(super) spans: usize,
    pub(super) rows: usize,
    of_spans: SpanColumns<'a>,
    /// Span entry of each run, from 1 on; 0 is none.
    pub(super) run_entries: Column<'a>,
    pub(super) run_lengths: Column<'a>,
    pub(super) row_stacks: Column<'a>,
    /// One for each type, of all rows whose profile has so many types.
    pub(super) values: Vec<Column<'a>>,
}

impl<'a> Packed<'a> {
    /// Finds the columns of what [`BlockBuilder::encode`](super::block::BlockBuilder::encode) wrote. `series` are the
    /// segment's, `most` what it may hold.
    pub(super) fn find_columns(bytes: &'a [u8], series: &[SeriesEntry], most: Most) -> Result<Self> {
        let mut input = Input(bytes);
        let mut count = |most: usize| match input.number()? {
            count if count <= most as u64 => Ok(count as usize),
            _ => Err(CodecError("more entries than a block has")),
        };
        // A run has a row at least, and a span a run.
        let profiles = count(most.profiles)?;
        let [spans, runs, rows] = [count(most.rows)?, count(most.rows)?, count(most.rows)?];
        let profiles = heads(&mut input, profiles, series, runs, rows)?;
        let of_spans = SpanColumns::read(&mut input, spans)?;
        let run_entries = input.packed(runs)?;
        let run_lengths = input.packed(runs)?;
        let row_stacks = input.packed(rows)?;
        let types = |profile: &Head| series[profile.series as usize].types.len();
        let most_types = profiles.iter().map(types).max().unwrap_or(0);
        let mut values = Vec::with_capacity(most_types);
        let mut left = MOST;
        for at in 0..most_types {
            let of_type = profiles.iter().filter(|profile| at < types(profile));
            let count: usize = of_type.map(|profile| profile.rows as usize).sum();
            left = left
                .checked_sub(count)
                .filter(|_| count <= rows)
                .ok_or(CodecError("more rows than were told"))?;
            values.push(input.packed(count)?);
        }
        super::at_end(&input)?;
        Ok(Self { profiles, spans, rows, of_spans, run_entries, run_lengths, row_stacks, values })
    }

    /// All span entries with nothing but their spans; `strings` is how many strings there are.
    pub(super) fn all_spans(&self, strings: usize) -> Result<Vec<SpanRef>> {
        let SpanColumns { ids, traces, span, parent, local_root, trace, name, local_root_name } =
            &self.of_spans;
        let ids: Vec<Option<SpanId>> = all_ids(ids, |id| SpanId::new(u64::from_le_bytes(*id)))?;
        let traces: Vec<Option<TraceId>> = all_ids(traces, |id| TraceId::new(u128::from_le_bytes(*id)))?;
        let (span, parent) = (span.below(ids.len())?, parent.below(ids.len())?);
        let (local_root, trace) = (local_root.below(ids.len())?, trace.below(traces.len())?);
        let (name, local_root_name) = (name.below(strings)?, local_root_name.below(strings)?);
        let all = (0..self.spans).map(|at| SpanRef {
            span_id: ids[span[at] as usize],
            trace_id: traces[trace[at] as usize],
            name: name[at],
            parent: ids[parent[at] as usize],
            local_root: ids[local_root[at] as usize],
            local_root_name: local_root_name[at],
        });
        Ok(all.collect())
    }

    /// Visits the entries that a look-up is about. They get numbers from `first_entry` on; `series` are the segment's,
    /// `strings` is how many strings it has.
    pub(super) fn find(
        &self,
        lookup: SpanLookup,
        first_entry: u32,
        series: &[SeriesEntry],
        strings: usize,
        visit: &mut dyn FnMut(&SpanEntry),
    ) -> Result<()> {
        let places = self.of_spans.places(lookup)?;
        if places.is_empty() {
            return Ok(());
        }
        let mut found: Vec<Option<SpanEntry>> = vec![None; places.len()];
        let entries = self.run_entries.below(self.spans + 1)?;
        let lengths = self.run_lengths.below(self.rows + 1)?;
        let mut runs = entries.into_iter().zip(lengths);
        // Where the values of a profile begin, by type.
        let mut starts = vec![0usize; self.values.len()];
        for profile in &self.profiles {
            let of_series = &series[profile.series as usize];
            let counts = SampleCounts::new(&of_series.types, profile.period);
            let mut row = 0usize;
            for _ in 0..profile.runs {
                let (entry, length) = runs.next().ok_or(TOO_FEW)?;
                let (start, length) = (row, length as usize);
                row += length;
                let Some(place) = entry.checked_sub(1).and_then(|at| places.binary_search(&at).ok()) else {
                    continue;
                };
                let types = of_series.types.len();
                let columns = self.values[..types].iter().zip(&starts);
                let columns: Vec<Vec<u64>> = columns
                    .map(|(column, first)| column.some(first + start, length))
                    .collect::<Result<_>>()?;
                let entry = match &mut found[place] {
                    Some(entry) => entry,
                    none => none.insert(SpanEntry {
                        id: first_entry + places[place],
                        span: self.of_spans.span(places[place] as usize, strings)?,
                        series: profile.series,
                        samples: 0,
                        cpu_nanos: 0,
                        range: profile.interval(),
                    }),
                };
                let values = |column: usize, row: usize| columns[column][row] as i64;
                entry.add(profile.interval(), &of_series.types, &counts, 0..length, values);
            }
            if row != profile.rows as usize {
                return Err(CodecError("runs do not fill their profile"));
            }
            starts[..of_series.types.len()].iter_mut().for_each(|start| *start += row);
        }
        for entry in &found {
            visit(entry.as_ref().ok_or(WITHOUT_SAMPLES)?);
        }
        Ok(())
    }
}

pub(super) const WITHOUT_SAMPLES: CodecError = CodecError("span without samples");

fn heads(
    input: &mut Input<'_>,
    count: usize,
    series: &[SeriesEntry],
    runs: usize,
    rows: usize,
) -> Result<Vec<Head>> {
    let (ids, _) = input.take(count.checked_mul(16).ok_or(TOO_FEW)?)?.as_chunks::<16>();
    let of_series = input.column_below(count, series.len())?;
    let starts = input.column(count)?;
    let durations = input.column(count)?;
    let periods = input.column(count)?;
    let run_counts = input.column_below(count, runs + 1)?;
    let row_counts = input.column_below(count, rows + 1)?;
    let head = |at: usize| Head {
        id: ids[at],
        series: of_series[at],
        start_nanos: unzigzag(starts[at]),
        duration_nanos: durations[at] as i64,
        period: periods[at] as i64,
        runs: run_counts[at],
        rows: row_counts[at],
    };
    Ok((0..count).map(head).collect())
}

impl<'a> SpanColumns<'a> {
    fn read(input: &mut Input<'a>, spans: usize) -> Result<Self> {
        fn ids<'a, const N: usize>(input: &mut Input<'a>) -> Result<&'a [[u8; N]]> {
            let bytes = input.count()?.checked_mul(N).ok_or(TOO_FEW)?;
            Ok(input.take(bytes)?.as_chunks().0)
        }
        Ok(Self {
            ids: ids(input)?,
            traces: ids(input)?,
            span: input.packed(spans)?,
            parent: input.packed(spans)?,
            local_root: input.packed(spans)?,
            trace: input.packed(spans)?,
            name: input.packed(spans)?,
            local_root_name: input.packed(spans)?,
        })
    }

    /// Which entries a look-up is about, sorted.
    fn places(&self, lookup: SpanLookup) -> Result<Vec<u32>> {
        let Self { ids, traces, span, parent, local_root, trace, .. } = self;
        let (at, columns): (Option<usize>, &[&Column<'a>]) = match lookup {
            SpanLookup::Trace(id) => (traces.iter().position(|of| *of == id.get().to_le_bytes()), &[trace]),
            SpanLookup::Span(id) => (place(ids, id), &[span]),
            SpanLookup::Children(id) => (place(ids, id), &[parent]),
            SpanLookup::LocalRoot(id) => (place(ids, id), &[local_root]),
            SpanLookup::Family(id) => (place(ids, id), &[span, parent, local_root]),
        };
        let mut places = Vec::new();
        let Some(at) = at else { return Ok(places) };
        for column in columns {
            column.places(at as u64 + 1, |place| places.push(place as u32))?;
        }
        places.sort_unstable();
        places.dedup();
        Ok(places)
    }

    /// The span of one entry.
    fn span(&self, at: usize, strings: usize) -> Result<SpanRef> {
        let one = |column: &Column<'_>| column.some(at, 1).map(|values| values[0]);
        let text = |column| match one(column)? {
            number if number < strings as u64 => u32::try_from(number).map_err(|_| NOTHING),
            _ => Err(NOTHING),
        };
        let id = |column| match one(column)?.checked_sub(1) {
            None => Ok(None),
            Some(at) => {
                let bytes = usize::try_from(at).ok().and_then(|at| self.ids.get(at)).ok_or(NOTHING)?;
                SpanId::new(u64::from_le_bytes(*bytes)).ok_or(ZERO).map(Some)
            }
        };
        let trace_id = match one(&self.trace)?.checked_sub(1) {
            None => None,
            Some(at) => {
                let bytes = usize::try_from(at).ok().and_then(|at| self.traces.get(at)).ok_or(NOTHING)?;
                Some(TraceId::new(u128::from_le_bytes(*bytes)).ok_or(ZERO)?)
            }
        };
        Ok(SpanRef {
            span_id: id(&self.span)?,
            trace_id,
            name: text(&self.name)?,
            parent: id(&self.parent)?,
            local_root: id(&self.local_root)?,
            local_root_name: text(&self.local_root_name)?,
        })
    }
}

fn place(ids: &[[u8; 8]], id: SpanId) -> Option<usize> {
    ids.iter().position(|of| *of == id.get().to_le_bytes())
}

/// Ids by their numbers, of which 0 is none.
fn all_ids<Id, const N: usize>(
    ids: &[[u8; N]],
    read: impl Fn(&[u8; N]) -> Option<Id>,
) -> Result<Vec<Option<Id>>> {
    let ids = ids.iter().map(|id| read(id).ok_or(ZERO).map(Some));
    std::iter::once(Ok(None)).chain(ids).collect()
}
