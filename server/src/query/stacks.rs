//! Which stack traces a question is about, by the functions in them.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use regex::Regex;

use super::names::FrameNames;

/// Narrows a question to some stack traces, and tells what of them to keep. The default keeps everything.
#[derive(Debug, Clone, Default)]
pub struct StackFilter {
    /// Only stack traces that begin with these functions, the root first.
    pub call_site: Vec<String>,
    /// Only those with frames of all these names.
    pub include: Vec<String>,
    /// Only those where each of these finds a frame; not anchored.
    pub include_matching: Vec<Regex>,
    /// None with a frame of one of these names.
    pub exclude: Vec<String>,
    /// None where one of these finds a frame; not anchored.
    pub exclude_matching: Vec<Regex>,
    /// Of each stack trace only so many locations, from the leaf on; 0 for all.
    pub keep_locations: usize,
    /// Merges locations at the leaf that differ in nothing but their source line.
    pub ignore_leaf_lines: bool,
}

impl StackFilter {
    /// Whether stack traces decide on anything; what is kept of them aside.
    pub fn selects(&self) -> bool {
        let names = [&self.call_site, &self.include, &self.exclude];
        names.iter().any(|names| !names.is_empty())
            || !self.include_matching.is_empty()
            || !self.exclude_matching.is_empty()
    }

    /// Of the locations of a stack trace, the leaf first, those that are kept.
    pub(super) fn kept<'a>(&self, locations: &'a [u32]) -> &'a [u32] {
        match self.keep_locations {
            0 => locations,
            most => &locations[..most.min(locations.len())],
        }
    }
}

/// A filter at work in one query. Each name is looked at once.
pub(super) struct StackMatcher<'a> {
    filter: &'a StackFilter,
    /// Only if stack traces decide on anything.
    selects: bool,
    call_site: Vec<u32>,
    include: HashSet<u32, RandomState>,
    exclude: HashSet<u32, RandomState>,
    /// What is known of each name, by its number.
    known: Vec<Option<Known>>,
    /// Which includes the stack trace at hand has met.
    met: Vec<bool>,
}

#[derive(Clone)]
struct Known {
    excluded: bool,
    included: bool,
    /// Numbers of the regular expressions that find it.
    matching: Box<[usize]>,
}

impl<'a> StackMatcher<'a> {
    pub(super) fn new(filter: &'a StackFilter, names: &mut FrameNames) -> Self {
        let mut numbers =
            |texts: &[String]| -> Vec<u32> { texts.iter().map(|text| names.of_text(text)).collect() };
        Self {
            selects: filter.selects(),
            call_site: numbers(&filter.call_site),
            include: numbers(&filter.include).into_iter().collect(),
            exclude: numbers(&filter.exclude).into_iter().collect(),
            known: Vec::new(),
            met: vec![false; filter.include_matching.len()],
            filter,
        }
    }

    /// Whether a stack trace with these frames, the root first, passes.
    pub(super) fn pass(&mut self, frames: &[u32], names: &FrameNames) -> bool {
        if !self.selects {
            return true;
        }
        if !frames.starts_with(&self.call_site) {
            return false;
        }
        self.met.fill(false);
        let mut included: HashSet<u32, RandomState> = HashSet::default();
        for &frame in frames {
            let at = frame as usize;
            if self.known.len() <= at {
                self.known.resize(at + 1, None);
            }
            if self.known[at].is_none() {
                self.known[at] = Some(self.look_at(frame, names.get(frame)));
            }
            let Some(known) = &self.known[at] else { continue };
            if known.excluded {
                return false;
            }
            if known.included {
                included.insert(frame);
            }
            known.matching.iter().for_each(|&at| self.met[at] = true);
        }
        included.len() == self.include.len() && self.met.iter().all(|&met| met)
    }

    fn look_at(&self, frame: u32, name: &str) -> Known {
        let StackFilter { include_matching, exclude_matching, .. } = self.filter;
        let matching = include_matching.iter().enumerate().filter(|(_, regex)| regex.is_match(name));
        Known {
            excluded: self.exclude.contains(&frame)
                || exclude_matching.iter().any(|regex| regex.is_match(name)),
            included: self.include.contains(&frame),
            matching: matching.map(|(at, _)| at).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_stack_traces_are_let_through_or_not() {
        let texts = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let regexes = |texts: &[&str]| texts.iter().map(|text| Regex::new(text).unwrap()).collect::<Vec<_>>();
        let passes = |filter: &StackFilter| -> Vec<bool> {
            let mut names = FrameNames::default();
            let mut matcher = StackMatcher::new(filter, &mut names);
            let stacks: [&[&str]; 5] = [
                &["root", "a"],
                &["root", "a", "b"],
                &["root", "b"],
                &["root", "forbidden"],
                &["root", "a", "forbidden"],
            ];
            stacks
                .iter()
                .map(|stack| {
                    let frames: Vec<u32> = stack.iter().map(|name| names.of_text(name)).collect();
                    matcher.pass(&frames, &names)
                })
                .collect()
        };
        let none = StackFilter::default;
        let (yes, no) = (true, false);
        for (filter, expected) in [
            (none(), [yes; 5]),
            (StackFilter { include: texts(&["a"]), ..none() }, [yes, yes, no, no, yes]),
            (StackFilter { include: texts(&["a", "b", "a"]), ..none() }, [no, yes, no, no, no]),
            (StackFilter { include: texts(&["missing"]), ..none() }, [no; 5]),
            (StackFilter { exclude: texts(&["forbidden"]), ..none() }, [yes, yes, yes, no, no]),
            (StackFilter { exclude_matching: regexes(&["forbid"]), ..none() }, [yes, yes, yes, no, no]),
            (StackFilter { include_matching: regexes(&["^a$", "^b$"]), ..none() }, [no, yes, no, no, no]),
            (
                StackFilter { include: texts(&["a"]), include_matching: regexes(&["^a$"]), ..none() },
                [yes, yes, no, no, yes],
            ),
            (
                StackFilter { call_site: texts(&["root", "a"]), include: texts(&["b"]), ..none() },
                [no, yes, no, no, no],
            ),
            (StackFilter { call_site: texts(&["a"]), ..none() }, [no; 5]),
        ] {
            assert_eq!(passes(&filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn the_leaf_side_is_kept() {
        let keep = |keep_locations| StackFilter { keep_locations, ..StackFilter::default() };
        assert_eq!(keep(0).kept(&[1, 2, 3]), [1, 2, 3]);
        assert_eq!(keep(2).kept(&[1, 2, 3]), [1, 2]);
        assert_eq!(keep(9).kept(&[1]), [1]);
    }
}
