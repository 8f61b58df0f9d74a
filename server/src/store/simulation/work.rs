//! What lives are made of: tenants, profiles of chance, and what lets them go.

use std::cell::RefCell;

use uuid::Uuid;

use super::super::source::SpanLookup;
use super::super::{Deletion, Keep};
use super::chance::Chance;
use super::model::Sent;
use crate::ingest::{Limits, decode_series};
use crate::model::{Profile, ProfileId, SpanId, TenantId, TimeRange, TraceId};
use crate::testing::PprofBuilder;

pub(super) const TENANTS: [&str; 3] = ["aged", "sized", "kept"];
pub(super) const HOUR_MS: i64 = 3_600_000;
/// Age at which profiles of the first tenant go.
pub(super) const AGE_MS: i64 = 6 * HOUR_MS;
/// Bytes at which the second's go: few enough that some do, and enough for several segments in an eighth of them, which is the
/// most that a merge makes.
pub(super) const BYTES: u64 = 14_000;

thread_local! {
    /// Where ids of segments come from.
    static IDS: RefCell<Chance> = RefCell::new(Chance::new(0));
}

pub(super) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a plain name")
}

/// How long a tenant's profiles stay.
pub(super) fn keep(tenant: &TenantId) -> Keep {
    match tenant.as_str() {
        "aged" => Keep { age_ms: Some(AGE_MS), bytes: None },
        "sized" => Keep { age_ms: None, bytes: Some(BYTES) },
        _ => Keep::default(),
    }
}

/// Has ids of segments that are made on this thread follow from `chance`.
pub(super) fn take_ids_from(chance: Chance) {
    IDS.with(|ids| *ids.borrow_mut() = chance);
}

/// The id of another segment.
pub(super) fn segment_id() -> Uuid {
    let bits = IDS.with(|ids| ids.borrow_mut().next());
    Uuid::new_v8(u128::from(bits).to_be_bytes())
}

/// Profiles of one service that share their symbols, with spans of a few traces.
pub(super) fn profiles(chance: &mut Chance, now_ms: i64) -> Vec<Profile> {
    let mut all = Vec::new();
    for _ in 0..1 + chance.below(3) {
        let start_ms = now_ms - chance.below(HOUR_MS as u64) as i64;
        let mut builder = PprofBuilder::new().at(start_ms, chance.below(15_000) as i64);
        for _ in 0..1 + chance.below(6) {
            let function = format!("f{}", chance.below(12));
            let (trace, number) = (1 + chance.below(6), chance.below(3));
            let texts = [
                ("span_id", format!("{:016x}", trace * 100 + number)),
                ("trace_id", format!("{trace:032x}")),
                ("span_name", format!("GET /{number}")),
                ("parent_span_id", format!("{:016x}", trace * 100 + 50)),
                ("local_root_span_id", format!("{:016x}", trace * 100 + 60)),
            ];
            let known = chance.index(texts.len() + 1);
            let labels: Vec<(&str, &str)> =
                texts[..known].iter().map(|(name, text)| (*name, text.as_str())).collect();
            builder = builder.sample(&["main", &function], 1 + chance.below(9) as i64, &labels);
        }
        let service = *chance.pick(&["checkout", "payments"]);
        let labels = crate::testing::series_labels(&[("service_name", service)]);
        let decoded = decode_series(labels, builder.bytes(), &Limits::default(), now_ms);
        all.extend(decoded.expect("a good profile"));
    }
    for profile in &mut all {
        profile.id = ProfileId::derived(u128::from(chance.next()) << 64 | u128::from(chance.next()));
    }
    all
}

/// Something to delete.
pub(super) fn deletion(chance: &mut Chance, now_ms: i64) -> Deletion {
    let name = *chance.pick(&TENANTS);
    let range = (!chance.one_in(4)).then(|| {
        let start_ms = now_ms - chance.below(HOUR_MS as u64) as i64;
        TimeRange { start_ms, end_ms: start_ms + chance.below(HOUR_MS as u64 / 4) as i64 }
    });
    Deletion { tenant: tenant(name), range }
}

/// Whether a deletion is one of this profile.
pub(super) fn takes(deletion: &Deletion, sent: &Sent) -> bool {
    let start_ms = sent.profile.start_nanos.div_euclid(1_000_000);
    sent.tenant == deletion.tenant
        && deletion.range.is_none_or(|range| (range.start_ms..=range.end_ms).contains(&start_ms))
}

/// A time to ask for.
pub(super) fn range(chance: &mut Chance, now_ms: i64) -> TimeRange {
    let start_ms = now_ms - chance.below(2 * HOUR_MS as u64) as i64;
    TimeRange { start_ms, end_ms: start_ms + chance.below(600_000) as i64 }
}

/// A span and a trace to look up, in every way that there is.
pub(super) fn lookups(chance: &mut Chance) -> [SpanLookup; 4] {
    let span = chance.below(7) * 100 + *chance.pick(&[0, 1, 2, 50, 60]);
    let id = SpanId::new(span + 1000 * u64::from(span == 0)).expect("not zero");
    let trace = TraceId::new(1 + u128::from(chance.below(7))).expect("not zero");
    [SpanLookup::Span(id), SpanLookup::Trace(trace), SpanLookup::Children(id), SpanLookup::LocalRoot(id)]
}
