//! What a label selector sees of a series: its own labels and those that follow from its profile type.

use std::borrow::Cow;

use super::{Labels, ProfileType};

/// Names of the labels that every series has beside its own, sorted.
pub const SYNTHETIC_LABELS: [&str; 7] = [
    "__name__",
    "__period_type__",
    "__period_unit__",
    "__profile_type__",
    "__service_name__",
    "__type__",
    "__unit__",
];

/// The name under which a sample's span name is selected and grouped by, though it is no label of the series.
pub const SPAN_NAME: &str = "span_name";

/// The value of the label `name` of the series with these labels and this type, synthetic ones included.
pub fn label<'a>(labels: &'a Labels, kind: &'a ProfileType, name: &str) -> Option<Cow<'a, str>> {
    let value: &str = match name {
        "__name__" => &kind.name,
        "__type__" => &kind.sample_type,
        "__unit__" => &kind.sample_unit,
        "__period_type__" => &kind.period_type,
        "__period_unit__" => &kind.period_unit,
        "__service_name__" => labels.service(),
        "__profile_type__" => return Some(Cow::Owned(kind.to_string())),
        _ => labels.get(name)?,
    };
    Some(Cow::Borrowed(value))
}
