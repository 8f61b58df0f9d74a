//! The types that a chunk declares, and reading values by them.
//!
//! Recordings describe themselves: which fields an event has, and in which order, is known from the chunk alone. What the
//! values mean is not known here.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Memory;
use super::reader::{Fault, Reader, Text, event};

/// How deep elements of the metadata, and values in values, may nest. What the Java runtime writes needs four.
const MAX_DEPTH: usize = 16;

/// The type of the event that declares all others.
pub(super) const METADATA: u64 = 0;

/// Fields that are looked for, whatever type has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    AllocationSize,
    ContextId,
    Duration,
    Frames,
    LineNumber,
    Method,
    Name,
    Samples,
    Size,
    SpanId,
    SpanName,
    StackTrace,
    State,
    String,
    TlabSize,
    TraceIdHigh,
    TraceIdLow,
    Type,
    Value,
    Weight,
    /// Any other.
    Other,
}

impl Wanted {
    fn of(text: &str) -> Self {
        match text {
            "allocationSize" => Self::AllocationSize,
            "contextId" => Self::ContextId,
            "duration" => Self::Duration,
            "frames" => Self::Frames,
            "lineNumber" => Self::LineNumber,
            "method" => Self::Method,
            "name" => Self::Name,
            "samples" => Self::Samples,
            "size" => Self::Size,
            "spanId" => Self::SpanId,
            "spanName" => Self::SpanName,
            "stackTrace" => Self::StackTrace,
            "state" => Self::State,
            "string" => Self::String,
            "tlabSize" => Self::TlabSize,
            "traceIdHi" => Self::TraceIdHigh,
            "traceIdLo" => Self::TraceIdLow,
            "type" => Self::Type,
            "value" => Self::Value,
            "weight" => Self::Weight,
            _ => Self::Other,
        }
    }
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// As many bytes.
    Fixed(usize),
    /// A compressed number.
    Number,
    Text,
    /// The fields of the class with this number, one after the other.
    Fields(usize),
    /// The class is not declared.
    Unknown,
}

#[derive(Debug)]
struct Field {
    name: Wanted,
    /// Id of its class, until all classes are known.
    class: u64,
    shape: Shape,
    /// Whether the value is the key of a constant.
    constant: bool,
    array: bool,
}

#[derive(Debug)]
struct Class<'a> {
    name: Cow<'a, str>,
    fields: Vec<Field>,
}

/// A value that is neither an array nor has fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number, or the key of a constant.
    Number(u64),
    Text(Text<'a>),
}

/// Everything that a chunk declares.
#[derive(Debug)]
pub(super) struct Types<'a> {
    classes: Vec<Class<'a>>,
    numbers: HashMap<u64, usize, RandomState>,
}

/// What an element of the metadata says, as far as it matters.
#[derive(Default)]
struct Element<'e> {
    tag: &'e str,
    name: &'e str,
    id: &'e str,
    class: &'e str,
    constant: bool,
    array: bool,
}

impl<'a> Types<'a> {
    /// Reads the metadata event at this place of a chunk.
    pub(super) fn read(chunk: &'a [u8], at: usize, memory: &mut Memory) -> Result<Self, Fault> {
        let (kind, mut reader, _) = event(chunk, at)?;
        if kind != METADATA {
            return Err(reader
                .damaged(format!("expected the metadata, which is of type {METADATA}, got type {kind}")));
        }
        // When, how long, and which revision.
        for _ in 0..3 {
            reader.number()?;
        }
        let count = reader.count()?;
        memory.take(count.saturating_mul(size_of::<Cow<'_, str>>()))?;
        let mut strings = Vec::with_capacity(count);
        for _ in 0..count {
            match reader.text()? {
                Text::Here(text) => strings.push(text),
                Text::Constant(_) => return Err(reader.damaged("metadata cannot refer to constants")),
            }
        }
        let mut types = Self { classes: Vec::new(), numbers: HashMap::default() };
        types.elements(&mut reader, &strings, memory, MAX_DEPTH)?;
        for at in 0..types.classes.len() {
            for field in 0..types.classes[at].fields.len() {
                let shape = types.shape(types.classes[at].fields[field].class);
                types.classes[at].fields[field].shape = shape;
            }
        }
        Ok(types)
    }

    /// Reads an element and those in it.
    fn elements(
        &mut self,
        reader: &mut Reader<'a>,
        strings: &[Cow<'a, str>],
        memory: &mut Memory,
        depth: usize,
    ) -> Result<(), Fault> {
        if depth == 0 {
            return Err(reader.damaged(format!("elements nest more than {MAX_DEPTH} deep")));
        }
        let text = |reader: &mut Reader<'a>| {
            let index = reader.number()?;
            let text = usize::try_from(index).ok().and_then(|index| strings.get(index));
            text.map(|text| &**text).ok_or_else(|| {
                reader.damaged(format!("string {index} is not among the {} of the metadata", strings.len()))
            })
        };
        let mut element = Element { tag: text(reader)?, ..Element::default() };
        for _ in 0..reader.count()? {
            match (text(reader)?, text(reader)?) {
                ("name", value) => element.name = value,
                ("id", value) => element.id = value,
                ("class", value) => element.class = value,
                ("constantPool", value) => element.constant = value == "true",
                ("dimension", value) => element.array = !matches!(value, "" | "0"),
                _ => {}
            }
        }
        let id = |text: &str, what: &str| {
            text.parse().map_err(|_| {
                reader.damaged(format!("{what} {:?} of {:?} is no number", shown(text), shown(element.name)))
            })
        };
        match element.tag {
            "class" => {
                memory.take(size_of::<Class<'_>>() + element.name.len() + 32)?;
                self.numbers.insert(id(element.id, "id")?, self.classes.len());
                self.classes.push(Class { name: element.name.to_owned().into(), fields: Vec::new() });
            }
            "field" => {
                memory.take(size_of::<Field>())?;
                let field = Field {
                    name: Wanted::of(element.name),
                    class: id(element.class, "class")?,
                    shape: Shape::Unknown,
                    constant: element.constant,
                    array: element.array,
                };
                match self.classes.last_mut() {
                    Some(class) => class.fields.push(field),
                    None => return Err(reader.damaged("a field is in no class")),
                }
            }
            _ => {}
        }
        for _ in 0..reader.count()? {
            self.elements(reader, strings, memory, depth - 1)?;
        }
        Ok(())
    }

    fn shape(&self, class: u64) -> Shape {
        let Some(&number) = self.numbers.get(&class) else { return Shape::Unknown };
        match &*self.classes[number].name {
            "boolean" | "byte" => Shape::Fixed(1),
            "char" | "short" | "int" | "long" => Shape::Number,
            "float" => Shape::Fixed(4),
            "double" => Shape::Fixed(8),
            "java.lang.String" => Shape::Text,
            _ => Shape::Fields(number),
        }
    }

    /// Ids and names of the classes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &str)> {
        self.numbers.iter().map(|(&id, &number)| (id, &*self.classes[number].name))
    }

    /// The name of the class with this id.
    pub(super) fn name(&self, class: u64) -> Option<&str> {
        Some(&self.classes[*self.numbers.get(&class)?].name)
    }

    /// Reads the fields of a value of this class, and gives what is plain of them. A class that is plain itself is one
    /// field with no name.
    pub(super) fn read_fields(
        &self,
        class: u64,
        reader: &mut Reader<'a>,
        mut on: impl FnMut(Wanted, Value<'a>),
    ) -> Result<(), Fault> {
        match self.shape(class) {
            Shape::Fields(number) => {
                for field in &self.classes[number].fields {
                    self.read_field(field, reader, &mut on)?;
                }
            }
            Shape::Number => on(Wanted::Other, Value::Number(reader.number()?)),
            Shape::Text => on(Wanted::Other, Value::Text(reader.text()?)),
            shape => self.skip_shape(shape, reader, MAX_DEPTH)?,
        }
        Ok(())
    }

    fn read_field(
        &self,
        field: &Field,
        reader: &mut Reader<'a>,
        on: &mut impl FnMut(Wanted, Value<'a>),
    ) -> Result<(), Fault> {
        match (field.shape, field.name) {
            (_, Wanted::Other) => self.skip(field, reader, MAX_DEPTH)?,
            _ if field.array => self.skip(field, reader, MAX_DEPTH)?,
            (Shape::Number, name) => on(name, Value::Number(reader.number()?)),
            (_, name) if field.constant => on(name, Value::Number(reader.number()?)),
            (Shape::Text, name) => on(name, Value::Text(reader.text()?)),
            (shape, _) => self.skip_shape(shape, reader, MAX_DEPTH)?,
        }
        Ok(())
    }

    /// Reads a value of this class, which is a stack trace, the leaf first. Gives the plain fields of each frame, but
    /// reads over all but the `most` nearest to the root.
    pub(super) fn read_frames(
        &self,
        class: u64,
        reader: &mut Reader<'a>,
        most: usize,
        mut on: impl FnMut(&[(Wanted, Value<'a>)]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Shape::Fields(number) = self.shape(class) else {
            return Err(reader.damaged("a stack trace has no fields"));
        };
        let mut values = Vec::new();
        for field in &self.classes[number].fields {
            match field.shape {
                Shape::Fields(frame) if field.name == Wanted::Frames && field.array && !field.constant => {
                    let count = reader.count()?;
                    for at in 0..count {
                        if count - at > most {
                            self.skip_shape(field.shape, reader, MAX_DEPTH)?;
                            continue;
                        }
                        values.clear();
                        for part in &self.classes[frame].fields {
                            self.read_field(part, reader, &mut |name, value| values.push((name, value)))?;
                        }
                        on(&values)?;
                    }
                }
                _ => self.skip(field, reader, MAX_DEPTH)?,
            }
        }
        Ok(())
    }

    /// Reads over a value of this class.
    pub(super) fn skip_value(&self, class: u64, reader: &mut Reader<'a>) -> Result<(), Fault> {
        self.skip_shape(self.shape(class), reader, MAX_DEPTH)
    }

    fn skip(&self, field: &Field, reader: &mut Reader<'a>, depth: usize) -> Result<(), Fault> {
        let count = if field.array { reader.count()? } else { 1 };
        for _ in 0..count {
            if field.constant {
                reader.number()?;
            } else {
                self.skip_shape(field.shape, reader, depth)?;
            }
        }
        Ok(())
    }

    /// Each value takes a byte at least, so that the time this takes is bounded by the bytes.
    fn skip_shape(&self, shape: Shape, reader: &mut Reader<'a>, depth: usize) -> Result<(), Fault> {
        match shape {
            Shape::Fixed(bytes) => reader.take(bytes).map(drop),
            Shape::Number => reader.number().map(drop),
            Shape::Text => reader.skip_text(),
            Shape::Fields(number) => {
                let class = &self.classes[number];
                if depth == 0 || class.fields.is_empty() {
                    let name = shown(&class.name);
                    return Err(reader.damaged(format!("a value of {name} has no end, or no fields")));
                }
                class.fields.iter().try_for_each(|field| self.skip(field, reader, depth - 1))
            }
            Shape::Unknown => Err(reader.damaged("a value is of a class that is not declared")),
        }
    }
}

/// As much of a foreign name as an error text has room for.
fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}
