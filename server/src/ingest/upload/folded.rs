//! Stack traces as text, a line each, frames separated by `;`, the root first: with a count after the last blank
//! (`main;handler 3`, known as folded, collapsed or groups), or without, once for each sample (lines).

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::tally::Tally;
use crate::ingest::IngestError;

/// Reads lines with counts. A line without a blank is no stack trace and is passed over.
pub(super) fn groups(text: &[u8], tally: &mut Tally<'_>) -> Result<(), IngestError> {
    let mut stacks = Stacks::default();
    for line in lines(text) {
        let (number, line) = line?;
        let Some((stack, count)) = line.trim_end().rsplit_once(' ') else { continue };
        let count = count.parse().ok().filter(|count| *count >= 0).ok_or_else(|| {
            let shown: String = count.chars().take(32).collect();
            let message =
                format!("expected a stack trace, a blank and a whole number, got the number {shown:?}");
            IngestError::invalid(format!("line {number}"), message)
        })?;
        stacks.add(stack, count, tally)?;
    }
    Ok(())
}

/// Reads lines without counts.
pub(super) fn individual(text: &[u8], tally: &mut Tally<'_>) -> Result<(), IngestError> {
    let mut stacks = Stacks::default();
    for line in lines(text) {
        let (_, line) = line?;
        if !line.is_empty() {
            stacks.add(line, 1, tally)?;
        }
    }
    Ok(())
}

/// Lines, however long, with their numbers.
fn lines(text: &[u8]) -> impl Iterator<Item = Result<(usize, &str), IngestError>> {
    text.split(|byte| *byte == b'\n').zip(1..).map(|(line, number)| match std::str::from_utf8(line) {
        Ok(line) => Ok((number, line.strip_suffix('\r').unwrap_or(line))),
        Err(_) => Err(IngestError::invalid(format!("line {number}"), "is not UTF-8: encode it so")),
    })
}

#[derive(Default)]
struct Stacks<'a> {
    known: HashMap<&'a str, u32, RandomState>,
    path: Vec<u32>,
}

impl<'a> Stacks<'a> {
    fn add(&mut self, stack: &'a str, count: i64, tally: &mut Tally<'_>) -> Result<(), IngestError> {
        self.path.clear();
        if count > 0 {
            let frames = stack.split(';').filter(|name| !name.is_empty()).take(tally.depth);
            self.path.extend(frames.map(|name| *self.known.entry(name).or_insert_with(|| tally.frame(name))));
        }
        tally.add(&self.path, count)
    }
}
