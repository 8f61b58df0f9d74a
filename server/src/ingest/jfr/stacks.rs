//! Stack traces of a chunk, and the names of the methods in them.
//!
//! Each constant is read once, however often it is named: constants may be large, and many may name the same.

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::chunk::{Chunk, Constant};
use super::reader::Fault;
use super::types::{Value, Wanted};
use super::{Memory, names};
use crate::ingest::Limits;
use crate::ingest::assemble::{Assembler, Frame};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Names of methods.
pub(super) struct Names<'c, 'a> {
    chunk: &'c Chunk<'a>,
    limits: &'c Limits,
    symbols: Map<u64, Rc<str>>,
    classes: Map<u64, Rc<str>>,
    methods: Map<u64, Option<Rc<str>>>,
}

impl<'c, 'a> Names<'c, 'a> {
    pub(super) fn new(chunk: &'c Chunk<'a>, limits: &'c Limits) -> Self {
        Self { chunk, limits, symbols: Map::default(), classes: Map::default(), methods: Map::default() }
    }

    /// The name of a method with that of its class; none where there is no such method.
    fn method(&mut self, key: u64, memory: &mut Memory) -> Result<Option<Rc<str>>, Fault> {
        if let Some(known) = self.methods.get(&key) {
            return Ok(known.clone());
        }
        let name = self.read_method(key, memory)?;
        self.methods.insert(key, name.clone());
        Ok(name)
    }

    fn read_method(&mut self, key: u64, memory: &mut Memory) -> Result<Option<Rc<str>>, Fault> {
        let Some((class, mut reader)) = self.chunk.constant(Constant::Method, key) else { return Ok(None) };
        let (mut of, mut name) = (0, 0);
        self.chunk.types.read_fields(class, &mut reader, |field, value| match (field, value) {
            (Wanted::Type, Value::Number(key)) => of = key,
            (Wanted::Name, Value::Number(key)) => name = key,
            _ => {}
        })?;
        let (class, method) = (self.class(of, memory)?, self.symbol(name, memory)?);
        let name = match (&*class, &*method) {
            ("", _) => method,
            (_, "") => class,
            (class, method) => format!("{class}.{method}").into(),
        };
        memory.take(name.len() + size_of::<(u64, Option<Rc<str>>)>())?;
        Ok(Some(name))
    }

    fn class(&mut self, key: u64, memory: &mut Memory) -> Result<Rc<str>, Fault> {
        if let Some(known) = self.classes.get(&key) {
            return Ok(Rc::clone(known));
        }
        let mut symbol = 0;
        if let Some((class, mut reader)) = self.chunk.constant(Constant::Class, key) {
            self.chunk.types.read_fields(class, &mut reader, |field, value| {
                if let (Wanted::Name, Value::Number(key)) = (field, value) {
                    symbol = key;
                }
            })?;
        }
        let name = self.symbol(symbol, memory)?;
        self.classes.insert(key, Rc::clone(&name));
        Ok(name)
    }

    fn symbol(&mut self, key: u64, memory: &mut Memory) -> Result<Rc<str>, Fault> {
        if let Some(known) = self.symbols.get(&key) {
            return Ok(Rc::clone(known));
        }
        let text =
            self.chunk.constant_text(Constant::Symbol, key, Wanted::String, memory)?.unwrap_or_default();
        let text = names::stable(text);
        // Longer ones lose their beginning anyway; until then they would be copied for each method.
        let mut start = text.len().saturating_sub(self.limits.max_string_bytes);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        let text: Rc<str> = text[start..].into();
        memory.take(text.len() + size_of::<(u64, Rc<str>)>())?;
        self.symbols.insert(key, Rc::clone(&text));
        Ok(text)
    }
}

/// Stack traces of a chunk as an assembler knows them.
#[derive(Default)]
pub(super) struct Stacks {
    /// Where each stack trace is; none for one that the chunk has not.
    known: Map<u64, Option<(usize, usize)>>,
    locations: Vec<u32>,
    /// The location of each method and line.
    frames: Map<(u64, u32), Option<u32>>,
}

impl Stacks {
    /// The locations of a stack trace, the leaf first; none where the chunk has no such stack trace.
    pub(super) fn get(
        &mut self,
        key: u64,
        names: &mut Names<'_, '_>,
        assembler: &mut Assembler<'_>,
        memory: &mut Memory,
    ) -> Result<Option<&[u32]>, Fault> {
        let range = match self.known.get(&key) {
            Some(&range) => range,
            None => {
                let range = self.read(key, names, assembler, memory)?;
                self.known.insert(key, range);
                range
            }
        };
        Ok(range.map(|(start, end)| &self.locations[start..end]))
    }

    fn read(
        &mut self,
        key: u64,
        names: &mut Names<'_, '_>,
        assembler: &mut Assembler<'_>,
        memory: &mut Memory,
    ) -> Result<Option<(usize, usize)>, Fault> {
        let chunk = names.chunk;
        let Some((class, mut reader)) = chunk.constant(Constant::StackTrace, key) else { return Ok(None) };
        let start = self.locations.len();
        let most = names.limits.max_stack_depth;
        chunk.types.read_frames(class, &mut reader, most, |fields| {
            let (mut method, mut line) = (0, 0);
            for field in fields {
                match *field {
                    (Wanted::Method, Value::Number(key)) => method = key,
                    // Native methods have lines below 0.
                    (Wanted::LineNumber, Value::Number(number)) => {
                        line = u32::try_from(number as i32).unwrap_or(0);
                    }
                    _ => {}
                }
            }
            let location = match self.frames.get(&(method, line)) {
                Some(&location) => location,
                None => {
                    let name = names.method(method, memory)?;
                    // The assembler keeps the name and the frame.
                    memory.take(name.as_deref().map_or(0, str::len) + 4 * size_of::<(u64, u64)>())?;
                    let location =
                        name.map(|name| assembler.frame(Frame { name: &name, line, ..Frame::default() }));
                    self.frames.insert((method, line), location);
                    location
                }
            };
            self.locations.extend(location);
            Ok(())
        })?;
        memory.take(size_of::<u32>() * (self.locations.len() - start))?;
        Ok(Some((start, self.locations.len())))
    }
}
