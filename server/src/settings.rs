//! What a setting is. Said once, it has a field, a default, a key in the file, a flag, a variable and a line of help.
//!
//! Knows no particular setting: `settings!` declares them where they are used.

use std::path::PathBuf;

use toml::Value;

/// A setting as files, the command line and the environment know it.
#[derive(Debug)]
pub struct Setting {
    /// The key in a file.
    pub name: &'static str,
    /// What it is for, one sentence a line.
    pub help: &'static str,
    /// What stands for a value in the help.
    pub placeholder: &'static str,
    /// Whether the flag alone means yes.
    pub switch: bool,
    /// Reads what a flag or variable says, or says what was expected.
    pub parse: fn(&str) -> Result<Value, String>,
}

impl Setting {
    /// The flag, without its two hyphens.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("SPANFLAME_{}", self.name.to_uppercase())
    }
}

/// A set of settings, as `settings!` declares it.
pub trait Settings {
    /// All of them, in the order in which they are documented.
    const ALL: &'static [Setting];

    /// The value of a setting; none if there is no such setting.
    fn get(&self, name: &str) -> Option<Value>;

    /// Sets it, or says what was expected; none if there is no such setting.
    fn set(&mut self, name: &str, value: &Value) -> Option<Result<(), String>>;
}

/// A type that settings may have.
pub trait Kind: Sized {
    /// What a value has to be, as an error says it.
    const EXPECTED: &'static str;
    /// Whether the flag alone means yes.
    const SWITCH: bool = false;

    /// Reads what a flag or variable says.
    fn from_text(text: &str) -> Option<Value>;

    /// Reads a value of a file.
    fn from_value(value: &Value) -> Option<Self>;

    /// The value as a file would have it.
    fn to_value(&self) -> Value;
}

/// [`Kind::from_text`] of a type, with an error for people.
pub(crate) fn parse<T: Kind>(text: &str) -> Result<Value, String> {
    let value = T::from_text(text).filter(|value| T::from_value(value).is_some());
    value.ok_or_else(|| format!("expected {}", T::EXPECTED))
}

/// [`Kind::from_value`] into a place, with an error for people.
pub(crate) fn assign<T: Kind>(place: &mut T, value: &Value) -> Result<(), String> {
    *place = T::from_value(value).ok_or_else(|| format!("expected {}, got {value}", T::EXPECTED))?;
    Ok(())
}

macro_rules! whole_number {
    ($($type:ty, $expected:literal;)+) => {$(
        impl Kind for $type {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Option<Value> {
                text.trim().parse().ok().map(Value::Integer)
            }

            fn from_value(value: &Value) -> Option<Self> {
                Self::try_from(value.as_integer()?).ok()
            }

            fn to_value(&self) -> Value {
                Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX))
            }
        }
    )+};
}

whole_number! {
    usize, "a whole number, 0 or more";
    u64, "a whole number, 0 or more";
    i64, "a whole number";
}

/// 0 stands for none.
impl Kind for Option<i64> {
    const EXPECTED: &'static str = i64::EXPECTED;

    fn from_text(text: &str) -> Option<Value> {
        i64::from_text(text)
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_integer().map(|number| Some(number).filter(|number| *number != 0))
    }

    fn to_value(&self) -> Value {
        Value::Integer(self.unwrap_or(0))
    }
}

impl Kind for bool {
    const EXPECTED: &'static str = "true or false";
    const SWITCH: bool = true;

    fn from_text(text: &str) -> Option<Value> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(Value::Boolean(true)),
            "false" | "no" | "off" | "0" => Some(Value::Boolean(false)),
            _ => None,
        }
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn to_value(&self) -> Value {
        Value::Boolean(*self)
    }
}

impl Kind for String {
    const EXPECTED: &'static str = "text";

    fn from_text(text: &str) -> Option<Value> {
        Some(Value::String(text.to_owned()))
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }

    fn to_value(&self) -> Value {
        Value::String(self.clone())
    }
}

/// Empty stands for none.
impl Kind for Option<PathBuf> {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Option<Value> {
        String::from_text(text)
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(|text| Some(text).filter(|text| !text.is_empty()).map(PathBuf::from))
    }

    fn to_value(&self) -> Value {
        Value::String(self.as_ref().map_or_else(String::new, |path| path.to_string_lossy().into_owned()))
    }
}

/// Empty stands for a place that the server chooses.
impl Kind for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn from_text(text: &str) -> Option<Value> {
        String::from_text(text)
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_str().map(Self::from)
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string_lossy().into_owned())
    }
}

/// As text, with commas between.
impl Kind for Vec<String> {
    const EXPECTED: &'static str = "a list of texts";

    fn from_text(text: &str) -> Option<Value> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        Some(Value::Array(items.map(Value::from).collect()))
    }

    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
    }

    fn to_value(&self) -> Value {
        Value::Array(self.iter().map(|item| Value::from(item.as_str())).collect())
    }
}

/// `; did you mean "listen"?` when one of the names is near, else nothing.
pub(crate) fn suggest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let near = names
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase().replace('-', "_"), known), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    near.map_or_else(String::new, |(_, known)| format!("; did you mean {known:?}?"))
}

/// Declares a struct whose fields are settings, each with its default and what stands for a value in the help; after
/// `beside` come fields that are none.
macro_rules! settings {
    (
        $(#[$outer:meta])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $help:literal])+ $field:ident: $type:ty = $default:expr, $placeholder:literal; )+
        }
        $( beside { $( $(#[$inner:meta])+ $other:ident: $other_type:ty, )+ } )?
    ) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $name {
            $( $(#[doc = $help])+ $vis $field: $type, )+
            $( $( $(#[$inner])+ $vis $other: $other_type, )+ )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $field: $default, )+
                    $( $( $other: Default::default(), )+ )?
                }
            }
        }

        impl $crate::settings::Settings for $name {
            const ALL: &'static [$crate::settings::Setting] = &[ $( $crate::settings::Setting {
                name: stringify!($field),
                help: concat!($($help, "\n"),+),
                placeholder: $placeholder,
                switch: <$type as $crate::settings::Kind>::SWITCH,
                parse: $crate::settings::parse::<$type>,
            } ),+ ];

            fn get(&self, name: &str) -> Option<toml::Value> {
                match name {
                    $( stringify!($field) => Some($crate::settings::Kind::to_value(&self.$field)), )+
                    _ => None,
                }
            }

            fn set(&mut self, name: &str, value: &toml::Value) -> Option<Result<(), String>> {
                match name {
                    $( stringify!($field) => Some($crate::settings::assign(&mut self.$field, value)), )+
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use settings;

#[cfg(test)]
mod tests {
    use super::*;

    settings! {
        /// For these tests.
        struct Sample {
            /// How many
            many: usize = 3, "N";
            /// Whether
            whether: bool = false, "BOOL";
            /// Which
            names: Vec<String> = Vec::new(), "NAME,…";
            /// How old,
            /// or 0
            age: Option<i64> = None, "MS";
        }
        beside {
            /// None of them.
            other: u8,
        }
    }

    #[test]
    fn one_declaration_gives_everything() {
        let mut sample = Sample::default();
        assert_eq!((sample.many, sample.other), (3, 0));
        assert_eq!(
            Sample::ALL.iter().map(Setting::variable).collect::<Vec<_>>(),
            ["SPANFLAME_MANY", "SPANFLAME_WHETHER", "SPANFLAME_NAMES", "SPANFLAME_AGE"]
        );
        assert_eq!(Sample::ALL[3].help, " How old,\n or 0\n");
        assert_eq!(sample.set("many", &Value::Integer(4)), Some(Ok(())));
        assert_eq!(
            sample.set("many", &Value::Integer(-4)),
            Some(Err("expected a whole number, 0 or more, got -4".to_owned()))
        );
        assert_eq!(sample.set("few", &Value::Integer(4)), None);
        assert_eq!(sample.set("other", &Value::Integer(4)), None);
        assert_eq!(sample.get("many"), Some(Value::Integer(4)));
        assert_eq!((Sample::ALL[2].parse)("a, b,"), Ok(Value::from(vec!["a", "b"])));
        assert_eq!((Sample::ALL[1].parse)("maybe"), Err("expected true or false".to_owned()));
        assert_eq!((Sample::ALL[0].parse)("-1"), Err("expected a whole number, 0 or more".to_owned()));
        sample.age = Some(5);
        assert_eq!(sample.set("age", &Value::Integer(0)), Some(Ok(())));
        assert_eq!(sample.age, None);
    }

    #[test]
    fn values_survive_the_round_trip() {
        let sample = Sample { many: 7, whether: true, names: vec!["x".into()], age: Some(-1), other: 0 };
        let mut copy = Sample::default();
        for setting in Sample::ALL {
            let value = sample.get(setting.name).expect("it is one of them");
            assert_eq!(copy.set(setting.name, &value), Some(Ok(())));
        }
        assert_eq!(copy, sample);
    }
}
