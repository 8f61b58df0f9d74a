//! Which span attributes and baggage entries become labels of samples.

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::baggage::{Baggage, BaggageExt as _};
use opentelemetry::{Context, KeyValue};

use super::{LabelPair, cut};

/// Attributes and baggage entries together. Every label multiplies the series of a Pyroscope server.
pub(crate) const MAX_LABEL_KEYS: usize = 8;

/// Where a label's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An attribute that the span has at its start.
    Attribute,
    /// An entry of the baggage that the span is started under.
    Baggage,
}

/// One label of samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabelKey {
    pub(crate) source: Source,
    /// The attribute's or the entry's name.
    pub(crate) key: String,
    /// The label's name, as servers take it.
    pub(crate) label: Arc<str>,
}

impl LabelKey {
    /// The label that these make of a span. What they do not say is as it is for the parent.
    fn value<'a>(
        &self,
        attributes: &'a [KeyValue],
        baggage: &'a Baggage,
        parent: &'a [LabelPair],
    ) -> Option<Cow<'a, str>> {
        let own = match self.source {
            // The last one counts, as everywhere in OpenTelemetry.
            Source::Attribute => {
                attributes.iter().rev().find(|a| a.key.as_str() == self.key).map(|a| a.value.as_str())
            }
            Source::Baggage => baggage.get(&self.key).map(|value| Cow::Borrowed(value.as_str())),
        };
        let own = own.map(|value| match value {
            Cow::Borrowed(value) => Cow::Borrowed(cut(value)),
            Cow::Owned(value) => Cow::Owned(cut(&value).to_owned()),
        });
        own.filter(|value| !value.is_empty()).or_else(|| {
            parent.iter().find(|(label, _)| *label == self.label).map(|(_, value)| (&**value).into())
        })
    }
}

/// The labels of a span that starts in `cx` with these attributes, in the order of `keys`.
pub(crate) fn label_values<'a>(
    keys: &[LabelKey],
    attributes: &'a [KeyValue],
    cx: &'a Context,
    parent: &'a [LabelPair],
) -> Vec<(Arc<str>, Cow<'a, str>)> {
    let baggage = cx.baggage();
    keys.iter().filter_map(|key| Some((key.label.clone(), key.value(attributes, baggage, parent)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: Source, key: &str) -> LabelKey {
        LabelKey { source, key: key.to_owned(), label: Arc::from(key.replace('.', "_")) }
    }

    #[test]
    fn own_attributes_beat_the_parent_s_labels_and_baggage_reaches_every_child() {
        let keys = [
            key(Source::Attribute, "http.route"),
            key(Source::Attribute, "retries"),
            key(Source::Baggage, "tenant"),
            key(Source::Attribute, "absent"),
        ];
        let long = "é".repeat(500);
        let cx = Context::new()
            .with_baggage([KeyValue::new("tenant", "acme"), KeyValue::new("secret", "not listed")]);
        let values = |attributes: &[KeyValue], cx: &Context, parent: &[LabelPair]| -> Vec<LabelPair> {
            let values = label_values(&keys, attributes, cx, parent);
            values.into_iter().map(|(label, value)| (label, Arc::from(&*value))).collect()
        };
        let pair = |label: &str, value: &str| -> LabelPair { (Arc::from(label), Arc::from(value)) };

        let own = values(
            &[
                KeyValue::new("http.route", "/old"),
                KeyValue::new("user.id", "not listed"),
                KeyValue::new("http.route", "/pay/{id}"),
                KeyValue::new("retries", 3),
                KeyValue::new("absent", ""),
            ],
            &cx,
            &[],
        );
        assert_eq!(own, [pair("http_route", "/pay/{id}"), pair("retries", "3"), pair("tenant", "acme")]);
        let child = values(&[KeyValue::new("retries", 4)], &Context::new(), &own);
        assert_eq!(child, [pair("http_route", "/pay/{id}"), pair("retries", "4"), pair("tenant", "acme")]);
        // What is not listed any more is not inherited.
        let stale = [pair("gone", "x"), pair("tenant", "acme")];
        assert_eq!(values(&[], &Context::new(), &stale), [pair("tenant", "acme")]);
        let cut = values(&[KeyValue::new("http.route", long.clone())], &Context::new(), &[]);
        assert!(cut[0].1.len() <= 256 && long.starts_with(&*cut[0].1));
    }
}
