//! The labels of a profile: which service it is of. They come from the same OpenTelemetry `Resource` as the traces,
//! as that is how Grafana finds one from the other.

use std::sync::Arc;

use opentelemetry::{Key, Value};
use opentelemetry_sdk::Resource;
use parking_lot::Mutex;

use crate::error::ConfigError;
use crate::spans::{LabelKey, MAX_LABEL_KEYS, Source};

/// Pyroscope takes 30 label names a series; ours, the server's and the samples' own need the rest.
const MAX_USER_LABELS: usize = 16;
const MAX_NAME: usize = 1024;
const MAX_VALUE: usize = 2048;

/// Names and values, in the order in which they are sent.
pub(crate) type Labels = Arc<[(String, String)]>;

/// What is known of the service without its `Resource`.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// Given by the user, so it beats the `Resource`.
    pub(crate) fixed_name: Option<String>,
    pub(crate) fallback_name: String,
    pub(crate) fallback_namespace: Option<String>,
    pub(crate) user_labels: Vec<(String, String)>,
}

/// The labels of this process's profiles; the `Resource` may become known after the first of them.
#[derive(Debug)]
pub(crate) struct ProfileLabels {
    identity: Identity,
    current: Mutex<Labels>,
    /// A `Resource` given in code is not replaced by one that a provider brings.
    given: bool,
}

impl ProfileLabels {
    pub(crate) fn new(identity: Identity, resource: Option<&Resource>) -> Self {
        let current = Mutex::new(compose(&identity, resource));
        Self { identity, current, given: resource.is_some() }
    }

    /// Takes the `Resource` of the tracer provider.
    pub(crate) fn learn(&self, resource: &Resource) {
        if self.given {
            return;
        }
        if let (Some(fixed), Some(theirs)) = (&self.identity.fixed_name, attribute(resource, "service.name"))
            && *fixed != theirs
        {
            tracing::warn!(
                profiles = %fixed,
                traces = %theirs,
                "profiles and traces name the service differently, so grafana will not find one from the other"
            );
        }
        *self.current.lock() = compose(&self.identity, Some(resource));
    }

    pub(crate) fn current(&self) -> Labels {
        self.current.lock().clone()
    }

    pub(crate) fn service_name(&self) -> String {
        let labels = self.current();
        labels.iter().find(|(name, _)| name == "service_name").map(|(_, v)| v.clone()).unwrap_or_default()
    }
}

fn attribute(resource: &Resource, key: &'static str) -> Option<String> {
    let value = match resource.get_ref(&Key::from_static_str(key))? {
        Value::String(text) => text.as_str().to_owned(),
        other => other.to_string(),
    };
    (!value.is_empty()).then_some(value)
}

fn compose(identity: &Identity, resource: Option<&Resource>) -> Labels {
    let from_resource = |key| resource.and_then(|resource| attribute(resource, key));
    let service = identity
        .fixed_name
        .clone()
        .or_else(|| from_resource("service.name"))
        .unwrap_or_else(|| identity.fallback_name.clone());
    let namespace = from_resource("service.namespace").or_else(|| identity.fallback_namespace.clone());

    let mut labels = vec![("__name__".to_owned(), "process_cpu".to_owned())];
    labels.extend(identity.user_labels.iter().cloned());
    let ours = [
        ("service_name", Some(service)),
        ("service_namespace", namespace),
        ("otel.scope.name", Some(env!("CARGO_PKG_NAME").to_owned())),
        ("otel.scope.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("process.runtime.name", Some("rust".to_owned())),
        ("process.runtime.version", Some(env!("SPANFLAME_RUSTC_VERSION").to_owned())),
    ];
    for (name, value) in ours {
        if let Some(value) = value
            && labels.iter().all(|(present, _)| present != name)
        {
            labels.push((name.to_owned(), shorten(value)));
        }
    }
    labels.into()
}

fn shorten(mut value: String) -> String {
    let mut end = value.len().min(MAX_VALUE);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value.truncate(end);
    value
}

/// Adds or replaces a label of the user's.
pub(crate) fn add_user_label(
    labels: &mut Vec<(String, String)>,
    setting: &str,
    name: String,
    value: String,
) -> Result<(), ConfigError> {
    let well_formed = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
        && name.len() <= MAX_NAME;
    if !well_formed {
        return Err(ConfigError::new(setting, "a label name of letters, digits, `_` and `.`", &name));
    }
    if name.starts_with("__") || OF_SAMPLES.contains(&&*name) {
        return Err(ConfigError::new(setting, "a label name that is not reserved", &name));
    }
    if value.is_empty() || value.len() > MAX_VALUE {
        return Err(ConfigError::new(setting, format!("a label value of 1 to {MAX_VALUE} bytes"), &value));
    }
    if let Some((_, present)) = labels.iter_mut().find(|(present, _)| *present == name) {
        *present = value;
    } else if labels.len() < MAX_USER_LABELS {
        labels.push((name, value));
    } else {
        return Err(ConfigError::new(setting, format!("at most {MAX_USER_LABELS} labels"), &name));
    }
    Ok(())
}

/// Labels of samples that are ours or the server's, by the names they have there.
const OF_SAMPLES: [&str; 7] = [
    "span_id",
    "trace_id",
    "span_name",
    "profile_id",
    "parent_span_id",
    "local_root_span_id",
    "local_root_span_name",
];

/// Labels of the whole profile that one of a sample would hide. Users may set them for all of it.
const OF_SERVICE: [&str; 2] = ["service_name", "service_namespace"];

/// A label's name as every server takes it: letters, digits and `_`, and no digit first.
fn sanitize(name: &str) -> String {
    let digit_first = name.starts_with(|c: char| c.is_ascii_digit());
    let first = if digit_first { Some('_') } else { None };
    first.into_iter().chain(name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })).collect()
}

/// Adds an attribute or a baggage entry to those that become labels of samples, unless it is there.
pub(crate) fn add_label_key(
    keys: &mut Vec<LabelKey>,
    user_labels: &[(String, String)],
    setting: &str,
    source: Source,
    key: String,
) -> Result<(), ConfigError> {
    if key.trim().is_empty() || key.len() > MAX_NAME {
        return Err(ConfigError::new(setting, format!("a name of 1 to {MAX_NAME} bytes"), &key));
    }
    if keys.iter().any(|present| present.source == source && present.key == key) {
        return Ok(());
    }
    let label = sanitize(&key);
    if label.starts_with("__") || OF_SAMPLES.iter().chain(&OF_SERVICE).any(|own| *own == label) {
        return Err(ConfigError::new(setting, "a label name that is not reserved", &key));
    }
    // A label of the whole profile would hide it.
    if user_labels.iter().any(|(name, _)| sanitize(name) == label)
        || keys.iter().any(|present| *present.label == *label)
    {
        return Err(ConfigError::new(setting, format!("a name whose label `{label}` is not taken"), &key));
    }
    if keys.len() == MAX_LABEL_KEYS {
        let expected = format!("at most {MAX_LABEL_KEYS} attributes and baggage entries");
        return Err(ConfigError::new(setting, expected, &key));
    }
    keys.push(LabelKey { source, key, label: label.into() });
    Ok(())
}

/// What OpenTelemetry calls a service that nobody named.
pub(crate) fn unknown_service() -> String {
    let executable = std::env::current_exe().ok();
    match executable.as_deref().and_then(|path| path.file_name()) {
        Some(name) => format!("unknown_service:{}", name.to_string_lossy()),
        None => "unknown_service".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;

    use super::*;

    fn value<'a>(labels: &'a Labels, name: &str) -> Option<&'a str> {
        labels.iter().find(|(present, _)| present == name).map(|(_, value)| value.as_str())
    }

    fn resource(attributes: &[(&'static str, &'static str)]) -> Resource {
        Resource::builder_empty()
            .with_attributes(attributes.iter().map(|(key, value)| KeyValue::new(*key, *value)))
            .build()
    }

    #[test]
    fn the_service_is_named_by_the_user_then_the_resource_then_the_environment() {
        let identity = |fixed: Option<&str>| Identity {
            fixed_name: fixed.map(str::to_owned),
            fallback_name: "from-env".to_owned(),
            fallback_namespace: Some("space-env".to_owned()),
            user_labels: vec![("region".to_owned(), "eu".to_owned())],
        };
        let traces = resource(&[("service.name", "checkout"), ("service.namespace", "shop")]);

        let named = ProfileLabels::new(identity(Some("mine")), Some(&traces)).current();
        assert_eq!(value(&named, "service_name"), Some("mine"));
        assert_eq!(value(&named, "service_namespace"), Some("shop"));
        assert_eq!(value(&named, "region"), Some("eu"));
        assert_eq!(named[0], ("__name__".to_owned(), "process_cpu".to_owned()));

        let labels = ProfileLabels::new(identity(None), None);
        assert_eq!(labels.service_name(), "from-env");
        assert_eq!(value(&labels.current(), "service_namespace"), Some("space-env"));
        labels.learn(&traces);
        assert_eq!(labels.service_name(), "checkout");
        assert_eq!(value(&labels.current(), "service_namespace"), Some("shop"));
    }

    #[test]
    fn a_resource_given_in_code_is_not_replaced() {
        let given = resource(&[("service.name", "given")]);
        let labels = ProfileLabels::new(Identity::default(), Some(&given));
        labels.learn(&resource(&[("service.name", "learnt")]));
        assert_eq!(labels.service_name(), "given");
    }

    #[test]
    fn a_label_of_the_users_beats_ours_and_names_stay_unique() {
        let mut user_labels = Vec::new();
        for value in ["one", "two"] {
            add_user_label(&mut user_labels, "label", "service_namespace".to_owned(), value.to_owned())
                .expect("a good label");
        }
        let identity = Identity { user_labels, ..Identity::default() };
        let labels =
            ProfileLabels::new(identity, Some(&resource(&[("service.namespace", "shop")]))).current();
        assert_eq!(value(&labels, "service_namespace"), Some("two"));
        let mut names: Vec<&String> = labels.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), labels.len());
    }

    #[test]
    fn labels_that_a_server_would_refuse_are_refused_here() {
        let long = "x".repeat(MAX_VALUE + 1);
        for (name, label_value) in [
            ("", "v"),
            ("9lives", "v"),
            ("a-b", "v"),
            ("__name__", "v"),
            ("span_id", "v"),
            ("parent_span_id", "v"),
            ("local_root_span_id", "v"),
            ("local_root_span_name", "v"),
            ("ok", ""),
            ("ok", &long),
        ] {
            let error = add_user_label(&mut Vec::new(), "label", name.to_owned(), label_value.to_owned())
                .expect_err("a bad label");
            assert_eq!(error.setting, "label");
        }
        let mut labels = Vec::new();
        for i in 0..MAX_USER_LABELS {
            add_user_label(&mut labels, "label", format!("l{i}"), "v".to_owned()).expect("room");
        }
        let error = add_user_label(&mut labels, "label", "more".to_owned(), "v".to_owned());
        assert_eq!(error.expect_err("no room").expected, "at most 16 labels");
    }

    #[test]
    fn attributes_become_labels_under_names_that_every_server_takes() {
        let mut keys = Vec::new();
        let user = [("my.region".to_owned(), "eu".to_owned())];
        let mut add =
            |source, key: &str| add_label_key(&mut keys, &user, "attribute_label", source, key.to_owned());
        add(Source::Attribute, "http.route").expect("a good name");
        add(Source::Attribute, "http.route").expect("the same again");
        add(Source::Baggage, "99-tenants/ü").expect("a good name");
        for (source, key, expected) in [
            (Source::Attribute, "", "a name of 1 to 1024 bytes"),
            (Source::Baggage, "span.id", "a label name that is not reserved"),
            (Source::Attribute, "service.name", "a label name that is not reserved"),
            (Source::Attribute, "local.root.span.name", "a label name that is not reserved"),
            (Source::Attribute, "..x", "a label name that is not reserved"),
            (Source::Attribute, "my.region", "a name whose label `my_region` is not taken"),
            (Source::Baggage, "http_route", "a name whose label `http_route` is not taken"),
        ] {
            let error = add(source, key).expect_err("a bad name");
            assert_eq!((&*error.setting, &*error.expected), ("attribute_label", expected));
        }
        for i in 0..6 {
            add(Source::Attribute, &format!("a{i}")).expect("room");
        }
        let error = add(Source::Baggage, "more").expect_err("no room");
        assert_eq!(error.expected, "at most 8 attributes and baggage entries");
        assert_eq!((&*keys[0].label, &*keys[1].label), ("http_route", "_99_tenants__"));
    }
}
