//! A cursor over the bytes of a recording: numbers and texts as Java Flight Recorder writes them.
//!
//! Reads nothing beyond its bytes, allocates nothing by a length that the bytes only claim, and knows no type.

use std::borrow::Cow;

use crate::ingest::IngestError;

/// Why a recording cannot be read on.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not what it should be.
    Damaged {
        /// At which byte of the chunk.
        at: usize,
        /// What was seen, or expected.
        what: Cow<'static, str>,
    },
    /// It is sound so far, and more than is allowed.
    Refused(IngestError),
}

impl From<IngestError> for Fault {
    fn from(error: IngestError) -> Self {
        Self::Refused(error)
    }
}

/// A text, or where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text<'a> {
    /// The text itself; empty for none.
    Here(Cow<'a, str>),
    /// The constant of type `java.lang.String` with this key.
    Constant(u64),
}

/// Bytes of one chunk, read from a place on.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads these bytes from this place on, which may be their end.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    /// The place of the next byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// What is wrong here.
    pub(super) fn damaged(&self, what: impl Into<Cow<'static, str>>) -> Fault {
        Fault::Damaged { at: self.at, what: what.into() }
    }

    /// The next bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        if count > self.left() {
            return Err(self.damaged(format!("{count} bytes should follow, {} are left", self.left())));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were asked for"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        let Some(&byte) = self.bytes.get(self.at) else {
            return Err(self.damaged("more bytes should follow"));
        };
        self.at += 1;
        Ok(byte)
    }

    /// Two bytes, the higher first.
    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, the highest first.
    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, the highest first.
    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_be_bytes)
    }

    /// A compressed number: seven bits a byte, the lowest first; the ninth byte has eight.
    pub(super) fn number(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for shift in (0..56).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Ok(value | u64::from(self.byte()?) << 56)
    }

    /// A compressed number of things that take a byte each at least.
    pub(super) fn count(&mut self) -> Result<usize, Fault> {
        let start = self.at;
        let count = self.number()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() => Ok(count),
            _ => {
                let what = format!("{count} things should follow in {} bytes", self.left());
                Err(Fault::Damaged { at: start, what: what.into() })
            }
        }
    }

    /// A text in any of its encodings. What is no Unicode in it is replaced.
    pub(super) fn text(&mut self) -> Result<Text<'a>, Fault> {
        let start = self.at;
        Ok(match self.byte()? {
            0 | 1 => Text::Here(Cow::Borrowed("")),
            2 => Text::Constant(self.number()?),
            3 => {
                let count = self.count()?;
                Text::Here(String::from_utf8_lossy(self.take(count)?))
            }
            4 => {
                // Each unit was counted as a byte at least.
                let units = (0..self.count()?).map(|_| self.number().map(|unit| unit as u16));
                let units = units.collect::<Result<Vec<u16>, Fault>>()?;
                Text::Here(String::from_utf16_lossy(&units).into())
            }
            5 => {
                let count = self.count()?;
                let text: String = self.take(count)?.iter().map(|&byte| char::from(byte)).collect();
                Text::Here(text.into())
            }
            encoding => {
                let what = format!("a text has the encoding {encoding}, which is none");
                return Err(Fault::Damaged { at: start, what: what.into() });
            }
        })
    }

    /// Reads over a text.
    pub(super) fn skip_text(&mut self) -> Result<(), Fault> {
        let start = self.clone();
        match self.byte()? {
            0 | 1 => Ok(()),
            2 => self.number().map(drop),
            3 | 5 => {
                let count = self.count()?;
                self.take(count).map(drop)
            }
            4 => {
                for _ in 0..self.count()? {
                    self.number()?;
                }
                Ok(())
            }
            encoding => Err(start.damaged(format!("a text has the encoding {encoding}, which is none"))),
        }
    }
}

/// The event at this place of a chunk: its type, a reader of its fields, and where it ends.
pub(super) fn event(chunk: &[u8], at: usize) -> Result<(u64, Reader<'_>, usize), Fault> {
    let mut reader = Reader::new(chunk, at);
    let size = reader.number()?;
    let end = usize::try_from(size).ok().and_then(|size| at.checked_add(size));
    match end {
        Some(end) if end <= chunk.len() && end > reader.at() => {
            let mut body = Reader::new(&chunk[..end], reader.at());
            Ok((body.number()?, body, end))
        }
        _ => {
            let what = format!("an event of {size} bytes does not end where it should");
            Err(Fault::Damaged { at, what: what.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> Text<'_> {
        Reader::new(bytes, 0).text().unwrap()
    }

    #[test]
    fn numbers_have_seven_bits_a_byte_and_nine_bytes_at_most() {
        for (bytes, value) in [
            (&[0x00][..], 0),
            (&[0x7f], 0x7f),
            (&[0x80, 0x01], 0x80),
            (&[0x80, 0x80, 0x80, 0x00], 0),
            (&[0xff; 9], u64::MAX),
        ] {
            let mut reader = Reader::new(bytes, 0);
            assert_eq!(reader.number().unwrap(), value);
            assert_eq!(reader.left(), 0);
        }
        assert!(Reader::new(&[0x80, 0x80], 0).number().is_err());
    }

    #[test]
    fn texts_have_five_encodings() {
        assert_eq!(text(&[0]), Text::Here("".into()));
        assert_eq!(text(&[1]), Text::Here("".into()));
        assert_eq!(text(&[2, 7]), Text::Constant(7));
        assert_eq!(text(&[3, 3, b'a', 0xc3, 0xa4]), Text::Here("aä".into()));
        assert_eq!(text(&[4, 2, b'a', 0xe4, 0x01]), Text::Here("aä".into()));
        assert_eq!(text(&[5, 2, b'a', 0xe4]), Text::Here("aä".into()));
        assert!(Reader::new(&[6, 0], 0).text().is_err());
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut huge = vec![4];
        huge.extend([0xff; 8]);
        huge.push(0x7f);
        assert!(Reader::new(&huge, 0).text().is_err());
        assert!(Reader::new(&huge, 0).skip_text().is_err());
    }

    proptest! {
        #[test]
        fn reading_and_skipping_agree(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let (mut read, mut skip) = (Reader::new(&bytes, 0), Reader::new(&bytes, 0));
            let (read_ok, skip_ok) = (read.text().is_ok(), skip.skip_text().is_ok());
            prop_assert_eq!(read_ok, skip_ok);
            if read_ok {
                prop_assert_eq!(read.at(), skip.at());
            }
        }
    }
}
