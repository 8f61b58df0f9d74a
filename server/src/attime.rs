//! Instants as the older HTTP routes write them: `now-1h`, `20260101`, Unix time in seconds or finer.
//!
//! The only parser of such texts in the house. It asks no clock: whoever calls tells what `now` is.

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Units and their lengths in nanoseconds; a month has 30 days and a year 365, as those routes always counted.
const UNITS: [(&str, i64); 18] = [
    ("s", SECOND),
    ("sec", SECOND),
    ("second", SECOND),
    ("seconds", SECOND),
    ("m", 60 * SECOND),
    ("min", 60 * SECOND),
    ("minute", 60 * SECOND),
    ("h", 3600 * SECOND),
    ("hour", 3600 * SECOND),
    ("hours", 3600 * SECOND),
    ("d", DAY),
    ("days", DAY),
    ("w", 7 * DAY),
    ("weeks", 7 * DAY),
    ("M", 30 * DAY),
    ("mon", 30 * DAY),
    ("y", 365 * DAY),
    ("years", 365 * DAY),
];

/// A text that names no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an instant as now, now-1h (s m min h d w M mon y), 20260101, or unix time in seconds, milliseconds (13 \
     digits), microseconds (16) or nanoseconds (19), got {got:?}"
)]
pub struct AttimeError {
    got: String,
}

/// Reads an instant, in Unix nanoseconds; `now_nanos` is what `now` means.
///
/// A number is a day in UTC if it has eight digits and is one, nanoseconds with 19 digits, microseconds with 16,
/// milliseconds with 13, and seconds with any other number of digits. The empty text is `now`.
///
/// # Errors
/// When the text has none of these forms, or the instant is beyond the years 1677 to 2262.
pub fn parse(text: &str, now_nanos: i64) -> Result<i64, AttimeError> {
    let trimmed = text.trim();
    let instant = if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
        absolute(trimmed)
    } else {
        let offset = trimmed.strip_prefix("now").unwrap_or(trimmed).trim_start();
        relative(offset).and_then(|offset| now_nanos.checked_add(offset))
    };
    instant.ok_or_else(|| AttimeError { got: text.chars().take(64).collect() })
}

fn absolute(digits: &str) -> Option<i64> {
    if digits.len() == 8
        && let Some(days) = day(digits)
    {
        return days.checked_mul(DAY);
    }
    let scale = match digits.len() {
        19 => 1,
        16 => 1_000,
        13 => 1_000_000,
        _ => SECOND,
    };
    digits.parse::<i64>().ok()?.checked_mul(scale)
}

/// Days from 1970-01-01 to the day written as `YYYYMMDD`, if there is such a day.
fn day(digits: &str) -> Option<i64> {
    let part = |range: std::ops::Range<usize>| digits.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = lengths.get(..usize::try_from(month.checked_sub(1)?).ok()?)?;
    let length = lengths.get(before.len())?;
    if year < 1900 || !(1..=*length).contains(&day) {
        return None;
    }
    let years = year - 1;
    let days = years * 365 + years / 4 - years / 100 + years / 400;
    // 719162 is the same sum for 1970.
    Some(days - 719_162 + before.iter().sum::<i64>() + day - 1)
}

/// Reads `-1h30min`: a sign, then numbers with their units. No text is no offset.
fn relative(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first() {
        None => return Some(0),
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        Some(_) => return None,
    };
    let mut sum = 0i64;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: i64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit.len());
        let (_, length) = UNITS.iter().find(|(name, _)| *name == &unit[..end])?;
        sum = sum.checked_add(length.checked_mul(count)?)?;
        rest = &unit[end..];
        if rest.is_empty() {
            return Some(sign * sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_767_225_600_000_000_000;

    #[test]
    fn numbers_are_read_by_their_length() {
        for (text, expected) in [
            ("1767225600", NOW),
            ("1767225600000", NOW),
            ("1767225600000000", NOW),
            ("1767225600000000000", NOW),
            ("20260101", NOW),
            ("20240229", 1_709_164_800 * SECOND),
            ("19700101", 0),
            ("19691231", -DAY),
            // No days, so seconds.
            ("20260230", 20_260_230 * SECOND),
            ("20251301", 20_251_301 * SECOND),
            ("0", 0),
            ("5", 5 * SECOND),
        ] {
            assert_eq!(parse(text, 0), Ok(expected), "{text}");
        }
    }

    #[test]
    fn offsets_count_from_now() {
        let hour = 3600 * SECOND;
        for (text, offset) in [
            ("now", 0),
            ("", 0),
            (" now ", 0),
            ("now-1h", -hour),
            ("-1h", -hour),
            ("now+1h", hour),
            ("now-1h30m", -hour - hour / 2),
            ("now-90s", -90 * SECOND),
            ("now-5min", -300 * SECOND),
            ("now-1d", -DAY),
            ("now-1w", -7 * DAY),
            ("now-1M", -30 * DAY),
            ("now-2mon", -60 * DAY),
            ("now-1y", -365 * DAY),
        ] {
            assert_eq!(parse(text, NOW), Ok(NOW + offset), "{text}");
        }
    }

    #[test]
    fn what_names_no_instant_is_refused() {
        for bad in [
            "yesterday",
            "now-",
            "now-h",
            "now-1",
            "now-1x",
            "now1h",
            "now-1h-",
            "now--1h",
            "-5",
            "1.5",
            "99999999999999999999",
            "9999999999999999999",
            "now-999999999y",
            "now+9223372036854775807s",
            "nowä",
            "2026-01-01",
        ] {
            let error = parse(bad, NOW).unwrap_err().to_string();
            assert!(error.contains("now-1h") && error.contains(bad), "{error}");
        }
        assert!(parse("now-300y", i64::MIN).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", now in any::<i64>()) {
            let _ = parse(&text, now);
        }

        #[test]
        fn nothing_that_looks_like_an_instant_panics(text in "(now)?[+-]?[0-9]{0,20}[smhdwMy]{0,3}", now in any::<i64>()) {
            let _ = parse(&text, now);
        }

        #[test]
        fn days_follow_one_another(days in 0..40_000i64) {
            // The day after 1970-01-01 by so many, found by counting.
            let (mut year, mut rest) = (1970, days);
            let length = |year: i64| 365 + i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
            while rest >= length(year) {
                rest -= length(year);
                year += 1;
            }
            prop_assert_eq!(day(&format!("{year}0101")), Some(days - rest));
        }
    }
}
