//! speedscope's JSON: a list of frames, and profiles that are lists of samples or of openings and closings of frames.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::Upload;
use super::tally::{self, BYTES, CPU, Kind, Rate, WALL};
use crate::ingest::assemble::{Assembler, Frame, Header, LabelValue};
use crate::ingest::{Budget, IngestError, Limits};
use crate::json::Object;
use crate::model::{Profile, ProfileType};

const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";
/// At most so many bytes of memory does a byte of a file take once it is read.
const GROWTH: usize = 8;

#[derive(Deserialize)]
struct File<'a> {
    #[serde(rename = "$schema", borrow)]
    schema: Cow<'a, str>,
    #[serde(borrow)]
    shared: Object<Shared<'a>>,
    #[serde(borrow)]
    profiles: Vec<Object<OneProfile<'a>>>,
}

#[derive(Deserialize)]
struct Shared<'a> {
    #[serde(borrow)]
    frames: Vec<Object<SharedFrame<'a>>>,
}

#[derive(Deserialize)]
struct SharedFrame<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    file: Option<Cow<'a, str>>,
    line: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OneProfile<'a> {
    r#type: Form,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    unit: Unit,
    #[serde(default)]
    start_value: f64,
    #[serde(default)]
    end_value: f64,
    #[serde(default)]
    events: Vec<Object<Event>>,
    #[serde(default)]
    samples: Stacks,
    #[serde(default)]
    weights: Vec<f64>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Form {
    Evented,
    Sampled,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Unit {
    None,
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Seconds,
    Bytes,
}

#[derive(Deserialize)]
struct Event {
    r#type: EventType,
    frame: u32,
    at: f64,
}

#[derive(Deserialize, Clone, Copy)]
enum EventType {
    #[serde(rename = "O")]
    Open,
    #[serde(rename = "C")]
    Close,
}

/// Lists of frames, the root first, one after the other: a list of its own for each would take many times the input.
#[derive(Default)]
struct Stacks {
    frames: Vec<u32>,
    ends: Vec<usize>,
}

impl Stacks {
    fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        (0..self.ends.len()).map(|at| {
            let start = if at == 0 { 0 } else { self.ends[at - 1] };
            &self.frames[start..self.ends[at]]
        })
    }
}

impl<'de> Deserialize<'de> for Stacks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(StacksVisitor)
    }
}

struct StacksVisitor;

impl<'de> Visitor<'de> for StacksVisitor {
    type Value = Stacks;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lists of frames")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut lists: A) -> Result<Stacks, A::Error> {
        let mut stacks = Stacks::default();
        while lists.next_element_seed(OneStack(&mut stacks.frames))?.is_some() {
            stacks.ends.push(stacks.frames.len());
        }
        Ok(stacks)
    }
}

/// Appends the frames of one list.
struct OneStack<'a>(&'a mut Vec<u32>);

impl<'de> DeserializeSeed<'de> for OneStack<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for OneStack<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of frames")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut frames: A) -> Result<(), A::Error> {
        while let Some(frame) = frames.next_element()? {
            self.0.push(frame);
        }
        Ok(())
    }
}

impl Unit {
    /// Its length in nanoseconds, if it is one of time.
    fn nanos(self) -> Option<f64> {
        match self {
            Self::Nanoseconds => Some(1.0),
            Self::Microseconds => Some(1e3),
            Self::Milliseconds => Some(1e6),
            Self::Seconds => Some(1e9),
            Self::None | Self::Bytes => None,
        }
    }

    /// What a profile of this unit counts if its application's name does not say so: time, where nothing tells which,
    /// is CPU time in a file with one profile and wall-clock time in one with several.
    fn kind(self, several: bool) -> Kind {
        match self {
            Self::Bytes => BYTES,
            _ if several && self.nanos().is_some() => WALL,
            _ => CPU,
        }
    }
}

/// Reads a file. The label `profile_name` tells its profiles apart.
///
/// Of several profiles in one file each counts what its unit says, and the application's name is all the service's.
pub(super) fn decode(
    json: &[u8],
    upload: &Upload,
    header: Header,
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Vec<Profile>, IngestError> {
    let max = limits.max_decoded_bytes / GROWTH;
    if json.len() > max {
        let field = "speedscope file, which takes eight times its bytes in memory";
        return Err(IngestError::over(field, "max_decoded_bytes", max, json.len()));
    }
    let file: File<'_> = serde_json::from_slice(json)
        .map_err(|error| IngestError::invalid("speedscope file", error.to_string()))?;
    if file.schema != SCHEMA {
        let message =
            format!("expected {SCHEMA:?}, got {:?}", file.schema.chars().take(100).collect::<String>());
        return Err(IngestError::invalid("$schema", message));
    }
    let several = file.profiles.len() > 1;
    let (service, told) = if several { (upload.name.app(), None) } else { tally::split(upload.name.app()) };
    let mut types = Vec::new();
    let mut period = 0;
    let mut columns = Vec::with_capacity(file.profiles.len());
    for Object(profile) in &file.profiles {
        let column = Column::new(profile.unit, told, several, upload.rate, &mut types);
        period = column.period.max(period);
        columns.push(column);
    }
    if types.is_empty() {
        return Ok(Vec::new());
    }
    let width = types.len();
    let series = upload.name.series(&types[0].name.clone(), service, &upload.spy_name, limits)?;
    let mut profiles = Assembler::new(&series, types, Header { period, ..header }, limits);
    profiles.for_all(upload.name.span());
    let mut reader = Reader {
        frames: &file.shared.0.frames,
        known: vec![None; file.shared.0.frames.len()],
        profiles,
        path: Vec::new(),
        values: vec![0; width],
    };
    for (at, (Object(profile), column)) in file.profiles.iter().zip(columns).enumerate() {
        let read = match profile.r#type {
            Form::Evented => reader.evented(profile, &column),
            Form::Sampled => reader.sampled(profile, &column),
        };
        read.map_err(|error| error.within(&format!("profiles[{at}]")))?;
    }
    reader.profiles.finish(budget)
}

/// Where the values of a profile go, and what they are multiplied with.
struct Column {
    index: usize,
    scale: f64,
    period: i64,
}

impl Column {
    fn new(unit: Unit, told: Option<Kind>, several: bool, rate: Rate, types: &mut Vec<ProfileType>) -> Self {
        let kind = match told {
            Some(kind) if unit != Unit::Bytes || !kind.is_time() => kind,
            _ => unit.kind(several),
        };
        // Time that was measured does not depend on a rate.
        let rate = if unit.nanos().is_some() && rate.hertz == 0 { Rate::DEFAULT } else { rate };
        let (of_kind, period, scale) = kind.at(rate);
        let scale = unit.nanos().filter(|_| kind.is_time()).unwrap_or(scale as f64);
        let index = types.iter().position(|other| *other == of_kind).unwrap_or_else(|| {
            types.push(of_kind);
            types.len() - 1
        });
        Self { index, scale, period }
    }
}

struct Reader<'a, 'f> {
    frames: &'f [Object<SharedFrame<'f>>],
    known: Vec<Option<u32>>,
    profiles: Assembler<'a>,
    path: Vec<u32>,
    values: Vec<i64>,
}

impl Reader<'_, '_> {
    fn frame(&mut self, index: u32, field: impl Fn() -> String) -> Result<u32, IngestError> {
        let Some(Object(frame)) = self.frames.get(index as usize) else {
            let message = format!("frame {index} is not one of the {} shared frames", self.frames.len());
            return Err(IngestError::invalid(field(), message));
        };
        let profiles = &mut self.profiles;
        Ok(*self.known[index as usize].get_or_insert_with(|| {
            profiles.frame(Frame {
                name: &frame.name,
                filename: frame.file.as_deref().unwrap_or_default(),
                // What is no line of a file becomes 0, which is none.
                line: frame.line.unwrap_or_default() as u32,
                ..Frame::default()
            })
        }))
    }

    /// Adds what was measured at the path.
    fn add(&mut self, name: &str, column: &Column, weight: f64) -> Result<(), IngestError> {
        self.values[column.index] = (weight * column.scale).round() as i64;
        let labels = [("profile_name", LabelValue::Text(name))];
        let added = self.profiles.path(&self.path, labels, &self.values);
        self.values[column.index] = 0;
        added
    }

    fn sampled(&mut self, profile: &OneProfile<'_>, column: &Column) -> Result<(), IngestError> {
        let (samples, weights) = (profile.samples.iter(), &profile.weights);
        if samples.len() != weights.len() {
            let message =
                format!("expected {} of them, one for each sample, got {}", samples.len(), weights.len());
            return Err(IngestError::invalid("weights", message));
        }
        for (at, (sample, &weight)) in samples.zip(weights).enumerate() {
            if weight < 0.0 {
                return Err(IngestError::invalid(format!("weights[{at}]"), format!("{weight} is negative")));
            }
            self.path.clear();
            for &index in sample {
                let frame = self.frame(index, || format!("samples[{at}]"))?;
                self.path.push(frame);
            }
            self.add(&profile.name, column, weight)?;
        }
        Ok(())
    }

    fn evented(&mut self, profile: &OneProfile<'_>, column: &Column) -> Result<(), IngestError> {
        let mut last = profile.start_value;
        let mut open: Vec<u32> = Vec::new();
        self.path.clear();
        for (at, Object(event)) in profile.events.iter().enumerate() {
            let field = || format!("events[{at}]");
            if event.at < last {
                let message = format!("at {} is before {last}, where the one before was", event.at);
                return Err(IngestError::invalid(field(), message));
            }
            let frame = self.frame(event.frame, field)?;
            if event.at > last && !open.is_empty() {
                self.add(&profile.name, column, event.at - last)?;
            }
            last = event.at;
            match event.r#type {
                EventType::Open => {
                    open.push(event.frame);
                    self.path.push(frame);
                }
                EventType::Close if open.last() == Some(&event.frame) => {
                    open.pop();
                    self.path.pop();
                }
                EventType::Close => {
                    let message = format!("closes frame {}, which is not the last one opened", event.frame);
                    return Err(IngestError::invalid(field(), message));
                }
            }
        }
        // Frames that were still running when the recording ended.
        if !open.is_empty() && profile.end_value > last {
            self.add(&profile.name, column, profile.end_value - last)?;
        }
        Ok(())
    }
}
