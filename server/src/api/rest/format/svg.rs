//! A picture of the graph that needs nothing else: no script, no style sheet, no font of its own.
//!
//! The library for such pictures, inferno, fits its labels by a script inside the picture, reads folded text, in which
//! names lose their `;`, and is under the CDDL; hence these few lines.

use std::fmt::Write as _;

use super::{Bar, Drawn, TooLong, bars, check_names};

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
const ROW: f64 = 18.0;
const HEAD: f64 = 48.0;
/// Narrower bars are left out, in pixels.
const NARROWEST: f64 = 0.3;
/// The width of a character, in pixels; the font has one width for all.
const CHARACTER: f64 = 7.3;

/// The picture.
pub(in crate::api::rest) fn svg(drawn: &Drawn<'_>) -> Result<String, TooLong> {
    let graph = drawn.graph;
    let bars = bars(graph);
    check_names(graph, &bars)?;
    let scale = (WIDTH - 2.0 * MARGIN) / graph.total.max(1) as f64;
    let visible = |bar: &&Bar| bar.total as f64 * scale >= NARROWEST;
    let depth = bars.iter().filter(visible).map(|bar| bar.depth).max().unwrap_or(0);
    let height = HEAD + (depth + 1) as f64 * ROW + MARGIN;
    let (title, kind) = (escape(drawn.title), escape(&drawn.kind.to_string()));
    let whole = value(graph.total, &drawn.kind.sample_unit);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"ui-monospace, 'DejaVu Sans Mono', monospace\" font-size=\"12\" \
         fill=\"#1c1c1c\">\n<title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fffdf8\"/>\n\
         <text x=\"{MARGIN}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"{MARGIN}\" y=\"38\">{kind}, {whole} in {} samples</text>\n",
        graph.samples
    );
    if graph.total <= 0 {
        writeln!(text, "<text x=\"{MARGIN}\" y=\"{}\">no samples</text>", HEAD + 13.0).expect(INTO_STRING);
    }
    for bar in bars.iter().filter(visible) {
        let (x, y) = (MARGIN + bar.x as f64 * scale, HEAD + bar.depth as f64 * ROW);
        let width = (bar.total as f64 * scale).min(WIDTH - MARGIN - x).max(0.0);
        let name = &graph.names[bar.name];
        let share = bar.total as f64 / graph.total as f64 * 100.0;
        let (of_bar, own) =
            (value(bar.total, &drawn.kind.sample_unit), value(bar.own, &drawn.kind.sample_unit));
        writeln!(
            text,
            "<g><title>{}\n{of_bar}, {share:.2}% (self {own})</title>\
             <rect x=\"{x:.2}\" y=\"{y}\" width=\"{:.2}\" height=\"{}\" rx=\"1\" fill=\"{}\"/>{}</g>",
            escape(name),
            (width - 0.4).max(0.2),
            ROW - 1.0,
            color(name),
            label(name, x, y, width),
        )
        .expect(INTO_STRING);
    }
    text.push_str("</svg>\n");
    Ok(text)
}

const INTO_STRING: &str = "writing into a string does not fail";

/// As much of the name as fits on the bar.
fn label(name: &str, x: f64, y: f64, width: f64) -> String {
    let room = ((width - 6.0) / CHARACTER).max(0.0) as usize;
    if room < 3 {
        return String::new();
    }
    let shown: String = if name.chars().nth(room).is_none() {
        name.to_owned()
    } else {
        name.chars().take(room - 1).chain(['…']).collect()
    };
    format!("<text x=\"{:.2}\" y=\"{}\">{}</text>", x + 3.0, y + 12.5, escape(&shown))
}

/// A warm colour that stays with its name.
fn color(name: &str) -> String {
    // FNV-1a: the same in every process and version, unlike the standard library's.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let part = |shift: u32, range: u64| (hash >> shift) % range;
    format!("hsl({},{}%,{}%)", 12 + part(8, 40), 70 + part(24, 20), 62 + part(40, 14))
}

/// A value for people.
fn value(value: i64, unit: &str) -> String {
    let steps: &[(f64, &str)] = match unit {
        "nanoseconds" => &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
        "bytes" => &[(1073741824.0, "GiB"), (1048576.0, "MiB"), (1024.0, "KiB"), (1.0, "B")],
        _ => return format!("{value} {}", escape(unit)),
    };
    let amount = value as f64;
    let (size, name) = steps.iter().find(|(size, _)| amount >= *size).unwrap_or(&steps[steps.len() - 1]);
    let digits = if amount < *size * 10.0 && *size > 1.0 { 2 } else { usize::from(*size > 1.0) };
    format!("{:.digits$} {name}", amount / size)
}

/// Text for XML: its syntax escaped, and what XML cannot hold at all replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            c if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_for_people() {
        for (nanos, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1500, "1.50 µs"),
            (30_000_000, "30.0 ms"),
            (12_345_000_000, "12.3 s"),
        ] {
            assert_eq!(value(nanos, "nanoseconds"), text);
        }
        assert_eq!(value(2048, "bytes"), "2.00 KiB");
        assert_eq!(value(7, "<b>"), "7 &lt;b&gt;");
    }

    #[test]
    fn labels_fit_their_bars() {
        assert_eq!(label("handler", 0.0, 0.0, 20.0), "");
        assert!(label("handler", 0.0, 0.0, 50.0).ends_with(">handl…</text>"));
        assert!(label("handler", 0.0, 0.0, 60.0).ends_with(">handler</text>"));
    }

    #[test]
    fn nothing_that_xml_cannot_hold_is_left() {
        assert_eq!(escape("a<b>&\"'\n\u{0}\u{ffff}ä"), "a&lt;b&gt;&amp;&quot;&#39; \u{fffd}\u{fffd}ä");
    }
}
