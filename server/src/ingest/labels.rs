//! The labels that come with a profile.

use super::{IngestError, Limits};
use crate::model::{Labels, SYNTHETIC_LABELS};

/// Labels of a series as they came, checked.
#[derive(Debug)]
pub struct SeriesLabels {
    /// The profile's name.
    pub(super) name: String,
    /// What the profile's own labels do not override.
    pairs: Vec<(String, String)>,
}

/// Whether a label is the server's to set, or says something about the sending that is no property of the series.
fn is_reserved(name: &str) -> bool {
    SYNTHETIC_LABELS.contains(&name) || matches!(name, "__delta__" | "__session_id__")
}

/// Whether a label that came in this field is one that a series may have.
pub(super) fn check(field: &str, name: &str, value: &str, limits: &Limits) -> Result<(), IngestError> {
    if name.is_empty() {
        return Err(IngestError::invalid(field, "a label has an empty name: give it one, or leave it out"));
    }
    if name.len() > limits.max_label_name_bytes {
        let field = format!("{field}: name {:?}…", name.chars().take(32).collect::<String>());
        return Err(IngestError::over(
            field,
            "max_label_name_bytes",
            limits.max_label_name_bytes,
            name.len(),
        ));
    }
    if value.len() > limits.max_label_value_bytes {
        let field = format!("{field}: value of {name:?}");
        return Err(IngestError::over(
            field,
            "max_label_value_bytes",
            limits.max_label_value_bytes,
            value.len(),
        ));
    }
    Ok(())
}

impl SeriesLabels {
    /// Checks the labels; nothing is copied before their number and then each of them is known to be allowed.
    ///
    /// # Errors
    /// When there are too many, when one is too long, nameless or there twice, or when none names the profile.
    pub fn new<'a>(
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        limits: &Limits,
    ) -> Result<Self, IngestError> {
        let mut name = None;
        let mut pairs: Vec<(String, String)> = Vec::new();
        if labels.len() > limits.max_labels_per_series {
            let (max, got) = (limits.max_labels_per_series, labels.len());
            return Err(IngestError::over("labels", "max_labels_per_series", max, got));
        }
        for (label, value) in labels {
            check("labels", label, value, limits)?;
            let twice = match label {
                "__name__" => name.replace(value).is_some(),
                label => pairs.iter().any(|(other, _)| other == label),
            };
            if twice {
                let message = format!("{label:?} is there twice: send it once");
                return Err(IngestError::invalid("labels", message));
            }
            if label != "__name__" && !is_reserved(label) && !value.is_empty() {
                pairs.push((label.to_owned(), value.to_owned()));
            }
        }
        let name = match name {
            Some(name) if !name.is_empty() && !name.contains(':') => name,
            name => {
                let got = name.map_or("none".to_owned(), |name| format!("{name:?}"));
                let message =
                    format!("expected the profile's name without colons, as process_cpu, got {got}");
                return Err(IngestError::invalid("labels: __name__", message));
            }
        };
        // Delta profiles of Go agents are the same profiles under another name.
        let name = name.strip_prefix("godeltaprof_").unwrap_or(name).to_owned();
        Ok(Self { name, pairs })
    }

    /// Whether a label of a sample with this name is of no account.
    pub(super) fn overrides(&self, name: &str) -> bool {
        is_reserved(name) || self.pairs.iter().any(|(own, _)| own == name)
    }

    /// The labels of a series of samples that carry these, none of which is overridden.
    pub(super) fn with(&self, of_samples: &[(&str, &str)], limits: &Limits) -> Result<Labels, IngestError> {
        let mut pairs = self.pairs.clone();
        for &(name, value) in of_samples {
            check("sample.label", name, value, limits)?;
            pairs.push((name.to_owned(), value.to_owned()));
        }
        if pairs.len() > limits.max_labels_per_series {
            let (max, got) = (limits.max_labels_per_series, pairs.len());
            return Err(IngestError::over(
                "labels with those of the samples",
                "max_labels_per_series",
                max,
                got,
            ));
        }
        let labels = Labels::new(pairs);
        if labels.get("service_name").is_some() {
            return Ok(labels);
        }
        let own = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Labels::new(own.chain([("service_name".to_owned(), "unknown_service".to_owned())])))
    }
}
