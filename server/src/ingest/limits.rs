//! What an input may be at most.

/// Limits on one push and on each of its profiles. Each refusal names the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Profiles of one push.
    pub max_profiles_per_push: usize,
    /// Bytes that the profiles of one push may take together: decompressed, and again as kept.
    pub max_push_bytes: usize,
    /// Bytes of one pprof after decompression.
    pub max_profile_bytes: usize,
    /// Memory that the parts of one decoded pprof may take, in bytes: small messages grow when they are decoded.
    pub max_decoded_bytes: usize,
    /// Samples of one pprof.
    pub max_samples: usize,
    /// Labels of one sample.
    pub max_labels_per_sample: usize,
    /// Frames of a stack trace; deeper ones lose frames at the leaf.
    pub max_stack_depth: usize,
    /// Bytes of a symbol or any other string; longer ones keep their end.
    pub max_string_bytes: usize,
    /// Labels of a series, sample labels included.
    pub max_labels_per_series: usize,
    /// Bytes of a label's name.
    pub max_label_name_bytes: usize,
    /// Bytes of a label's value.
    pub max_label_value_bytes: usize,
    /// Series that the sample labels of one pprof may split it into.
    pub max_series_per_profile: usize,
    /// How far before its arrival a profile may begin, in milliseconds; none for any time.
    pub max_age_ms: Option<i64>,
    /// How far after its arrival a profile may begin, in milliseconds: clocks differ.
    pub max_ahead_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_profiles_per_push: 10_000,
            max_push_bytes: 256 << 20,
            max_profile_bytes: 64 << 20,
            max_decoded_bytes: 256 << 20,
            max_samples: 1_000_000,
            max_labels_per_sample: 100,
            max_stack_depth: 1000,
            max_string_bytes: 65_535,
            max_labels_per_series: 60,
            max_label_name_bytes: 1024,
            max_label_value_bytes: 2048,
            max_series_per_profile: 5000,
            max_age_ms: None,
            max_ahead_ms: 10 * 60 * 1000,
        }
    }
}
