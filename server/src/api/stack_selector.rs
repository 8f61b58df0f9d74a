//! Which stack traces a request selects.

use connectrpc::ConnectError;
use regex::Regex;
use spanflame_wire::types::v1::StackTraceSelector;

use crate::pattern;
use crate::query::StackFilter;

/// The most frames of a call site; no stack trace is deeper unless limits are raised far.
const MAX_CALL_SITE: usize = 10_000;
/// The most names or patterns in one list of a frame filter.
const MAX_FRAMES: usize = 100;

/// Checks the selector of a request.
pub(super) fn stack_filter(selector: Option<&StackTraceSelector>) -> Result<StackFilter, ConnectError> {
    let Some(selector) = selector else { return Ok(StackFilter::default()) };
    at_most("call_site", MAX_CALL_SITE, selector.call_site.len())?;
    let mut filter = StackFilter::default();
    match selector.go_pgo.as_option() {
        Some(go_pgo) => {
            filter.keep_locations = go_pgo.keep_locations as usize;
            filter.ignore_leaf_lines = go_pgo.aggregate_callees;
        }
        None => filter.call_site = selector.call_site.iter().map(|frame| frame.name.clone()).collect(),
    }
    if let Some(frames) = selector.frame_filter.as_option() {
        filter.include = names("include_function_names", &frames.include_function_names)?;
        filter.exclude = names("exclude_function_names", &frames.exclude_function_names)?;
        filter.include_matching =
            patterns("include_function_name_regexes", &frames.include_function_name_regexes)?;
        filter.exclude_matching =
            patterns("exclude_function_name_regexes", &frames.exclude_function_name_regexes)?;
    }
    Ok(filter)
}

fn at_most(field: &str, max: usize, got: usize) -> Result<(), ConnectError> {
    if got <= max {
        return Ok(());
    }
    let message = format!("stack_trace_selector.{field}: expected at most {max}, got {got}");
    Err(ConnectError::invalid_argument(message))
}

fn names(field: &str, names: &[String]) -> Result<Vec<String>, ConnectError> {
    at_most(&format!("frame_filter.{field}"), MAX_FRAMES, names.len())?;
    Ok(names.to_vec())
}

fn patterns(field: &str, patterns: &[String]) -> Result<Vec<Regex>, ConnectError> {
    at_most(&format!("frame_filter.{field}"), MAX_FRAMES, patterns.len())?;
    let compile = |(at, text): (usize, &String)| {
        pattern::compile(text).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or("bad pattern").trim().trim_start_matches("error: ");
            ConnectError::invalid_argument(format!(
                "stack_trace_selector.frame_filter.{field}[{at}]: regular expression: {reason}"
            ))
        })
    };
    patterns.iter().enumerate().map(compile).collect()
}

#[cfg(test)]
mod tests {
    use spanflame_wire::types::v1::{GoPGO, Location, StackFrameFilter};

    use super::*;

    fn call_site(names: &[&str]) -> StackTraceSelector {
        let frame = |name: &&str| Location { name: name.to_string(), ..Default::default() };
        StackTraceSelector { call_site: names.iter().map(frame).collect(), ..Default::default() }
    }

    #[test]
    fn go_pgo_takes_the_place_of_a_call_site() {
        assert_eq!(stack_filter(None).unwrap().call_site, [""; 0]);
        assert_eq!(stack_filter(Some(&call_site(&["main"]))).unwrap().call_site, ["main"]);
        let go_pgo = GoPGO { keep_locations: 5, aggregate_callees: true, ..Default::default() };
        let both = StackTraceSelector { go_pgo: go_pgo.into(), ..call_site(&["main"]) };
        let filter = stack_filter(Some(&both)).unwrap();
        assert_eq!((filter.keep_locations, filter.ignore_leaf_lines, filter.selects()), (5, true, false));
    }

    #[test]
    fn bad_patterns_and_long_lists_are_named() {
        let refusal = |frame_filter: StackFrameFilter| {
            let selector = StackTraceSelector { frame_filter: frame_filter.into(), ..Default::default() };
            stack_filter(Some(&selector)).unwrap_err().message.unwrap()
        };
        let bad = StackFrameFilter {
            include_function_name_regexes: vec!["a".into(), "(".into()],
            ..Default::default()
        };
        let message = refusal(bad);
        assert!(
            message.starts_with(
                "stack_trace_selector.frame_filter.include_function_name_regexes[1]: regular expression: "
            ),
            "{message}"
        );
        let huge = StackFrameFilter {
            exclude_function_name_regexes: vec![r"(\w{1000}){1000}".into()],
            ..Default::default()
        };
        assert!(refusal(huge).contains("exclude_function_name_regexes[0]"));
        let many =
            StackFrameFilter { exclude_function_names: vec![String::new(); 101], ..Default::default() };
        assert_eq!(
            refusal(many),
            "stack_trace_selector.frame_filter.exclude_function_names: expected at most 100, got 101"
        );
        let deep = vec!["f"; MAX_CALL_SITE + 1];
        assert!(stack_filter(Some(&call_site(&deep))).is_err());
    }
}
