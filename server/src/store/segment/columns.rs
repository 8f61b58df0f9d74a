//! Columns of numbers as few bits: each column is written in whichever of four forms is smallest.
//!
//! Reading trusts nothing: a count is bounded by its caller, every bit that is read is there, every number that stands
//! for an entry of a table is checked by whoever asks for it. `docs/storage.md` has the forms.

use super::super::codec::{CodecError, Input, put};

type Result<T> = std::result::Result<T, CodecError>;

/// All the same: the number.
const CONSTANT: u8 = 0;
/// Least number, width, and what each is above the least.
const PACKED: u8 = 1;
/// First number, then the differences of neighbours, packed.
const DELTA: u8 = 2;
/// The distinct numbers, then which of them each is, packed.
const DICTIONARY: u8 = 3;

/// A dictionary has no more entries than this.
const MAX_DICTIONARY: usize = 256;

/// Bits that a number up to `most` takes.
fn width(most: u64) -> u32 {
    64 - most.leading_zeros()
}

/// A number with its sign, so that small ones of either sign are small.
pub(super) fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// What [`zigzag`] was made of.
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

struct Packed {
    least: i64,
    width: u32,
}

impl Packed {
    /// How these numbers are packed; `signed` orders them as signed ones, which differences are.
    fn of(values: impl Iterator<Item = i64> + Clone, signed: bool) -> Self {
        let flip = if signed { 0 } else { i64::MIN };
        let least = values.clone().map(|value| value ^ flip).min().unwrap_or(flip) ^ flip;
        let most = values.map(|value| value.wrapping_sub(least) as u64).max().unwrap_or(0);
        Self { least, width: width(most) }
    }

    fn bytes(&self, count: usize) -> usize {
        (count * self.width as usize).div_ceil(8) + 3 + width(zigzag(self.least)) as usize / 7
    }

    fn put(&self, out: &mut Vec<u8>, values: impl Iterator<Item = i64>) {
        put(out, zigzag(self.least));
        out.push(self.width as u8);
        let (mut bits, mut filled) = (0u128, 0);
        for value in values {
            bits |= u128::from(value.wrapping_sub(self.least) as u64) << filled;
            filled += self.width;
            if filled >= 64 {
                out.extend_from_slice(&(bits as u64).to_le_bytes());
                bits >>= 64;
                filled -= 64;
            }
        }
        out.extend_from_slice(&(bits as u64).to_le_bytes()[..filled.div_ceil(8) as usize]);
    }
}

/// Numbers packed side by side, as they lie there.
#[derive(Clone, Copy)]
struct Bits<'a> {
    least: u64,
    width: usize,
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Bits<'a> {
    fn read(input: &mut Input<'a>, count: usize) -> Result<Self> {
        let least = unzigzag(input.number()?) as u64;
        let [width] = input.array()?;
        let width = usize::from(width);
        if width > 64 {
            return Err(CodecError("more than 64 bits"));
        }
        let total = count.checked_mul(width).ok_or(CodecError("more entries than bytes"))?;
        Ok(Self { least, width, bytes: input.take(total.div_ceil(8))?, count })
    }

    /// The numbers from this one on.
    fn from(self, start: usize) -> impl Iterator<Item = u64> {
        let Self { least, width, bytes, count } = self;
        let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
        // Eight bytes hold so many bits that begin anywhere in the first of them.
        let is_narrow = width <= 57;
        (start..count).map(move |at| {
            let bit = at * width;
            let rest = &bytes[bit / 8..];
            let above = match rest.first_chunk() {
                Some(window) if is_narrow => u64::from_le_bytes(*window) >> (bit % 8),
                _ => wide(rest, bit % 8),
            };
            least.wrapping_add(above & mask)
        })
    }
}

/// The 64 bits behind so many, of which there are less than eight; past the end of the bytes there are zeros.
fn wide(bytes: &[u8], bit: usize) -> u64 {
    // Nine bytes hold them wherever they begin in the first.
    let window = bytes.first_chunk().copied().unwrap_or_else(|| {
        let mut window = [0; 16];
        window[..bytes.len()].copy_from_slice(bytes);
        window
    });
    (u128::from_le_bytes(window) >> bit) as u64
}

/// Writes a column.
pub(super) fn put_column(out: &mut Vec<u8>, values: &[u64]) {
    let Some(&first) = values.first() else { return };
    if values.iter().all(|value| *value == first) {
        out.push(CONSTANT);
        put(out, first);
        return;
    }
    let plain = || values.iter().map(|value| *value as i64);
    let deltas = || values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]) as i64);
    let packed = Packed::of(plain(), false);
    let delta = Packed::of(deltas(), true);
    let packed_bytes = packed.bytes(values.len());
    let delta_bytes = delta.bytes(values.len() - 1) + 1 + width(first) as usize / 7;
    let dictionary = dictionary(values, packed_bytes.min(delta_bytes));
    if let Some((entries, numbers)) = dictionary {
        out.push(DICTIONARY);
        put(out, entries.len() as u64);
        entries.iter().for_each(|entry| put(out, *entry));
        let numbers = || numbers.iter().map(|number| i64::from(*number));
        Packed::of(numbers(), false).put(out, numbers());
    } else if delta_bytes < packed_bytes {
        out.push(DELTA);
        put(out, first);
        delta.put(out, deltas());
    } else {
        out.push(PACKED);
        packed.put(out, plain());
    }
}

/// The distinct numbers and which of them each is, if that takes less than `bytes`.
fn dictionary(values: &[u64], bytes: usize) -> Option<(Vec<u64>, Vec<u16>)> {
    let mut entries: Vec<u64> = Vec::new();
    let mut of_entries = 0;
    for value in values {
        if let Err(at) = entries.binary_search(value) {
            entries.insert(at, *value);
            of_entries += 1 + width(*value) as usize / 7;
            let of_numbers = (values.len() * width(entries.len() as u64 - 1) as usize).div_ceil(8);
            // More entries take more bytes still.
            if entries.len() > MAX_DICTIONARY || of_entries + of_numbers + 5 >= bytes {
                return None;
            }
        }
    }
    let number = |value: &u64| entries.binary_search(value).expect("every value is an entry") as u16;
    let numbers = values.iter().map(number).collect();
    Some((entries, numbers))
}

/// A column as it lies in a block: its form is known, its numbers are still packed.
pub(super) struct Column<'a>(Form<'a>);

enum Form<'a> {
    Constant(u64, usize),
    Packed(Bits<'a>),
    Delta(u64, Bits<'a>),
    Dictionary(Vec<u64>, Bits<'a>),
}

impl Column<'_> {
    /// Visits its numbers from this one on, until told to stop.
    ///
    /// # Errors
    /// When a number refers to nothing.
    fn visit(&self, start: usize, mut each: impl FnMut(u64) -> bool) -> Result<()> {
        match &self.0 {
            Form::Constant(value, count) => _ = (start..*count).all(|_| each(*value)),
            Form::Packed(bits) => _ = bits.from(start).all(each),
            Form::Delta(first, bits) => {
                let mut value = *first;
                let before = bits.from(0).take(start).fold(0u64, u64::wrapping_add);
                value = value.wrapping_add(before);
                if start <= bits.count && each(value) {
                    let mut deltas = bits.from(start);
                    deltas.all(|delta| {
                        value = value.wrapping_add(delta);
                        each(value)
                    });
                }
            }
            Form::Dictionary(entries, bits) => {
                let mut numbers = bits.from(start);
                let mut known = true;
                numbers.all(|number| {
                    let entry = usize::try_from(number).ok().and_then(|number| entries.get(number));
                    known = entry.is_some();
                    entry.is_some_and(|entry| each(*entry))
                });
                if !known {
                    return Err(CodecError("reference to nothing"));
                }
            }
        }
        Ok(())
    }

    fn count(&self) -> usize {
        match &self.0 {
            Form::Constant(_, count) => *count,
            Form::Packed(bits) | Form::Dictionary(_, bits) => bits.count,
            Form::Delta(_, bits) => bits.count + 1,
        }
    }

    /// Its numbers.
    pub(super) fn values(&self) -> Result<Vec<u64>> {
        let mut values = Vec::with_capacity(self.count());
        self.visit(0, |value| {
            values.push(value);
            true
        })?;
        Ok(values)
    }

    /// Its numbers, which are below `end`.
    pub(super) fn below(&self, end: usize) -> Result<Vec<u32>> {
        let mut values = Vec::with_capacity(self.count());
        let mut fit = true;
        self.visit(0, |value| {
            fit &= value < end as u64 && value <= u64::from(u32::MAX);
            values.push(value as u32);
            true
        })?;
        if fit { Ok(values) } else { Err(CodecError("reference to nothing")) }
    }

    /// So many of its numbers from this one on, which it has.
    pub(super) fn some(&self, start: usize, count: usize) -> Result<Vec<u64>> {
        let mut values = Vec::with_capacity(count);
        if count > 0 {
            self.visit(start, |value| {
                values.push(value);
                values.len() < count
            })?;
        }
        if values.len() == count { Ok(values) } else { Err(CodecError("fewer entries than were told")) }
    }

    /// Where it has this number.
    pub(super) fn places(&self, wanted: u64, mut each: impl FnMut(usize)) -> Result<()> {
        let mut at = 0;
        self.visit(0, |value| {
            if value == wanted {
                each(at);
            }
            at += 1;
            true
        })
    }
}

impl<'a> Input<'a> {
    /// A column of `count` numbers as it lies here. The caller bounds their number: a constant column takes no room.
    pub(super) fn packed(&mut self, count: usize) -> Result<Column<'a>> {
        if count == 0 {
            return Ok(Column(Form::Constant(0, 0)));
        }
        Ok(Column(match self.array()? {
            [CONSTANT] => Form::Constant(self.number()?, count),
            [PACKED] => Form::Packed(Bits::read(self, count)?),
            [DELTA] => Form::Delta(self.number()?, Bits::read(self, count - 1)?),
            [DICTIONARY] => Form::Dictionary(self.list(Input::number)?, Bits::read(self, count)?),
            _ => return Err(CodecError("unknown form of a column")),
        }))
    }

    /// The numbers of a column of `count`, which the caller bounds.
    pub(super) fn column(&mut self, count: usize) -> Result<Vec<u64>> {
        self.packed(count)?.values()
    }

    /// The numbers of a column, which are below `end`.
    pub(super) fn column_below(&mut self, count: usize, end: usize) -> Result<Vec<u32>> {
        self.packed(count)?.below(end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(values: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        put_column(&mut out, values);
        out
    }

    fn check(values: &[u64]) {
        let bytes = bytes(values);
        let mut input = Input(&bytes);
        let column = input.packed(values.len()).unwrap();
        assert!(input.0.is_empty());
        assert_eq!(column.values().unwrap(), values);
        for (start, count) in [(0, values.len()), (values.len() / 3, values.len() / 2), (values.len(), 0)] {
            assert_eq!(column.some(start, count).unwrap(), values[start..start + count]);
        }
        assert!(column.some(values.len() / 2, values.len() + 1).is_err());
        if let Some(&wanted) = values.last() {
            let mut places = Vec::new();
            column.places(wanted, |at| places.push(at)).unwrap();
            let expected = values.iter().enumerate().filter(|(_, value)| **value == wanted);
            assert_eq!(places, expected.map(|(at, _)| at).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_form_is_read_again_and_is_small() {
        check(&[]);
        check(&[u64::MAX; 9]);
        check(&[u64::MAX, 0, 1, u64::MAX - 1]);
        let rising: Vec<u64> = (0..1000).map(|n| n * 1_000_003 + 7).collect();
        check(&rising);
        assert!(bytes(&rising).len() < 16, "the same step again and again");
        let falling: Vec<u64> = rising.iter().rev().copied().collect();
        check(&falling);
        let few: Vec<u64> = (0..1000).map(|n| [10_000_000, 20_000_000, u64::MAX][n % 3]).collect();
        check(&few);
        assert!(bytes(&few).len() < 300, "two bits each");
        let near: Vec<u64> = (0..1000).map(|n| (1 << 60) + n * n * 7919 % 4096).collect();
        check(&near);
        assert!(bytes(&near).len() < 1520, "twelve bits each");
    }

    #[test]
    fn a_column_that_ends_too_early_or_refers_to_nothing_is_none() {
        let whole = bytes(&[3, 900, 17, 5, 3]);
        for end in 0..whole.len() {
            assert!(Input(&whole[..end]).column(5).is_err(), "{end}");
        }
        assert!(Input(&bytes(&[3, 900, 17])).column_below(3, 900).is_err());
        assert!(Input(&[9]).column(1).is_err());
        assert!(Input(&[PACKED, 0, 65]).column(1).is_err());
        assert!(Input(&[DICTIONARY, 1, 7, 0, 2, 0xff]).column(2).is_err());
    }

    proptest! {
        #[test]
        fn any_column_is_read_again(values in prop::collection::vec(any::<u64>(), 0..200), shift in 0..64u32) {
            check(&values.iter().map(|value| value >> shift).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), count in 0..1000usize) {
            if let Ok(column) = Input(&bytes).packed(count) {
                let _ = column.values();
                let _ = column.some(count / 2, count);
            }
        }
    }
}
