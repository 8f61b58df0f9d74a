//! Folded stacks: a line for each stack trace, its functions from the root joined by `;`, a space, its value.

use super::{Drawn, MAX_BYTES, TooLong, bars, stack};

/// The stacks of a graph, sorted. A `;` in a name becomes `:`, whatever would end the line a space.
pub(in crate::api::rest) fn folded(drawn: &Drawn<'_>) -> Result<String, TooLong> {
    let graph = drawn.graph;
    let names: Vec<String> = graph.names.iter().map(|name| plain(name)).collect();
    let bars = bars(graph);
    let mut lines = Vec::new();
    let mut bytes = 0;
    for (at, bar) in bars.iter().enumerate().filter(|(_, bar)| bar.own > 0) {
        let stack = stack(&bars, at);
        if stack.is_empty() {
            // Samples without a stack trace.
            lines.push(format!("{} {}\n", names[bar.name], bar.own));
            continue;
        }
        bytes += stack.iter().map(|&name| names[name].len() + 1).sum::<usize>() + 21;
        if bytes > MAX_BYTES {
            return Err(TooLong);
        }
        let stack: Vec<&str> = stack.iter().map(|&name| names[name].as_str()).collect();
        lines.push(format!("{} {}\n", stack.join(";"), bar.own));
    }
    lines.sort_unstable();
    Ok(lines.concat())
}

fn plain(name: &str) -> String {
    let plain = name.chars().map(|c| match c {
        ';' => ':',
        c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => ' ',
        c => c,
    });
    let plain: String = plain.collect();
    if plain.trim().is_empty() { "unknown".to_owned() } else { plain }
}
