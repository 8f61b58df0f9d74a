//! The application's name as older agents write it: `shop.checkout{region=eu,pod=a}`. Nothing in it is quoted.

use std::str::FromStr;

use crate::ingest::assemble::{self, LabelValue};
use crate::ingest::{IngestError, Limits, SeriesLabels};
use crate::model::same_name;

/// An application and the labels that its agent was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppName {
    app: String,
    /// Names are unique.
    labels: Vec<(String, String)>,
}

impl AppName {
    /// The application, without labels; never empty.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// The labels in the order in which they were written.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What the labels say of a span: it is every sample's, and no label of the series.
    pub(super) fn span(&self) -> impl Iterator<Item = (&str, LabelValue<'_>)> {
        let of_span = self.labels().filter(|(name, _)| assemble::is_of_span(name));
        of_span.map(|(name, value)| (name, LabelValue::Text(value)))
    }

    /// The series of profiles with this name that this kind of agent took of this service.
    ///
    /// A label `service_name` wins over the service, which is then kept as `app_name`. Private labels, those that begin with
    /// two underscores, are not an agent's to set.
    pub(super) fn series(
        &self,
        profile: &str,
        service: &str,
        spy: &str,
        limits: &Limits,
    ) -> Result<SeriesLabels, IngestError> {
        let own = || self.labels().filter(|(name, _)| !name.starts_with("__") && !assemble::is_of_span(name));
        let has = |wanted: &str| own().any(|(name, _)| same_name(name, wanted));
        let mut pairs = vec![("__name__", profile)];
        pairs.extend(own());
        if !has("pyroscope_spy") {
            pairs.push(("pyroscope_spy", spy));
        }
        if !has("service_name") {
            pairs.push(("service_name", service));
        } else if !has("app_name") {
            pairs.push(("app_name", service));
        }
        SeriesLabels::new(pairs.into_iter(), limits)
    }
}

fn check(text: &str, what: &str, allowed: &str) -> Result<(), IngestError> {
    let bad = text.chars().find(|&c| !c.is_ascii_alphanumeric() && !allowed.contains(c));
    let message = match bad {
        Some(bad) => format!("{bad:?} in {text:?}: {what} has letters, digits and {allowed} only"),
        None if text.is_empty() => format!("{what} is empty: write it as app{{key=value,…}}"),
        None => return Ok(()),
    };
    Err(IngestError::invalid("name", message))
}

impl FromStr for AppName {
    type Err = IngestError;

    /// Reads `app{key=value,…}`, or the application alone. Blanks around each part are dropped; of labels with the same
    /// name the last counts.
    fn from_str(text: &str) -> Result<Self, IngestError> {
        let (app, pairs) = match text.split_once('{') {
            None => (text.trim(), ""),
            Some((app, rest)) => match rest.trim_end().strip_suffix('}') {
                Some(pairs) => (app.trim(), pairs),
                None => return Err(IngestError::invalid("name", "the labels do not end with }")),
            },
        };
        check(app, "the application's name", "_.-/")?;
        let mut labels: Vec<(String, String)> = Vec::new();
        for pair in pairs.split(',').filter(|pair| !pair.trim().is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                let message = format!("label {:?} has no value: write it as key=value", pair.trim());
                return Err(IngestError::invalid("name", message));
            };
            let (name, value) = (name.trim(), value.trim());
            check(name, "a label's name", "_.")?;
            match labels.iter_mut().find(|(other, _)| other == name) {
                Some(label) => label.1 = value.to_owned(),
                None => labels.push((name.to_owned(), value.to_owned())),
            }
        }
        Ok(Self { app: app.to_owned(), labels })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(text: &str) -> (String, Vec<(String, String)>) {
        let name: AppName = text.parse().unwrap();
        (name.app, name.labels)
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn applications_and_labels_are_read() {
        for (text, app, pairs) in [
            ("foo", "foo", &[][..]),
            ("foo{}", "foo", &[]),
            ("foo{bar=1,baz=2}", "foo", &[("bar", "1"), ("baz", "2")]),
            (" foo { bar = 1 , baz = 2 } ", "foo", &[("bar", "1"), ("baz", "2")]),
            ("team/shop.check-out_2{k8s.pod=a b=c,}", "team/shop.check-out_2", &[("k8s.pod", "a b=c")]),
            ("foo{a=1,b=,a=2}", "foo", &[("a", "2"), ("b", "")]),
            ("foo{a=ü{}}", "foo", &[("a", "ü{}")]),
        ] {
            assert_eq!(labels(text), (app.to_owned(), owned(pairs)), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_says_why() {
        for (text, expected) in [
            ("", "the application's name is empty"),
            ("{a=1}", "the application's name is empty"),
            ("foo{a=1", "do not end with }"),
            ("foo{a=1}x", "do not end with }"),
            ("foo{a}", "label \"a\" has no value"),
            ("foo{=1}", "a label's name is empty"),
            ("foo{a-b=1}", "'-' in \"a-b\": a label's name has letters, digits and _. only"),
            ("föö", "'ö' in \"föö\": the application's name has"),
            ("foo bar", "' ' in \"foo bar\""),
        ] {
            let error = text.parse::<AppName>().unwrap_err().to_string();
            assert!(error.starts_with("name: ") && error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn series_know_their_service_and_agent() {
        let series = |text: &str| {
            let name: AppName = text.parse().unwrap();
            let series = name.series("process_cpu", "shop", "rbspy", &Limits::default()).unwrap();
            let labels = series.with(&[], &Limits::default()).unwrap();
            labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
        };
        assert_eq!(series("shop.cpu{a=1}"), "a=1,pyroscope_spy=rbspy,service_name=shop");
        assert_eq!(
            series("shop.cpu{service_name=cart}"),
            "app_name=shop,pyroscope_spy=rbspy,service_name=cart"
        );
        assert_eq!(
            series("shop{service.name=cart,app_name=x}"),
            "app_name=x,pyroscope_spy=rbspy,service.name=cart"
        );
        assert_eq!(series("shop{pyroscope_spy=own}"), "pyroscope_spy=own,service_name=shop");
        assert_eq!(
            series("shop{__session_id__=1,__x=2,span_id=00f067aa0ba902b7,profile_id=x,span_name=GET}"),
            "pyroscope_spy=rbspy,service_name=shop"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<AppName>();
        }

        #[test]
        fn what_was_written_is_read(
            app in "[A-Za-z0-9_./-]{1,20}",
            pairs in prop::collection::btree_map("[A-Za-z0-9_.]{1,8}", "[a-zA-Z0-9=/:ü-]{0,8}", 0..6),
        ) {
            let written: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let name: AppName = format!("{app}{{{}}}", written.join(",")).parse().unwrap();
            prop_assert_eq!(name.app(), app);
            let read: Vec<_> = name.labels().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(read, pairs.into_iter().collect::<Vec<_>>());
        }
    }
}
