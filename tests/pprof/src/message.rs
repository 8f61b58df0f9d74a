//! pprof as it is on the wire, from its field numbers.

use prost::Message;

/// `perftools.profiles.Profile`, what of it the tests look at or write.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    /// What each value of a sample measures.
    #[prost(message, repeated, tag = 1)]
    pub sample_type: Vec<ValueType>,
    /// The samples.
    #[prost(message, repeated, tag = 2)]
    pub sample: Vec<Sample>,
    /// The places that stacks name.
    #[prost(message, repeated, tag = 4)]
    pub location: Vec<Location>,
    /// The functions that lines name.
    #[prost(message, repeated, tag = 5)]
    pub function: Vec<Function>,
    /// Every text; the first is empty.
    #[prost(string, repeated, tag = 6)]
    pub string_table: Vec<String>,
    /// When it began, in Unix nanoseconds.
    #[prost(int64, tag = 9)]
    pub time_nanos: i64,
    /// How long it lasted, in nanoseconds.
    #[prost(int64, tag = 10)]
    pub duration_nanos: i64,
    /// What the period is counted in.
    #[prost(message, optional, tag = 11)]
    pub period_type: Option<ValueType>,
    /// What passes between two samples.
    #[prost(int64, tag = 12)]
    pub period: i64,
}

/// `perftools.profiles.ValueType`.
#[derive(Clone, PartialEq, Message)]
pub struct ValueType {
    /// What is counted, a string.
    #[prost(int64, tag = 1)]
    pub kind: i64,
    /// Its unit, a string.
    #[prost(int64, tag = 2)]
    pub unit: i64,
}

/// `perftools.profiles.Sample`.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// The stack, the leaf first.
    #[prost(uint64, repeated, tag = 1)]
    pub location_id: Vec<u64>,
    /// One value of each type.
    #[prost(int64, repeated, tag = 2)]
    pub value: Vec<i64>,
    /// What else is known.
    #[prost(message, repeated, tag = 3)]
    pub label: Vec<Label>,
}

/// `perftools.profiles.Label`.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    /// Its name, a string.
    #[prost(int64, tag = 1)]
    pub key: i64,
    /// Its text, a string; 0 for a number.
    #[prost(int64, tag = 2)]
    pub str: i64,
    /// Its number.
    #[prost(int64, tag = 3)]
    pub num: i64,
}

/// `perftools.profiles.Location`.
#[derive(Clone, PartialEq, Message)]
pub struct Location {
    /// What others name it by.
    #[prost(uint64, tag = 1)]
    pub id: u64,
    /// The functions there, the innermost first.
    #[prost(message, repeated, tag = 4)]
    pub line: Vec<Line>,
}

/// `perftools.profiles.Line`.
#[derive(Clone, PartialEq, Message)]
pub struct Line {
    /// The function.
    #[prost(uint64, tag = 1)]
    pub function_id: u64,
    /// The line in its file.
    #[prost(int64, tag = 2)]
    pub line: i64,
}

/// `perftools.profiles.Function`.
#[derive(Clone, PartialEq, Message)]
pub struct Function {
    /// What others name it by.
    #[prost(uint64, tag = 1)]
    pub id: u64,
    /// Its name, a string.
    #[prost(int64, tag = 2)]
    pub name: i64,
}
