// Files made of the graph that is shown: folded text, a picture, and a page that needs nothing else. Names are foreign:
// whatever reaches markup is escaped here, and none of these files runs a script.

import { formatShare, formatValue } from "../format.ts";
import { barLabel } from "./labels.ts";
import type { Palette } from "./palette.ts";
import { firstRows, topRows } from "./top.ts";
import { depthOf, nameOf, pathTo, type FlameTree } from "./tree.ts";

const WIDTH = 1200;
const ROW = 18;
/** Narrower bars are left out of a picture. */
const MIN_WIDTH = 0.3;
/** Width of a character of the font, in pixels. */
const CHARACTER = 6.7;

export interface Shown {
  title: string;
  tree: FlameTree;
  palette: Palette;
  unit: string;
  flipped: boolean;
  /** Fills by bar in place of the palette's. */
  fills?: readonly string[];
  /** What is told of a bar, where that is more than its values. */
  told?: (bar: number) => string;
  /** The table of functions, where it is not the one of their values: a head, and rows that begin with a name. */
  table?: () => { head: string[]; rows: string[][] };
}

/** A line for each stack trace: functions from the root between `;`, a space, the value. */
export function foldedText({ tree }: Pick<Shown, "tree">): string {
  return foldedLines(tree, (bar) => (tree.self[bar] === 0 ? "" : String(tree.self[bar])));
}

function foldedLines(tree: FlameTree, valueOf: (bar: number) => string): string {
  const lines: string[] = [];
  for (let bar = 1; bar < tree.size; bar++) {
    const value = valueOf(bar);
    if (value === "") continue;
    const frames = pathTo(tree, bar)
      .slice(1)
      .map((at) => nameOf(tree, at).replaceAll(";", ":").replace(/\s+/g, " "));
    lines.push(`${frames.join(";")} ${value}`);
  }
  return lines.join("\n") + "\n";
}

/** A picture whose bars tell their name and values when pointed at. */
export function svgText(shown: Shown): string {
  const { tree, palette, unit, flipped, title } = shown;
  const height = (depthOf(tree) + 2) * ROW;
  const scale = WIDTH / tree.total[0]!;
  const bars: string[] = [];
  for (let bar = 0; bar < tree.size; bar++) {
    const width = tree.total[bar]! * scale;
    if (width < MIN_WIDTH) continue;
    const x = tree.start[bar]! * scale;
    const level = tree.level[bar]!;
    const y = ((flipped ? depthOf(tree) - 1 - level : level) + 1.5) * ROW;
    const name = barLabel(tree, bar);
    const room = Math.floor((width - 6) / CHARACTER);
    const text = name.length <= room ? name : room < 4 ? "" : `${name.slice(0, room - 1)}…`;
    const share = formatShare(tree.total[bar]! / tree.total[0]!);
    const told =
      shown.told?.(bar) ??
      `${name}: ${formatValue(tree.total[bar]!, unit)}, ${share}; self ${formatValue(tree.self[bar]!, unit)}`;
    bars.push(
      `<g><title>${escaped(told)}</title>` +
        `<rect x="${x.toFixed(2)}" y="${y}" width="${Math.max(width - 0.6, 0.3).toFixed(2)}" height="${ROW - 1}" ` +
        `rx="1" fill="${shown.fills?.[bar] ?? palette.fillOf(tree.name[bar]!)}"/>` +
        (text === "" ? "" : `<text x="${(x + 3).toFixed(2)}" y="${y + 12.5}">${escaped(text)}</text>`) +
        "</g>",
    );
  }
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" ` +
    `font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="11" fill="${palette.text}">` +
    `<title>${escaped(title)}</title>` +
    `<text x="3" y="13" font-weight="bold" fill="currentColor">${escaped(title)}</text>${bars.join("")}</svg>\n`
  );
}

/** A line for each stack trace with its values on both sides, as programs for differential flame graphs read them. */
export function foldedDiff(tree: FlameTree, left: Float64Array, right: Float64Array): string {
  return foldedLines(tree, (bar) => (left[bar] || right[bar] ? `${left[bar]} ${right[bar]}` : ""));
}

/** The picture and the table of functions in one page. */
export function htmlText(shown: Shown, facts: [string, string][], dark: boolean): string {
  const { tree, unit, title } = shown;
  const whole = tree.total[0]!;
  const cells = (value: number) => [formatValue(value, unit), formatShare(value / whole)];
  const table = shown.table?.() ?? {
    head: ["Function", "Self", "", "Total", ""],
    rows: firstRows(topRows(tree), tree.names, { column: "self", descending: true }).map(
      ({ name, self, total }) => [tree.names.at(name), ...cells(self), ...cells(total)],
    ),
  };
  const rows = table.rows.map(
    ([name = "", ...values]) =>
      `<tr><th scope="row">${escaped(name.slice(0, 2000))}</th>${values.map((value) => `<td>${escaped(value)}</td>`).join("")}</tr>`,
  );
  const [ground, ink] = dark ? ["#101317", "#eceff2"] : ["#ffffff", "#16191d"];
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escaped(title)}</title>
<style>
body { font: 14px system-ui, sans-serif; margin: 24px; background: ${ground}; color: ${ink}; }
svg { max-width: 100%; height: auto; } dl { display: flex; flex-wrap: wrap; gap: 4px 28px; } dd { margin: 0; font-weight: 600; }
table { border-collapse: collapse; } th, td { padding: 2px 12px; text-align: right; }
tbody th { font: 12px monospace; text-align: left; overflow-wrap: anywhere; unicode-bidi: isolate; }
</style>
<h1>${escaped(title)}</h1>
<dl>${facts.map(([term, fact]) => `<div><dt>${escaped(term)}</dt><dd>${escaped(fact)}</dd></div>`).join("")}</dl>
${svgText(shown)}
<table>
<thead><tr>${table.head.map((title) => (title === "" ? "<td></td>" : `<th scope="col">${escaped(title)}</th>`)).join("")}</tr></thead>
<tbody>
${rows.join("\n")}
</tbody>
</table>
</html>
`;
}

const ENTITIES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

function escaped(text: string): string {
  // Characters that XML has no form for would make the whole picture unreadable.
  return text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u202a-\u202e\u2066-\u2069\ufffe\uffff]/g, "\ufffd")
    .replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd")
    .replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}
