//! The normalised profile.

use std::sync::Arc;

use super::{Labels, ProfileId, ProfileType, SpanId, Symbols, TimeRange, TraceId};

/// What a sample knows of the span that was active when it was taken. Every part may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SpanRef {
    /// The innermost active span.
    pub span_id: Option<SpanId>,
    /// Its trace.
    pub trace_id: Option<TraceId>,
    /// Its name, a string of the profile's symbols; 0 where none was told.
    pub name: u32,
    /// Its parent, where the sender told it.
    pub parent: Option<SpanId>,
    /// The first span of its trace in this process, where the sender told it.
    pub local_root: Option<SpanId>,
    /// The name of `local_root`, a string of the profile's symbols; 0 where none was told.
    pub local_root_name: u32,
}

/// Samples that a sender took and could not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The cause as the sender names it.
    pub cause: Box<str>,
    /// How many.
    pub samples: u64,
}

/// One profile of one series, with one column of values for each of its types.
///
/// Rows are samples: stack trace, span and one value for each type. No two rows have the same stack trace and span,
/// no value is negative, no row is zero in all columns, and no column is zero in all rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its id; profiles split from one input that has an id share it.
    pub id: ProfileId,
    /// The series' labels, `service_name` always among them.
    pub labels: Labels,
    /// What each column measures.
    pub types: Arc<[ProfileType]>,
    /// When profiling began, in Unix nanoseconds.
    pub start_nanos: i64,
    /// How long it lasted, in nanoseconds, never negative.
    pub duration_nanos: i64,
    /// The sampling period in the period type's unit, 0 when not told.
    pub period: i64,
    /// Tables that the columns refer to; profiles split from one input share them.
    pub symbols: Arc<Symbols>,
    /// The spans of the rows. Entry 0 is the empty one: no span.
    pub spans: Vec<SpanRef>,
    /// Number of each row's stack trace.
    pub row_stacks: Vec<u32>,
    /// Number of each row's entry in `spans`.
    pub row_spans: Vec<u32>,
    /// What the sender says that it lost before it sent this; of profiles split from one input the first tells it.
    pub losses: Vec<Loss>,
    /// Values, column after column: that of type `t` in row `r` is at `t * rows + r`.
    pub values: Vec<i64>,
}

impl Profile {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.row_stacks.len()
    }

    /// The values of the type with this number.
    pub fn column(&self, index: usize) -> &[i64] {
        &self.values[index * self.rows()..][..self.rows()]
    }

    /// Bytes that it takes without its tables.
    pub(crate) fn own_bytes(&self) -> usize {
        let text = |t: &ProfileType| {
            [&t.name, &t.sample_type, &t.sample_unit, &t.period_type, &t.period_unit]
                .iter()
                .map(|text| text.len())
                .sum::<usize>()
        };
        size_of::<Self>()
            + self.labels.heap_bytes()
            + self.types.iter().map(|kind| size_of::<ProfileType>() + text(kind)).sum::<usize>()
            + size_of_val(&*self.spans)
            + size_of_val(&*self.row_stacks)
            + size_of_val(&*self.row_spans)
            + size_of_val(&*self.values)
            + self.losses.iter().map(|loss| size_of::<Loss>() + loss.cause.len()).sum::<usize>()
    }

    /// The time it covers, rounded outwards to milliseconds.
    pub fn interval(&self) -> TimeRange {
        interval(self.start_nanos, self.duration_nanos)
    }
}

/// The closed range of milliseconds that holds `[start, start + duration]` nanoseconds.
pub(crate) fn interval(start_nanos: i64, duration_nanos: i64) -> TimeRange {
    let end = start_nanos.saturating_add(duration_nanos.max(0));
    let ceil = end.div_euclid(1_000_000) + i64::from(end.rem_euclid(1_000_000) > 0);
    TimeRange { start_ms: start_nanos.div_euclid(1_000_000), end_ms: ceil }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_round_outwards() {
        assert_eq!(interval(1_999_999, 1), TimeRange { start_ms: 1, end_ms: 2 });
        assert_eq!(interval(1_999_999, 2), TimeRange { start_ms: 1, end_ms: 3 });
        assert_eq!(interval(i64::MAX, i64::MAX).start_ms, i64::MAX / 1_000_000);
        assert_eq!(interval(-1, 0), TimeRange { start_ms: -1, end_ms: 0 });
    }
}
