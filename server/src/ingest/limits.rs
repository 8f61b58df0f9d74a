//! What an input may be at most, how long it stays, and what a question may ask for.

use crate::settings::settings;

settings! {
    /// What one tenant may send and ask for. Each refusal names the limit.
    pub struct Limits {
        /// Largest body of a push in bytes, as sent
        max_request_bytes: usize = 64 << 20, "BYTES";
        /// Largest body of a push in bytes, decompressed
        max_message_bytes: usize = 128 << 20, "BYTES";
        /// Profiles of one push
        max_profiles_per_push: usize = 10_000, "N";
        /// Bytes that the profiles of one push may take together: decompressed, and again as kept
        max_push_bytes: usize = 256 << 20, "BYTES";
        /// Bytes of one profile, decompressed
        max_profile_bytes: usize = 64 << 20, "BYTES";
        /// Memory that the parts of one decoded profile may take, in bytes: small messages grow when they are decoded
        max_decoded_bytes: usize = 256 << 20, "BYTES";
        /// Samples of one profile
        max_samples: usize = 1_000_000, "N";
        /// Labels of one sample
        max_labels_per_sample: usize = 100, "N";
        /// Frames of a stack trace; deeper ones lose frames at the leaf
        max_stack_depth: usize = 1000, "N";
        /// Bytes of a symbol or any other string; longer ones keep their end
        max_string_bytes: usize = 65_535, "BYTES";
        /// Labels of a series, sample labels included
        max_labels_per_series: usize = 60, "N";
        /// Bytes of a label's name
        max_label_name_bytes: usize = 1024, "BYTES";
        /// Bytes of a label's value
        max_label_value_bytes: usize = 2048, "BYTES";
        /// Series that the sample labels of one profile may split it into
        max_series_per_profile: usize = 5000, "N";
        /// Spans of one export of traces
        max_spans_per_push: usize = 100_000, "N";
        /// Attributes of a span, an event, a link or a resource of traces; further ones are dropped
        max_attributes_per_span: usize = 128, "N";
        /// Events of a span; further ones are dropped
        max_events_per_span: usize = 128, "N";
        /// Links of a span; further ones are dropped
        max_links_per_span: usize = 128, "N";
        /// Bytes of a value of an attribute of traces; longer texts lose their end, longer lists are dropped
        max_attribute_bytes: usize = 16 << 10, "BYTES";
        /// How far before its arrival a profile or span may begin, in milliseconds; 0 for any time
        max_age_ms: Option<i64> = None, "MS";
        /// How far after its arrival a profile or span may begin or end, in milliseconds: clocks differ
        max_ahead_ms: i64 = 10 * 60 * 1000, "MS";
        /// Bytes of profiles, their labels and traces, decompressed, that a tenant may push per second; 0 for any number
        ingestion_rate_bytes: u64 = 0, "BYTES";
        /// Bytes that a tenant who was silent may push at once; 0 for one second's worth
        ingestion_burst_bytes: u64 = 0, "BYTES";
        /// Age at which profiles and traces go, in milliseconds; 0 keeps them for ever
        retention_ms: Option<i64> = None, "MS";
        /// Bytes of segments on disk at which the tenant's oldest go; 0 keeps all
        retention_bytes: Option<i64> = None, "BYTES";
        /// Longest time range of a query in milliseconds; 0 for any
        max_query_length_ms: u64 = 0, "MS";
        /// How far back a query sees, in milliseconds; 0 for all that is kept
        max_query_lookback_ms: u64 = 0, "MS";
        /// Nodes of a flame graph when the query names no number
        default_flamegraph_nodes: usize = 8192, "N";
        /// Most nodes of a flame graph that a query may ask for
        max_flamegraph_nodes: usize = 1 << 20, "N";
    }
}
