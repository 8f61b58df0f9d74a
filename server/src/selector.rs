//! Label selectors: `{service_name="checkout", pod=~"a.*"}`, as Prometheus writes them.
//!
//! The only parser of selectors in the house. It knows names and values, not where labels are kept.

use std::fmt;

use regex::Regex;

use crate::model::{Labels, ProfileType, SPAN_NAME, label};
use crate::pattern;

#[cfg(test)]
mod tests;

/// The longest selector that is read, in bytes.
const MAX_SELECTOR_BYTES: usize = 64 * 1024;
/// The most matchers that a selector may have.
const MAX_MATCHERS: usize = 100;
/// The most of them, and of those of one request, that may be regular expressions: each takes time to be compiled.
pub(crate) const MAX_REGEXES: usize = 16;

/// A selector that cannot be read. The message names the place and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label selector, character {position}: {message}")]
pub struct SelectorError {
    /// Where reading stopped, counted in characters from 1.
    pub position: usize,
    message: String,
}

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends
    Regex,
    /// `!~`, anchored at both ends
    NotRegex,
}

/// One comparison of one label.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label's name as written; `.` and `_` match each other.
    pub name: String,
    /// How to compare.
    pub op: MatchOp,
    /// What to compare with.
    pub value: String,
    regex: Option<Regex>,
}

impl Matcher {
    fn new(name: String, op: MatchOp, value: String) -> Result<Self, regex::Error> {
        let regex = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(pattern::compile_whole(&value)?),
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Self { name, op, value, regex })
    }

    /// Whether a label with this value passes. An absent label has the empty value.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => self.value == value,
            (MatchOp::NotEqual, _) => self.value != value,
            (MatchOp::Regex, regex) => regex.as_ref().is_some_and(|regex| regex.is_match(value)),
            (MatchOp::NotRegex, regex) => regex.as_ref().is_none_or(|regex| !regex.is_match(value)),
        }
    }

    /// Whether it compares the samples' span names, not a label of their series.
    pub fn is_span_name(&self) -> bool {
        crate::model::same_name(&self.name, SPAN_NAME)
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        };
        write!(f, "{}{op}{:?}", self.name, self.value)
    }
}

/// All of its matchers must pass. The default selects everything.
#[derive(Debug, Clone, Default)]
pub struct LabelSelector {
    /// Matchers of labels of series, synthetic ones included.
    series: Vec<Matcher>,
    /// Matchers of the samples' span names.
    span_name: Vec<Matcher>,
}

impl LabelSelector {
    /// Reads a selector. The empty string and `{}` select everything; a name before the braces is that of the profile
    /// or, with its colons, a whole profile type.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR_BYTES {
            let message = format!("expected at most {MAX_SELECTOR_BYTES} bytes, got {}", text.len());
            return Err(SelectorError { position: 1, message });
        }
        let mut parser = Parser { text, at: 0 };
        let mut selector = Self::default();
        for matcher in parser.selector()? {
            if matcher.is_span_name() {
                selector.span_name.push(matcher);
            } else {
                selector.series.push(matcher);
            }
        }
        Ok(selector)
    }

    /// Whether a series passes, its span names aside.
    pub fn matches_series(&self, labels: &Labels, kind: &ProfileType) -> bool {
        self.series.iter().all(|m| m.matches(&label(labels, kind, &m.name).unwrap_or_default()))
    }

    /// Whether a sample with this span name passes; a sample without one has the empty name.
    pub fn matches_span_name(&self, name: &str) -> bool {
        self.span_name.iter().all(|m| m.matches(name))
    }

    /// Whether span names matter at all.
    pub fn selects_span_names(&self) -> bool {
        !self.span_name.is_empty()
    }

    /// All of its matchers.
    pub fn matchers(&self) -> impl Iterator<Item = &Matcher> {
        self.series.iter().chain(&self.span_name)
    }

    /// How many regular expressions it has.
    pub(crate) fn regexes(&self) -> usize {
        self.series.iter().chain(&self.span_name).filter(|matcher| matcher.regex.is_some()).count()
    }

    /// Both selectors must pass.
    pub fn and(mut self, other: Self) -> Self {
        self.series.extend(other.series);
        self.span_name.extend(other.span_name);
        self
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn error_at(&self, at: usize, message: impl Into<String>) -> SelectorError {
        SelectorError { position: self.text[..at].chars().count() + 1, message: message.into() }
    }

    fn unexpected(&self, expected: &str) -> SelectorError {
        let got = match self.rest().chars().next() {
            Some(c) => format!("{c:?}"),
            None => "the end".to_owned(),
        };
        self.error_at(self.at, format!("expected {expected}, got {got}"))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn name(&mut self, allowed: impl Fn(char) -> bool) -> Option<&'a str> {
        let rest = self.rest();
        let end = rest.find(|c: char| !allowed(c)).unwrap_or(rest.len());
        self.at += end;
        (end > 0).then(|| &rest[..end])
    }

    fn selector(&mut self) -> Result<Vec<Matcher>, SelectorError> {
        let mut matchers = Vec::new();
        self.spaces();
        if let Some(name) = self.name(|c| c.is_ascii_alphanumeric() || "_:.".contains(c)) {
            matchers.push(self.metric(name)?);
        }
        self.spaces();
        if self.take("{") {
            self.matchers(&mut matchers)?;
            self.spaces();
        }
        if !self.rest().is_empty() {
            let message = if self.text[..self.at].trim_end().ends_with('}') {
                "the end of the selector"
            } else {
                "matchers in braces, as {service_name=\"checkout\"}"
            };
            return Err(self.unexpected(message));
        }
        Ok(matchers)
    }

    /// A name in front of the braces or quoted inside them: a profile type if it has that form, else a profile's name.
    fn metric(&self, name: &str) -> Result<Matcher, SelectorError> {
        let (label, value) = match name.parse::<ProfileType>() {
            Ok(kind) => ("__profile_type__", kind.to_string()),
            Err(_) => ("__name__", name.to_owned()),
        };
        self.matcher(self.at, label.to_owned(), MatchOp::Equal, value)
    }

    fn matcher(&self, at: usize, name: String, op: MatchOp, value: String) -> Result<Matcher, SelectorError> {
        Matcher::new(name, op, value).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or("bad pattern").trim();
            self.error_at(at, format!("regular expression: {}", reason.trim_start_matches("error: ")))
        })
    }

    fn matchers(&mut self, matchers: &mut Vec<Matcher>) -> Result<(), SelectorError> {
        loop {
            self.spaces();
            if self.take("}") {
                return Ok(());
            }
            if matchers.len() == MAX_MATCHERS {
                return Err(self.error_at(self.at, format!("expected at most {MAX_MATCHERS} matchers")));
            }
            let quoted = self.rest().starts_with(['"', '\'', '`']);
            let name = if quoted {
                self.quoted()?
            } else {
                let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
                match self.name(valid) {
                    Some(name) if !name.starts_with(|c: char| c.is_ascii_digit()) => name.to_owned(),
                    _ => return Err(self.unexpected("a label name (quote it if it has other characters)")),
                }
            };
            if name.is_empty() {
                return Err(self.error_at(self.at, "expected a label name, got an empty one"));
            }
            self.spaces();
            if quoted && self.rest().starts_with([',', '}']) {
                matchers.push(self.metric(&name)?);
            } else {
                let op = self.op()?;
                self.spaces();
                let at = self.at;
                let regexes = matchers.iter().filter(|matcher| matcher.regex.is_some()).count();
                if matches!(op, MatchOp::Regex | MatchOp::NotRegex) && regexes == MAX_REGEXES {
                    return Err(
                        self.error_at(at, format!("expected at most {MAX_REGEXES} regular expressions"))
                    );
                }
                let value = self.quoted()?;
                matchers.push(self.matcher(at, name, op, value)?);
            }
            self.spaces();
            if !self.take(",") && !self.rest().starts_with('}') {
                return Err(self.unexpected("`,` or `}` (a quote inside a value is written \\\")"));
            }
        }
    }

    fn op(&mut self) -> Result<MatchOp, SelectorError> {
        let ops = [
            ("=~", MatchOp::Regex),
            ("!~", MatchOp::NotRegex),
            ("!=", MatchOp::NotEqual),
            ("=", MatchOp::Equal),
        ];
        match ops.into_iter().find(|(token, _)| self.take(token)) {
            Some((_, op)) => Ok(op),
            None => Err(self.unexpected("one of = != =~ !~")),
        }
    }

    /// A string in double or single quotes, with the escapes of Go, or in back-quotes, as it stands.
    fn quoted(&mut self) -> Result<String, SelectorError> {
        let start = self.at;
        let quote = match self.rest().bytes().next() {
            Some(quote @ (b'"' | b'\'' | b'`')) => quote,
            _ => return Err(self.unexpected("a value in quotes, as \"checkout\"")),
        };
        self.at += 1;
        let mut value = Vec::new();
        loop {
            let rest = self.rest().as_bytes();
            match rest.first() {
                None => return Err(self.error_at(start, "this quote is never closed")),
                Some(&c) if c == quote => {
                    self.at += 1;
                    break;
                }
                Some(b'\\') if quote != b'`' => self.escape(&mut value)?,
                Some(&c) => {
                    value.push(c);
                    self.at += 1;
                    // Whole characters, so that `at` stays on a boundary.
                    while !self.text.is_char_boundary(self.at) {
                        value.push(self.text.as_bytes()[self.at]);
                        self.at += 1;
                    }
                }
            }
        }
        String::from_utf8(value).map_err(|_| self.error_at(start, "the escaped bytes are not UTF-8"))
    }

    fn escape(&mut self, value: &mut Vec<u8>) -> Result<(), SelectorError> {
        let start = self.at;
        let bad = |parser: &Self| parser.error_at(start, "unknown escape (a backslash is written \\\\)");
        let kind = *self.text.as_bytes().get(start + 1).ok_or_else(|| bad(self))?;
        let digits = |from: usize, count: usize, radix: u32| {
            let digits = self.text.get(from..from + count)?;
            let plain = digits.bytes().all(|b| b.is_ascii_alphanumeric());
            plain.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
        };
        let mut length = 2;
        let byte = match kind {
            b'a' => Some(7),
            b'b' => Some(8),
            b'f' => Some(12),
            b'n' => Some(b'\n'),
            b'r' => Some(b'\r'),
            b't' => Some(b'\t'),
            b'v' => Some(11),
            b'\\' | b'"' | b'\'' => Some(kind),
            b'0'..=b'7' => {
                length = 4;
                digits(start + 1, 3, 8).and_then(|code| u8::try_from(code).ok())
            }
            b'x' => {
                length = 4;
                digits(start + 2, 2, 16).and_then(|code| u8::try_from(code).ok())
            }
            b'u' | b'U' => {
                let count = if kind == b'u' { 4 } else { 8 };
                length = 2 + count;
                let c = digits(start + 2, count, 16).and_then(char::from_u32).ok_or_else(|| bad(self))?;
                value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                None
            }
            _ => None,
        };
        match byte {
            Some(byte) => value.push(byte),
            None if kind == b'u' || kind == b'U' => {}
            None => return Err(bad(self)),
        }
        self.at = start + length;
        Ok(())
    }
}
