//! Profiles as bytes: the payload of a log record. `docs/storage.md` has the layout.
//!
//! Reading trusts nothing: every count is checked against the bytes that are left and every reference against its table.

use std::sync::Arc;

use crate::model::{
    Function, Labels, Line, Location, Loss, Mapping, Profile, ProfileId, ProfileType, SpanId, SpanRef,
    StringTable, Symbols, TenantId, TraceId,
};

/// A payload that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct CodecError(pub(super) &'static str);

type Result<T> = std::result::Result<T, CodecError>;

/// Begins a payload, followed by the number of its form. The first form had no such beginning but that of a tenant's
/// id, which is never empty.
const NUMBERED: u64 = 0;
/// The form that is written: profiles have ids, and what was lost before them.
const FORM: u64 = 2;

/// Writes a tenant's profiles; symbol tables that several of them share are written once.
pub(super) fn encode(tenant: &TenantId, profiles: &[Profile], out: &mut Vec<u8>) {
    let mut tables: Vec<&Arc<Symbols>> = Vec::new();
    let of_profile: Vec<usize> = profiles
        .iter()
        .map(|profile| {
            let known = tables.iter().rposition(|table| Arc::ptr_eq(table, &profile.symbols));
            known.unwrap_or_else(|| {
                tables.push(&profile.symbols);
                tables.len() - 1
            })
        })
        .collect();
    put(out, NUMBERED);
    put(out, FORM);
    put_text(out, tenant.as_str());
    put(out, tables.len() as u64);
    for table in tables {
        put_symbols(out, table);
    }
    put(out, profiles.len() as u64);
    for (profile, table) in profiles.iter().zip(of_profile) {
        put(out, table as u64);
        out.extend_from_slice(&profile.id.to_bytes());
        put_profile(out, profile);
        put(out, profile.losses.len() as u64);
        for loss in &profile.losses {
            put_text(out, &loss.cause);
            put(out, loss.samples);
        }
    }
}

/// What the profiles of one input, which share their tables, are encoded to at most.
pub(super) fn most_bytes(profiles: &[Profile]) -> usize {
    let tables = profiles.first().map_or(0, |profile| profile.symbols.heap_bytes());
    let bytes = tables + profiles.iter().map(Profile::own_bytes).sum::<usize>();
    // A number of 32 bits takes at most five bytes, one of 64 bits ten: a quarter more than in memory.
    bytes + bytes / 4
}

/// Reads what [`encode`] wrote, in this version or an earlier one.
pub(super) fn decode(bytes: &[u8]) -> Result<(TenantId, Vec<Profile>)> {
    let mut input = Input(bytes);
    let numbered = bytes.first() == Some(&(NUMBERED as u8));
    if numbered && (input.number()?, input.number()?) != (NUMBERED, FORM) {
        return Err(CodecError("unknown form"));
    }
    let tenant = TenantId::new(input.text()?).map_err(|_| CodecError("bad tenant id"))?;
    let tables: Vec<Arc<Symbols>> = input.list(|input| symbols(input).map(Arc::new))?;
    let profiles = input.list(|input| {
        let symbols = tables.get(input.index()?).ok_or(CodecError("no such symbol table"))?;
        let id = if numbered { Some(ProfileId::from_bytes(input.array()?)) } else { None };
        let mut profile = profile(input, id, Arc::clone(symbols))?;
        if numbered {
            profile.losses =
                input.list(|input| Ok(Loss { cause: input.text()?.into(), samples: input.number()? }))?;
        }
        Ok(profile)
    })?;
    if !input.0.is_empty() {
        return Err(CodecError("bytes after the end"));
    }
    Ok((tenant, profiles))
}

/// The id of a profile that was stored without one: the same at every start.
fn derived_id(start_nanos: i64, encoded: &[u8]) -> ProfileId {
    let content = u64::from(crc32fast::hash(encoded)) << 32 | encoded.len() as u64 & 0xffff_ffff;
    ProfileId::derived(u128::from(start_nanos as u64) << 64 | u128::from(content))
}

/// Writes a number.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    // Most take one byte or two.
    if value < 1 << 7 {
        return out.push(value as u8);
    }
    if value < 1 << 14 {
        return out.extend_from_slice(&[value as u8 | 0x80, (value >> 7) as u8]);
    }
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a text.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_all(out: &mut Vec<u8>, values: impl IntoIterator<Item = u32>) {
    for value in values {
        put(out, u64::from(value));
    }
}

/// Writes symbol tables.
pub(super) fn put_symbols(out: &mut Vec<u8>, symbols: &Symbols) {
    // Entry 0 of strings and mappings is always the same.
    put(out, symbols.strings.len() as u64 - 1);
    symbols.strings.iter().skip(1).for_each(|text| put_text(out, text));
    put(out, symbols.functions.len() as u64);
    for f in &symbols.functions {
        put_all(out, [f.name, f.system_name, f.filename, f.start_line]);
    }
    put(out, symbols.mappings.len() as u64 - 1);
    for m in &symbols.mappings[1..] {
        [m.start, m.limit, m.offset].into_iter().for_each(|value| put(out, value));
        put_all(out, [m.filename, m.build_id]);
    }
    put(out, symbols.lines.len() as u64);
    for lines in symbols.lines.iter() {
        put(out, lines.len() as u64);
        put_all(out, lines.iter().flat_map(|line| [line.function, line.line]));
    }
    put(out, symbols.locations.len() as u64);
    for l in &symbols.locations {
        put_all(out, [l.mapping, l.lines]);
        put(out, l.address);
    }
    put(out, symbols.stacks.len() as u64);
    for stack in symbols.stacks.iter() {
        put(out, stack.len() as u64);
        put_all(out, stack.iter().copied());
    }
}

/// Writes the labels of a series.
pub(super) fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    put(out, labels.len() as u64);
    for (name, value) in labels.iter() {
        put_text(out, name);
        put_text(out, value);
    }
}

/// Writes what the columns of a series measure.
pub(super) fn put_types(out: &mut Vec<u8>, types: &[ProfileType]) {
    put(out, types.len() as u64);
    for kind in types {
        for part in [&kind.name, &kind.sample_type, &kind.sample_unit, &kind.period_type, &kind.period_unit] {
            put_text(out, part);
        }
    }
}

fn put_profile(out: &mut Vec<u8>, profile: &Profile) {
    put_labels(out, &profile.labels);
    put_types(out, &profile.types);
    let start = profile.start_nanos;
    put(out, (start << 1 ^ start >> 63) as u64);
    put(out, profile.duration_nanos as u64);
    put(out, profile.period as u64);
    put(out, profile.spans.len() as u64 - 1);
    for span in &profile.spans[1..] {
        let ids = [span.span_id, span.parent, span.local_root];
        let mut flags = u8::from(span.trace_id.is_some()) << 3;
        for (bit, id) in ids.iter().enumerate() {
            flags |= u8::from(id.is_some()) << bit;
        }
        out.push(flags);
        ids.iter().flatten().for_each(|id| out.extend_from_slice(&id.get().to_le_bytes()));
        span.trace_id.iter().for_each(|id| out.extend_from_slice(&id.get().to_le_bytes()));
        put_all(out, [span.name, span.local_root_name]);
    }
    put(out, profile.rows() as u64);
    put_all(out, profile.row_stacks.iter().copied());
    put_all(out, profile.row_spans.iter().copied());
    profile.values.iter().for_each(|&value| put(out, value as u64));
}

/// The most entries that memory is made ready for before they are read.
const MOST_RESERVED: usize = 1 << 14;

/// The bits of eight bytes that say that a number goes on.
const CONTINUED: u64 = 0x8080_8080_8080_8080;

/// Bytes still to be read.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(CodecError("ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("exactly as many were taken"))
    }

    #[inline]
    pub(super) fn number(&mut self) -> Result<u64> {
        // Most take one byte or two.
        match *self.0 {
            [low, ref rest @ ..] if low < 0x80 => {
                self.0 = rest;
                Ok(u64::from(low))
            }
            [low, high, ref rest @ ..] if high < 0x80 => {
                self.0 = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_number(),
        }
    }

    fn long_number(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError("number of more than 64 bits"))
    }

    #[inline]
    pub(super) fn small(&mut self) -> Result<u32> {
        u32::try_from(self.number()?).map_err(|_| CodecError("number of more than 32 bits"))
    }

    fn index(&mut self) -> Result<usize> {
        Ok(self.small()? as usize)
    }

    /// A number below `end`.
    #[inline]
    pub(super) fn below(&mut self, end: usize) -> Result<u32> {
        let value = self.small()?;
        if (value as usize) < end { Ok(value) } else { Err(CodecError("reference to nothing")) }
    }

    /// A count of things that take at least one byte each.
    pub(super) fn count(&mut self) -> Result<usize> {
        let count = self.number()?;
        if count > self.0.len() as u64 {
            return Err(CodecError("more entries than bytes"));
        }
        Ok(count as usize)
    }

    pub(super) fn list<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.count()?;
        self.items(count, item)
    }

    /// So many items. The memory for those that are not there is bounded, whoever said how many there are.
    fn items<T>(&mut self, count: usize, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::with_capacity(count.min(MOST_RESERVED));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// So many numbers below `end`, added to `out`. Nearly all of a record is such numbers.
    fn references(&mut self, count: usize, end: usize, out: &mut Vec<u32>) -> Result<()> {
        out.reserve(count.min(MOST_RESERVED));
        let (mut rest, mut largest, end_of_out) = (self.0, 0, out.len() + count);
        while out.len() < end_of_out {
            // Which of them take one byte and which two nobody can foretell, a processor neither: so no branch asks.
            if out.len() + 4 <= end_of_out
                && let Some(&eight) = rest.first_chunk()
                && let mut bytes = u64::from_le_bytes(eight)
                && bytes & bytes << 8 & CONTINUED == 0
            {
                let mut taken = 0;
                let four: [u32; 4] = std::array::from_fn(|_| {
                    let two = bytes >> 7 & 1;
                    let value = bytes & 0x7f | ((bytes >> 1 & 0x3f80) * two);
                    bytes >>= 8 + 8 * two;
                    taken += 1 + two as usize;
                    value as u32
                });
                rest = &rest[taken..];
                largest = four.into_iter().fold(largest, u32::max);
                out.extend_from_slice(&four);
            } else {
                let mut input = Input(rest);
                let value = input.small()?;
                rest = input.0;
                largest = largest.max(value);
                out.push(value);
            }
        }
        self.0 = rest;
        if count > 0 && largest as usize >= end {
            return Err(CodecError("reference to nothing"));
        }
        Ok(())
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        let count = self.count()?;
        std::str::from_utf8(self.take(count)?).map_err(|_| CodecError("text is not UTF-8"))
    }

    fn id(&mut self, present: bool) -> Result<Option<SpanId>> {
        if !present {
            return Ok(None);
        }
        SpanId::new(u64::from_le_bytes(self.array()?)).map(Some).ok_or(CodecError("id of zero"))
    }
}

/// Reads what [`put_symbols`] wrote.
pub(super) fn symbols(input: &mut Input<'_>) -> Result<Symbols> {
    let mut symbols = Symbols::default();
    for _ in 0..input.count()? {
        symbols.strings.push(input.text()?);
    }
    let strings = symbols.strings.len();
    symbols.functions = input.list(|input| {
        Ok(Function {
            name: input.below(strings)?,
            system_name: input.below(strings)?,
            filename: input.below(strings)?,
            start_line: input.small()?,
        })
    })?;
    for _ in 0..input.count()? {
        symbols.mappings.push(Mapping {
            start: input.number()?,
            limit: input.number()?,
            offset: input.number()?,
            filename: input.below(strings)?,
            build_id: input.below(strings)?,
        });
    }
    let functions = symbols.functions.len();
    let mut lines = Vec::new();
    for _ in 0..input.count()? {
        lines.clear();
        for _ in 0..input.count()? {
            lines.push(Line { function: input.below(functions)?, line: input.small()? });
        }
        symbols.lines.push(&lines);
    }
    let (mappings, lines) = (symbols.mappings.len(), symbols.lines.len());
    symbols.locations = input.list(|input| {
        Ok(Location { mapping: input.below(mappings)?, lines: input.below(lines)?, address: input.number()? })
    })?;
    let locations = symbols.locations.len();
    let mut stack = Vec::new();
    for _ in 0..input.count()? {
        stack.clear();
        let count = input.count()?;
        input.references(count, locations, &mut stack)?;
        symbols.stacks.push(&stack);
    }
    Ok(symbols)
}

/// Reads the labels of a series.
pub(super) fn labels(input: &mut Input<'_>) -> Result<Labels> {
    Ok(Labels::new(input.list(|input| Ok((input.text()?, input.text()?)))?))
}

/// Reads what the columns of a series measure.
pub(super) fn types(input: &mut Input<'_>) -> Result<Vec<ProfileType>> {
    input.list(|input| {
        Ok(ProfileType {
            name: input.text()?.into(),
            sample_type: input.text()?.into(),
            sample_unit: input.text()?.into(),
            period_type: input.text()?.into(),
            period_unit: input.text()?.into(),
        })
    })
}

fn profile(input: &mut Input<'_>, id: Option<ProfileId>, symbols: Arc<Symbols>) -> Result<Profile> {
    let begun = input.0;
    let labels = labels(input)?;
    let types = types(input)?;
    let start = input.number()?;
    let start_nanos = (start >> 1) as i64 ^ -((start & 1) as i64);
    let (duration_nanos, period) = (input.number()? as i64, input.number()? as i64);
    let strings: &StringTable = &symbols.strings;
    let mut spans = vec![SpanRef::default()];
    for _ in 0..input.count()? {
        let [flags] = input.array()?;
        let (span_id, parent) = (input.id(flags & 1 != 0)?, input.id(flags & 2 != 0)?);
        let local_root = input.id(flags & 4 != 0)?;
        let trace_id = match flags & 8 {
            0 => None,
            _ => Some(TraceId::new(u128::from_le_bytes(input.array()?)).ok_or(CodecError("id of zero"))?),
        };
        let (name, local_root_name) = (input.below(strings.len())?, input.below(strings.len())?);
        spans.push(SpanRef { span_id, trace_id, name, parent, local_root, local_root_name });
    }
    let rows = input.count()?;
    let column = |input: &mut Input<'_>, end: usize| -> Result<Vec<u32>> {
        let mut column = Vec::new();
        input.references(rows, end, &mut column)?;
        Ok(column)
    };
    let row_stacks = column(input, symbols.stacks.len())?;
    let row_spans = column(input, spans.len())?;
    let cells = rows.checked_mul(types.len()).filter(|&cells| cells <= input.0.len());
    let cells = cells.ok_or(CodecError("more entries than bytes"))?;
    let values = input.items(cells, |input| Ok(input.number()? as i64))?;
    Ok(Profile {
        id: id.unwrap_or_else(|| derived_id(start_nanos, &begun[..begun.len() - input.0.len()])),
        labels,
        types: types.into(),
        start_nanos,
        duration_nanos,
        period,
        symbols,
        spans,
        row_stacks,
        row_spans,
        losses: Vec::new(),
        values,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::PprofBuilder;

    /// What the first version wrote: one table for all profiles, and no ids.
    fn encode_first_form(tenant: &TenantId, profiles: &[Profile], out: &mut Vec<u8>) {
        put_text(out, tenant.as_str());
        put(out, 1);
        put_symbols(out, &profiles[0].symbols);
        put(out, profiles.len() as u64);
        for profile in profiles {
            put(out, 0);
            put_profile(out, profile);
        }
    }

    fn profiles() -> Vec<Profile> {
        let mut builder = PprofBuilder::new()
            .sample(&["main", "a"], 1, &[("span_id", "00f067aa0ba902b7"), ("span_name", "GET /")])
            .sample(
                &["main", "b"],
                300,
                &[("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"), ("endpoint", "/pay")],
            )
            .sample(
                &["ä"],
                1 << 36,
                &[
                    ("local_root_span_id", "#7"),
                    ("local_root_span_name", "GET /pay"),
                    ("parent_span_id", "#18446744073709551615"),
                ],
            );
        builder.pprof.location[1].address = u64::MAX;
        builder.pprof.location[1].line.clear();
        let note = builder.string("lost.ring_full=300");
        builder.pprof.comment.push(note);
        let mut profiles = builder.profiles(&[("pod", "a")]);
        profiles.iter_mut().for_each(|profile| profile.start_nanos = -5);
        profiles
    }

    fn encoded() -> Vec<u8> {
        encode_all(&profiles())
    }

    fn encode_all(profiles: &[Profile]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&TenantId::new("team-a").unwrap(), profiles, &mut bytes);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let profiles = profiles();
        let (tenant, decoded) = decode(&encode_all(&profiles)).unwrap();
        assert_eq!(tenant.as_str(), "team-a");
        assert_eq!(decoded, profiles);
        assert!(Arc::ptr_eq(&decoded[0].symbols, &decoded[1].symbols), "shared tables stay shared");
    }

    #[test]
    fn profiles_of_the_first_form_get_ids_that_stay() {
        let mut bytes = Vec::new();
        encode_first_form(&TenantId::new("team-a").unwrap(), &profiles(), &mut bytes);
        let (tenant, decoded) = decode(&bytes).unwrap();
        assert_eq!(tenant.as_str(), "team-a");
        assert_eq!(decode(&bytes).unwrap().1, decoded, "the ids are the same every time");
        assert_ne!(decoded[0].id, decoded[1].id);
        let mut again = Vec::new();
        encode(&tenant, &decoded, &mut again);
        assert_eq!(decode(&again).unwrap().1, decoded);
        let mut expected = profiles();
        for (profile, decoded) in expected.iter_mut().zip(&decoded) {
            profile.id = decoded.id;
            profile.losses.clear();
        }
        assert_eq!(decoded, expected);
        assert_eq!(decode(&[0, 3, 1, b'a', 0, 0]), Err(CodecError("unknown form")));
    }

    #[test]
    fn no_prefix_is_read_as_the_whole() {
        let bytes = encoded();
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end} of {}", bytes.len());
        }
        assert!(decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn no_flipped_bit_panics() {
        let bytes = encoded();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let _ = decode(&flipped);
            }
        }
    }

    #[test]
    fn numbers_of_every_length() {
        for value in [0, 1, 127, 128, 1 << 63, u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(Input(&bytes).number(), Ok(value));
        }
        assert!(Input(&[0xff; 9]).number().is_err());
        assert!(Input(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).number().is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn references_are_read_as_one_number_after_another(
            bytes in prop::collection::vec(prop::sample::select(vec![0, 1, 0x7f, 0x80, 0x81, 0xff]), 0..40),
            count in 0..30usize,
            end in prop::sample::select(vec![1, 2, 128, 300, 1 << 14, 1 << 20, usize::MAX]),
        ) {
            let (mut one_by_one, mut together) = (Input(&bytes), Input(&bytes));
            let expected: Result<Vec<u32>> = (0..count).map(|_| one_by_one.below(end)).collect();
            let mut found = vec![7];
            let read = together.references(count, end, &mut found);
            prop_assert_eq!(read.is_ok(), expected.is_ok());
            if let Ok(expected) = expected {
                prop_assert_eq!(&found[1..], expected);
                prop_assert_eq!(together.0, one_by_one.0);
            }
        }

        #[test]
        fn any_profile_round_trips(
            counts in prop::collection::vec((0..9u8, 1..i64::MAX / 10_000_000, prop::option::of(1..9u64), prop::option::of(0..3u8)), 1..30),
            start in any::<i64>(),
        ) {
            let builder = counts.iter().fold(PprofBuilder::new(), |builder, (frame, count, span, root)| {
                let id = span.map(|span| format!("{span:016x}"));
                let root = root.map(|root| format!("root {root}"));
                let mut labels: Vec<_> = id.iter().map(|id| ("span_id", id.as_str())).collect();
                labels.extend(root.iter().map(|name| ("local_root_span_name", name.as_str())));
                builder.sample(&["main", &format!("f{frame}")], *count, &labels)
            });
            let mut profiles = builder.profiles(&[]);
            profiles.iter_mut().for_each(|profile| profile.start_nanos = start);
            let mut bytes = Vec::new();
            encode(&TenantId::anonymous(), &profiles, &mut bytes);
            prop_assert!(bytes.len() <= most_bytes(&profiles));
            prop_assert_eq!(decode(&bytes).unwrap().1, profiles);
        }
    }
}
