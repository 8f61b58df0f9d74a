//! Regular expressions of strangers: in RE2's syntax, which Prometheus and Pyroscope speak, and bounded in memory.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

/// Memory that one compiled regular expression may take, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Compiles a pattern that may match anywhere.
pub(crate) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    limited(&unquoted(pattern))
}

/// Compiles a pattern that matches whole texts, of several lines too.
pub(crate) fn compile_whole(pattern: &str) -> Result<Regex, regex::Error> {
    let pattern = unquoted(pattern);
    // Alone first: a pattern must not close the group that anchors it.
    limited(&pattern)?;
    limited(&format!(r"\A(?s:{pattern})\z"))
}

fn limited(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(MAX_BYTES).build()
}

/// The pattern with `\Q…\E`, which takes what is between them literally, written in escapes: our engine lacks it.
fn unquoted(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains(r"\Q") {
        return Cow::Borrowed(pattern);
    }
    let mut plain = String::with_capacity(pattern.len() * 2);
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        plain.push_str(before);
        rest = match escape.strip_prefix(r"\Q") {
            Some(literal) => {
                let (literal, after) = literal.split_once(r"\E").unwrap_or((literal, ""));
                plain.push_str(&regex::escape(literal));
                after
            }
            // Any other escape is two characters, of which the second may be another backslash.
            None => {
                let length = escape.chars().take(2).map(char::len_utf8).sum();
                let (escape, after) = escape.split_at(length);
                plain.push_str(escape);
                after
            }
        };
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quoted_parts_are_literal() {
        for (pattern, text, matches) in [
            (r"\Qa.b\E", "a.b", true),
            (r"\Qa.b\E", "axb", false),
            (r"GET \Q/pay?x=(1)\E.*", "GET /pay?x=(1)&y", true),
            (r"\Qopen (until the end", "open (until the end", true),
            (r"\Q\E", "", true),
            (r"a\Q.\Eb\Q*\Ec", "a.b*c", true),
            (r"\\Qa", r"\Qa", true),
            (r"\\\Q.\E", r"\.", true),
            (r"\Qa\Eb|c", "c", true),
            (r"\Q\d\E", r"\d", true),
        ] {
            assert_eq!(compile_whole(pattern).unwrap().is_match(text), matches, "{pattern} {text}");
        }
        assert!(compile(r"\Q(\E(").is_err());
        assert!(compile_whole(r"a)(b").is_err());
        assert!(compile(r"\Qb.\E").unwrap().is_match("ab.c"));
    }

    proptest! {
        #[test]
        fn any_text_is_found_by_itself_quoted(text in any::<String>()) {
            prop_assume!(!text.contains(r"\E") && !text.ends_with('\\'));
            let whole = compile_whole(&format!(r"\Q{text}\E"));
            prop_assert!(whole.unwrap().is_match(&text));
        }

        #[test]
        fn no_pattern_panics(pattern in any::<String>(), parts in prop::collection::vec(
            prop::sample::select(vec![r"\Q", r"\E", "\\", "(", ")", "a", "[", "]", "."]), 0..12)
        ) {
            let _ = compile_whole(&pattern);
            let _ = compile_whole(&parts.concat());
        }
    }
}
