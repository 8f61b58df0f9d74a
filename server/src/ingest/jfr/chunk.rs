//! A chunk of a recording: its header, its constants and its events.
//!
//! A chunk stands for itself: types and constants of another mean nothing in it.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Memory;
use super::reader::{Fault, Reader, Text, event};
use super::types::{METADATA, Types, Value, Wanted};

const MAGIC: &[u8; 4] = b"FLR\0";
const HEADER_BYTES: usize = 68;
/// Bit of the header's features: numbers are compressed.
const COMPRESSED: u32 = 1;
/// The type of an event that holds constants.
const CONSTANTS: u64 = 1;

/// What the header of a chunk says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    /// Its bytes, header included.
    size: usize,
    constants_at: usize,
    metadata_at: usize,
    /// When it was begun, in Unix nanoseconds.
    pub(super) start_nanos: i64,
    /// How long it was written.
    pub(super) duration_nanos: i64,
    ticks_per_second: u64,
}

impl ChunkHeader {
    /// Reads the header of the chunk that these bytes begin with.
    fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes, 0);
        let damaged = |what: String| Fault::Damaged { at: 0, what: what.into() };
        if reader.take(4).ok() != Some(MAGIC) {
            return Err(damaged(
                "a chunk begins with FLR and a zero byte: send a recording of Java Flight Recorder".into(),
            ));
        }
        if bytes.len() < HEADER_BYTES {
            let got = bytes.len();
            return Err(damaged(format!(
                "a chunk's header has {HEADER_BYTES} bytes, got {got}: it is cut off"
            )));
        }
        let (major, minor) = (reader.u16()?, reader.u16()?);
        if !(1..=2).contains(&major) {
            return Err(damaged(format!("expected a recording of version 1 or 2, got {major}.{minor}")));
        }
        let (size, constants_at, metadata_at) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (start, duration) = (reader.u64()?, reader.u64()?);
        let (_start_ticks, ticks_per_second) = (reader.u64()?, reader.u64()?);
        if reader.u32()? & COMPRESSED == 0 {
            return Err(damaged(
                "expected compressed numbers, got plain ones: record with compression".into(),
            ));
        }
        let within = |offset: u64| usize::try_from(offset).ok().filter(|&offset| offset <= bytes.len());
        let Some(size) = within(size).filter(|&size| size >= HEADER_BYTES) else {
            let got = bytes.len();
            return Err(damaged(format!(
                "the chunk says it has {size} bytes, and {got} are here: it is cut off"
            )));
        };
        let place = |offset: u64, what: &str| {
            within(offset)
                .filter(|place| (HEADER_BYTES..size).contains(place))
                .ok_or_else(|| damaged(format!("its {what} should be at byte {offset}, which is not in it")))
        };
        Ok(Self {
            size,
            constants_at: place(constants_at, "constants")?,
            metadata_at: place(metadata_at, "metadata")?,
            start_nanos: i64::try_from(start).unwrap_or(i64::MAX),
            duration_nanos: i64::try_from(duration).unwrap_or(i64::MAX),
            ticks_per_second,
        })
    }

    /// This many ticks in nanoseconds.
    pub(super) fn nanos(&self, ticks: u64) -> i64 {
        let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(self.ticks_per_second.max(1));
        i64::try_from(nanos).unwrap_or(i64::MAX)
    }
}

/// The constants of one type: where in the chunk each of them is.
#[derive(Debug, Default)]
struct Pool {
    class: u64,
    places: HashMap<u64, usize, RandomState>,
}

/// The constants that are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Constant {
    StackTrace,
    Method,
    Class,
    Symbol,
    ThreadState,
    String,
}

impl Constant {
    const ALL: [Self; 6] =
        [Self::StackTrace, Self::Method, Self::Class, Self::Symbol, Self::ThreadState, Self::String];

    fn of(class: &str) -> Option<Self> {
        Some(match class {
            "jdk.types.StackTrace" => Self::StackTrace,
            "jdk.types.Method" => Self::Method,
            "java.lang.Class" => Self::Class,
            "jdk.types.Symbol" => Self::Symbol,
            "jdk.types.ThreadState" => Self::ThreadState,
            "java.lang.String" => Self::String,
            _ => return None,
        })
    }
}

/// One chunk.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    bytes: &'a [u8],
    pub(super) header: ChunkHeader,
    pub(super) types: Types<'a>,
    pools: [Pool; Constant::ALL.len()],
}

impl<'a> Chunk<'a> {
    /// Reads types and constants of the chunk that these bytes begin with, and tells which bytes come after it.
    pub(super) fn read(bytes: &'a [u8], memory: &mut Memory) -> Result<(Self, &'a [u8]), Fault> {
        let header = ChunkHeader::read(bytes)?;
        let (bytes, rest) = bytes.split_at(header.size);
        let types = Types::read(bytes, header.metadata_at, memory)?;
        let mut chunk = Self { bytes, header, types, pools: Default::default() };
        chunk.read_constants(memory)?;
        Ok((chunk, rest))
    }

    /// Constants are written part by part; each part tells how far before it the previous one is.
    fn read_constants(&mut self, memory: &mut Memory) -> Result<(), Fault> {
        let (mut at, mut end) = (self.header.constants_at, self.bytes.len());
        loop {
            let (kind, mut reader, _) = event(&self.bytes[..end], at)?;
            if kind != CONSTANTS {
                let what = format!("expected constants, which are of type {CONSTANTS}, got type {kind}");
                return Err(reader.damaged(what));
            }
            // When, and how long.
            reader.number()?;
            reader.number()?;
            let distance = reader.number()? as i64;
            reader.byte()?;
            for _ in 0..reader.count()? {
                self.read_pool(&mut reader, memory)?;
            }
            if distance == 0 {
                return Ok(());
            }
            // A part ends before the next begins, so that no byte is read twice.
            end = at;
            at = match (at as i64).checked_add(distance) {
                Some(before) if distance < 0 && before >= HEADER_BYTES as i64 => before as usize,
                _ => return Err(reader.damaged(format!("other constants should be {distance} bytes away"))),
            };
        }
    }

    fn read_pool(&mut self, reader: &mut Reader<'a>, memory: &mut Memory) -> Result<(), Fault> {
        let class = reader.number()?;
        let wanted = self.types.name(class).and_then(Constant::of);
        for _ in 0..reader.count()? {
            let key = reader.number()?;
            let place = reader.at();
            self.types.skip_value(class, reader)?;
            if let Some(constant) = wanted {
                let pool = &mut self.pools[constant as usize];
                pool.class = class;
                memory.take(2 * size_of::<(u64, usize)>())?;
                // The last part comes first, and knows best.
                pool.places.entry(key).or_insert(place);
            }
        }
        Ok(())
    }

    /// The type and the place of a constant.
    pub(super) fn constant(&self, constant: Constant, key: u64) -> Option<(u64, Reader<'a>)> {
        let pool = &self.pools[constant as usize];
        pool.places.get(&key).map(|&place| (pool.class, Reader::new(self.bytes, place)))
    }

    /// A text field of a constant; none where there is no such constant or field.
    pub(super) fn constant_text(
        &self,
        constant: Constant,
        key: u64,
        field: Wanted,
        memory: &mut Memory,
    ) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some((class, mut reader)) = self.constant(constant, key) else { return Ok(None) };
        let mut found = None;
        self.types.read_fields(class, &mut reader, |name, value| match value {
            Value::Text(text) if name == field => found = Some(text),
            _ => {}
        })?;
        found.map(|text| self.text(text, memory)).transpose()
    }

    /// The text, looked up if it is a constant. That takes time by its length for whoever names it, so it is charged for.
    pub(super) fn text(&self, text: Text<'a>, memory: &mut Memory) -> Result<Cow<'a, str>, Fault> {
        let key = match text {
            Text::Here(text) => return Ok(text),
            Text::Constant(key) => key,
        };
        let Some((_, mut reader)) = self.constant(Constant::String, key) else { return Ok("".into()) };
        match reader.text()? {
            Text::Here(text) => {
                memory.take(text.len())?;
                Ok(text)
            }
            Text::Constant(_) => Err(reader.damaged("a constant text is another constant")),
        }
    }

    /// The chunk's events but for those that hold types and constants: the type of each, and a reader of its fields.
    pub(super) fn events(&self) -> impl Iterator<Item = Result<(u64, Reader<'a>), Fault>> + use<'a> {
        let bytes = self.bytes;
        let mut at = HEADER_BYTES;
        std::iter::from_fn(move || {
            while at < bytes.len() {
                match event(bytes, at) {
                    Ok((METADATA | CONSTANTS, _, end)) => at = end,
                    Ok((kind, reader, end)) => {
                        at = end;
                        return Some(Ok((kind, reader)));
                    }
                    Err(fault) => {
                        at = bytes.len();
                        return Some(Err(fault));
                    }
                }
            }
            None
        })
    }
}
