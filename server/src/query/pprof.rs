//! A merged profile written as a pprof message.

use spanflame_wire::google::v1 as wire;

use super::merge::MergedProfile;
use super::names::FOLDED_NAME;
use super::tree::Shown;
use crate::pprof_tables::PprofTables;

/// The message; see [`MergedProfile::pprof`]. It has what its samples refer to and nothing else.
pub(super) fn pprof(profile: &MergedProfile, max_nodes: usize) -> wire::Profile {
    let MergedProfile { kind, symbols, tree, covered, .. } = profile;
    let mut tables = PprofTables::new();
    let sample_type = tables.value_type(&kind.sample_type, &kind.sample_unit);
    let period_type = tables.value_type(&kind.period_type, &kind.period_unit);
    let (start, end) = covered.nanos.unwrap_or_default();
    let mut message = wire::Profile {
        default_sample_type: sample_type.r#type,
        sample_type: vec![sample_type],
        period_type: period_type.into(),
        period: covered.period,
        time_nanos: start,
        duration_nanos: end.saturating_sub(start),
        ..Default::default()
    };
    // Locations from the root to a bar, none for what is folded.
    let mut stack: Vec<Option<u32>> = Vec::new();
    let mut folded = None;
    tree.walk(max_nodes, |bar| {
        stack.truncate(bar.depth.saturating_sub(1));
        match bar.shown {
            Shown::Root => {}
            Shown::Frame(location) => stack.push(Some(location)),
            Shown::Folded => stack.push(None),
        }
        if bar.own[0] > 0 {
            let id = |location: &Option<u32>| match location {
                Some(location) => tables.location(symbols, *location),
                None => *folded.get_or_insert_with(|| tables.made_up_location(FOLDED_NAME)),
            };
            let location_id = stack.iter().rev().map(id).collect();
            message.sample.push(wire::Sample { location_id, value: vec![bar.own[0]], ..Default::default() });
        }
    });
    tables.finish(&mut message);
    message
}
