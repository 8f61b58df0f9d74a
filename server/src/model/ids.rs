//! Identifiers that must never be mistaken for one another.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

/// A span or trace id that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Wrong length or a character that is not hexadecimal.
    #[error("expected {expected} hex characters, got {got:?}")]
    NotHex {
        /// How many characters the id has: 16 for a span, 32 for a trace.
        expected: usize,
        /// What was given, cut to a readable length.
        got: String,
    },
    /// W3C Trace Context reserves the all-zero id for "none".
    #[error("expected {expected} hex characters that are not all zero")]
    Zero {
        /// How many characters the id has.
        expected: usize,
    },
}

fn parse_hex(text: &str, expected: usize) -> Result<u128, IdError> {
    // By halves and digit by digit: ids are read with every sample, and numbers of 128 bits are slow.
    let half = |digits: &[u8]| {
        digits.iter().try_fold(0u64, |value, &b| Some(value << 4 | u64::from((b as char).to_digit(16)?)))
    };
    let value = if text.len() == expected {
        let (high, low) = text.as_bytes().split_at(expected - 16);
        half(high).zip(half(low)).map(|(high, low)| u128::from(high) << 64 | u128::from(low))
    } else {
        None
    };
    match value {
        Some(0) => Err(IdError::Zero { expected }),
        Some(value) => Ok(value),
        None => Err(IdError::NotHex { expected, got: text.chars().take(64).collect() }),
    }
}

/// A span's id: 64 bits, big-endian in text (W3C Trace Context), never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// The id with these bits; none for zero, which stands for "no span".
    pub fn new(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }

    /// The 64 bits.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for SpanId {
    type Err = IdError;

    /// Reads exactly 16 hexadecimal characters of either case.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bits = parse_hex(text, 16)? as u64;
        Self::new(bits).ok_or(IdError::Zero { expected: 16 })
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A trace's id: 128 bits, big-endian in text (W3C Trace Context), never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// The id with these bits; none for zero, which stands for "no trace".
    pub fn new(bits: u128) -> Option<Self> {
        NonZeroU128::new(bits).map(Self)
    }

    /// The 128 bits.
    pub fn get(self) -> u128 {
        self.0.get()
    }
}

impl FromStr for TraceId {
    type Err = IdError;

    /// Reads exactly 32 hexadecimal characters of either case.
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(parse_hex(text, 32)?).ok_or(IdError::Zero { expected: 32 })
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A stored profile's id: a UUID, so that senders and servers can make one each without asking anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileId(Uuid);

/// A profile id that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a UUID, as 7c9e6679-7425-40de-944b-e07fc1f90ae7, got {got:?}")]
pub struct ProfileIdError {
    got: String,
}

impl ProfileId {
    /// A new id that no other profile has.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id that always goes with these bits.
    pub(crate) fn derived(bits: u128) -> Self {
        Self(Uuid::new_v8(bits.to_be_bytes()))
    }

    /// The id that has these bytes.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its bytes.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl FromStr for ProfileId {
    type Err = ProfileIdError;

    /// Reads a UUID in any of its usual spellings; the all-zero one is none.
    fn from_str(text: &str) -> Result<Self, ProfileIdError> {
        match Uuid::try_parse(text) {
            Ok(id) if !id.is_nil() => Ok(Self(id)),
            _ => Err(ProfileIdError { got: text.chars().take(64).collect() }),
        }
    }
}

impl fmt::Display for ProfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// Whose data it is. Tenants never see one another's profiles.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// A tenant id that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tenant id: expected 1 to 150 characters of A-Z a-z 0-9 ! - _ . * ' ( ), got {got:?}")]
pub struct TenantIdError {
    got: String,
}

impl TenantId {
    /// The tenant of a server that keeps only one.
    pub const ANONYMOUS: &'static str = "anonymous";

    /// Checks the id: 1 to 150 characters of a set that is safe in paths and headers, not `.` or `..`.
    pub fn new(id: &str) -> Result<Self, TenantIdError> {
        let safe = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b);
        if id.is_empty() || id.len() > 150 || id == "." || id == ".." || !id.bytes().all(safe) {
            return Err(TenantIdError { got: id.chars().take(64).collect() });
        }
        Ok(Self(id.into()))
    }

    /// The tenant of a server that keeps only one.
    pub fn anonymous() -> Self {
        Self(Self::ANONYMOUS.into())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_either_case_and_print_lower_case() {
        let span: SpanId = "00F067AA0BA902B7".parse().unwrap();
        assert_eq!(span.get(), 0x00f0_67aa_0ba9_02b7);
        assert_eq!(span.to_string(), "00f067aa0ba902b7");
        let trace: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap();
        assert_eq!(trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn bad_ids_say_what_was_expected() {
        let error = "abc".parse::<SpanId>().unwrap_err();
        assert_eq!(error.to_string(), "expected 16 hex characters, got \"abc\"");
        for bad in
            ["", "00f067aa0ba902b", "00f067aa0ba902b70", "+0f067aa0ba902b7", "ßßßßßßßß", "${__span.tags}x"]
        {
            assert!(bad.parse::<SpanId>().is_err(), "{bad}");
        }
        assert_eq!("0000000000000000".parse::<SpanId>(), Err(IdError::Zero { expected: 16 }));
        assert!("4bf92f3577b34da6".parse::<TraceId>().is_err());
    }

    #[test]
    fn profile_ids_are_uuids() {
        let text = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
        let id: ProfileId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        assert_eq!(text.replace('-', "").parse(), Ok(id));
        assert_eq!(ProfileId::from_bytes(id.to_bytes()), id);
        for bad in
            ["", "7c9e6679", "00000000-0000-0000-0000-000000000000", "7c9e6679-7425-40de-944b-e07fc1f90ae7x"]
        {
            assert!(bad.parse::<ProfileId>().unwrap_err().to_string().contains("expected a UUID"), "{bad}");
        }
        assert_ne!(ProfileId::random(), ProfileId::random());
        assert_eq!(ProfileId::derived(7), ProfileId::derived(7));
        assert_ne!(ProfileId::derived(7), ProfileId::derived(8));
    }

    #[test]
    fn tenant_ids_are_safe_names() {
        assert!(TenantId::new("team-a").is_ok());
        for bad in ["", ".", "..", "a/b", "a|b", "ü"] {
            assert!(TenantId::new(bad).is_err(), "{bad}");
        }
        assert_eq!(TenantId::anonymous(), TenantId::new("anonymous").unwrap());
    }
}
