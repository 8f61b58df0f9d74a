//! The labels of a series.

use std::fmt;
use std::sync::Arc;

/// Sorted label pairs with unique names: what tells one series from another. Cheap to clone.
///
/// Synthetic labels (`__profile_type__` and its parts) are not kept here, they follow from the profile type.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

/// Whether two label names are the same name, `.` and `_` taken for one another: OpenTelemetry writes `service.name`
/// where Prometheus writes `service_name`.
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    let fold = |c: u8| if c == b'.' { b'_' } else { c };
    a.len() == b.len() && a.bytes().map(fold).eq(b.bytes().map(fold))
}

impl Labels {
    /// Sorts the pairs by name. Of pairs with the same name the first stays.
    pub fn new<N: Into<Box<str>>, V: Into<Box<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut pairs: Vec<(Box<str>, Box<str>)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, earlier| later.0 == earlier.0);
        Self(pairs.into())
    }

    /// The value of the label with exactly this name, else of one whose name differs only in `.` and `_`.
    pub fn get(&self, name: &str) -> Option<&str> {
        match self.0.binary_search_by(|(n, _)| (**n).cmp(name)) {
            Ok(at) => Some(&self.0[at].1),
            Err(_) => self.0.iter().find(|(n, _)| same_name(n, name)).map(|(_, value)| &**value),
        }
    }

    /// The service's name, `unknown_service` when there is none.
    pub fn service(&self) -> &str {
        self.get("service_name").unwrap_or("unknown_service")
    }

    /// The pairs in order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of heap that the pairs take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len() + size_of::<(Box<str>, Box<str>)>()).sum()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_unique_and_found_in_either_spelling() {
        let labels = Labels::new([("service_name", "checkout"), ("k8s.pod", "a"), ("k8s.pod", "b")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("k8s.pod", "a"), ("service_name", "checkout")]);
        assert_eq!(labels.get("k8s_pod"), Some("a"));
        assert_eq!(labels.get("service.name"), Some("checkout"));
        assert_eq!(labels.get("service"), None);
    }
}
