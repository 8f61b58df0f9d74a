//! Ranges of time.

/// A closed range of time in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First millisecond.
    pub start_ms: i64,
    /// Last millisecond, never before the first.
    pub end_ms: i64,
}

impl TimeRange {
    /// The range from `start_ms` to `end_ms`, both included; none if it ends before it starts.
    pub fn new(start_ms: i64, end_ms: i64) -> Option<Self> {
        (start_ms <= end_ms).then_some(Self { start_ms, end_ms })
    }

    /// Whether the two share an instant.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start_ms <= other.end_ms && other.start_ms <= self.end_ms
    }

    /// The smallest range that holds both.
    pub fn union(self, other: Self) -> Self {
        Self { start_ms: self.start_ms.min(other.start_ms), end_ms: self.end_ms.max(other.end_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_closed() {
        let range = |a, b| TimeRange::new(a, b).unwrap();
        assert!(range(0, 10).overlaps(&range(10, 20)));
        assert!(!range(0, 9).overlaps(&range(10, 20)));
        assert_eq!(TimeRange::new(2, 1), None);
        assert_eq!(range(0, 1).union(range(5, 6)), range(0, 6));
    }
}
