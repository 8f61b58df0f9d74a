//! Profile types: what the values of a profile measure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What one value column measures, in text `name:sample type:sample unit:period type:period unit`,
/// as `process_cpu:cpu:nanoseconds:cpu:nanoseconds`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileType {
    /// The profile's name, as `process_cpu`.
    pub name: Arc<str>,
    /// What is counted, as `cpu`.
    pub sample_type: Arc<str>,
    /// Its unit, as `nanoseconds`.
    pub sample_unit: Arc<str>,
    /// What the sampling period is counted in; empty where the profile told none.
    pub period_type: Arc<str>,
    /// Its unit; empty where the profile told none.
    pub period_unit: Arc<str>,
}

/// A profile type id that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a profile type as name:sample_type:sample_unit:period_type:period_unit (as \
     process_cpu:cpu:nanoseconds:cpu:nanoseconds), got {got:?}"
)]
pub struct ProfileTypeError {
    got: String,
}

impl ProfileType {
    /// Whether it is CPU time in nanoseconds.
    pub fn is_cpu_time(&self) -> bool {
        &*self.sample_type == "cpu" && &*self.sample_unit == "nanoseconds"
    }

    /// Whether it is the number of samples taken.
    pub fn is_sample_count(&self) -> bool {
        &*self.sample_type == "samples" && &*self.sample_unit == "count"
    }
}

impl fmt::Display for ProfileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, sample_type, sample_unit, period_type, period_unit } = self;
        write!(f, "{name}:{sample_type}:{sample_unit}:{period_type}:{period_unit}")
    }
}

impl FromStr for ProfileType {
    type Err = ProfileTypeError;

    /// Reads five parts, or six where the last is `delta`, which selects the same data.
    fn from_str(text: &str) -> Result<Self, ProfileTypeError> {
        let parts: Vec<&str> = text.split(':').take(7).collect();
        match parts[..] {
            [name, sample_type, sample_unit, period_type, period_unit]
            | [name, sample_type, sample_unit, period_type, period_unit, "delta"]
                if !name.is_empty() && !sample_type.is_empty() =>
            {
                Ok(Self {
                    name: name.into(),
                    sample_type: sample_type.into(),
                    sample_unit: sample_unit.into(),
                    period_type: period_type.into(),
                    period_unit: period_unit.into(),
                })
            }
            _ => Err(ProfileTypeError { got: text.chars().take(200).collect() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delta_is_ignored_and_the_rest_survives() {
        let id = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
        let cpu: ProfileType = id.parse().unwrap();
        assert_eq!(cpu.to_string(), id);
        assert_eq!(format!("{id}:delta").parse::<ProfileType>().unwrap(), cpu);
        assert!(cpu.is_cpu_time());
        assert_eq!(
            "memory:alloc:bytes::".parse::<ProfileType>().unwrap().to_string(),
            "memory:alloc:bytes::"
        );
    }

    #[test]
    fn malformed_types_name_the_form() {
        for bad in ["", "cpu", "a:b:c:d", "a:b:c:d:e:f", "a:b:c:d:e:delta:g", ":b:c:d:e", "a::c:d:e"] {
            let error = bad.parse::<ProfileType>().unwrap_err().to_string();
            assert!(error.contains("name:sample_type:sample_unit"), "{bad}: {error}");
        }
    }
}
