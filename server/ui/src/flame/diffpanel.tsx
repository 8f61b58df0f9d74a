// Two profiles compared: the graph of both, coloured by change, and the functions ranked by it.

import { useMemo, useState } from "preact/hooks";
import type { ProfileRoute } from "../api.ts";
import { copyText } from "../clipboard.ts";
import { CopyButton } from "../components/copy.tsx";
import { ShowMore, Table } from "../components/table.tsx";
import { formatPoints, formatShare, formatValue } from "../format.ts";
import { setQuery } from "../router.ts";
import { FlameCanvas } from "./canvas.tsx";
import { FOLDED_NAME } from "./collapse.ts";
import {
  changeOf,
  diffFills,
  functionChanges,
  PICTURE_P,
  type Comparison,
  type FunctionChange,
  type SampleCounts,
} from "./diff.ts";
import { DiffExports } from "./exports.tsx";
import type { Facts } from "./facts.ts";
import { barLabel } from "./labels.ts";
import { displayName } from "./names.ts";
import { paletteFor } from "./palette.ts";
import { search } from "./search.ts";
import type { Diff } from "./tasks.ts";
import { isFolded, Toolbar } from "./toolbar.tsx";
import { barId, depthOf, findBar, nameOf, type FlameTree } from "./tree.ts";

interface Props {
  diff: Diff;
  samples: SampleCounts;
  unit: string;
  /** What is compared, for the names of files. */
  title: string;
  /** Where the server has the sides in other formats. */
  routes: readonly [ProfileRoute | undefined, ProfileRoute | undefined];
  types: { id: string; label: string }[];
  type: string;
  onType: (id: string) => void;
  query: URLSearchParams;
  dark: boolean;
}

export function DiffPanel({ diff, samples, unit, query, dark, ...props }: Props) {
  const folds = isFolded(query);
  const flipped = query.get("view") === "flame";
  const term = query.get("q") ?? "";
  const by = query.get("by") === "total" ? "total" : "self";
  const [focused, setFocused] = useState(-1);
  const [copied, setCopied] = useState("");

  const comparison = diff.shown(folds);
  const { tree, left, right } = comparison;
  const palette = useMemo(() => paletteFor(tree, dark), [tree, dark]);
  const fills = useMemo(() => diffFills(comparison, samples, dark), [comparison, samples, dark]);
  const found = useMemo(() => search(tree, term), [tree, term]);
  const zoomId = query.get("zoom") ?? "";
  const zoomed = useMemo(() => (zoomId === "" ? 0 : (findBar(tree, zoomId) ?? 0)), [tree, zoomId]);
  const changes = useMemo(() => functionChanges(comparison, by, samples), [comparison, by, samples]);
  const matches = term.trim() === "" ? undefined : found.matches;
  const facts = (bar: number) => factsOf(comparison, bar, samples, unit);
  const named = facts(focused >= 0 && focused < tree.size ? focused : zoomed);
  const zoomTo = (bar: number) => {
    if (bar !== zoomed) setQuery({ zoom: bar === 0 ? undefined : barId(tree, bar) }, "push");
  };
  const sideShare = (side: typeof left) => {
    const { value } = search({ ...tree, self: side.self, total: side.total }, term);
    return formatShare(side.total[0] ? value / side.total[0] : 0);
  };

  return (
    <>
      <section class="graph" aria-label="Differential flame graph">
        <Toolbar
          term={term}
          onTerm={(next) => setQuery({ q: next }, "replace")}
          found={matches ? `${sideShare(left)} → ${sideShare(right)} in ${found.functions} functions` : ""}
          flipped={flipped}
          onFlipped={(next) => setQuery({ view: next ? "flame" : undefined }, "replace")}
          folded={folds}
          onFolded={(next) => {
            setFocused(-1);
            setQuery({ runtime: next ? undefined : "show", zoom: undefined }, "replace");
          }}
          types={props.types}
          type={props.type}
          onType={props.onType}
        >
          <DiffExports
            shown={{
              title: props.title,
              tree,
              palette,
              unit,
              flipped,
              fills,
              told: (bar) => toldOf(facts(bar)),
              table: () => tableOf(changes, tree),
            }}
            left={left.self}
            right={right.self}
            samples={samples}
            routes={props.routes}
            dark={dark}
          />
        </Toolbar>
        <div class="readout" data-testid="readout">
          <span class="name">{named.name}</span>
          <span class="numbers">
            {named.rows.map(([term, value, share]) => `${term} ${share || value}`).join(" · ")}
          </span>
          <span class="spring" />
          <button type="button" disabled={zoomed === 0} onClick={() => zoomTo(0)}>
            Reset zoom
          </button>
        </div>
        <FlameCanvas
          model={{ tree, palette, fills, matches, zoomed, flipped }}
          facts={facts}
          description={describe(tree, changes)}
          onZoom={zoomTo}
          onFocus={setFocused}
          onCopy={async (bar) => {
            const isDone = await copyText(nameOf(tree, bar));
            setCopied(isDone ? `Copied ${barLabel(tree, bar, 80)}` : "Copy failed");
          }}
        />
        <ul class="legend" aria-label="Colours">
          <li>
            <span class="swatch more" /> more than in the baseline
          </li>
          <li>
            <span class="swatch less" /> less
          </li>
          <li>
            <span class="swatch same" /> no difference beyond chance (p &gt; {PICTURE_P})
          </li>
        </ul>
        <span class="visually-hidden" role="status">
          {copied}
        </span>
      </section>
      <ChangeTable changes={changes} tree={tree} matches={matches} by={by} />
    </>
  );
}

function factsOf(comparison: Comparison, bar: number, samples: SampleCounts, unit: string): Facts {
  const { tree, left, right } = comparison;
  const change = changeOf(comparison, bar, samples);
  const folded = tree.folded.get(bar);
  const points = formatPoints(change.right - change.left);
  return {
    name: barLabel(tree, bar),
    notes: folded ? [`${folded.functions} folded ${folded.functions === 1 ? "function" : "functions"}`] : [],
    rows: [
      ["Baseline", formatValue(left.total[bar]!, unit), formatShare(change.left)],
      ["Compared", formatValue(right.total[bar]!, unit), formatShare(change.right)],
      ["Change", points, ""],
    ],
    certainty: bar === 0 ? "" : verdict(change.p, change.p <= PICTURE_P),
    spoken:
      `${barLabel(tree, bar, 200)}: ${formatShare(change.left)} in the baseline, ${formatShare(change.right)} compared, ` +
      `${points}, ${verdict(change.p, change.p <= PICTURE_P)}, level ${tree.level[bar]! + 1} of ${depthOf(tree)}`,
  };
}

/** A bar's facts in a line. */
function toldOf({ name, rows, certainty }: Facts): string {
  const values = rows.map(([term, value, share]) => `${term} ${value}${share === "" ? "" : ` (${share})`}`);
  return `${name}: ${[...values, certainty].filter((part) => part !== "").join(", ")}`;
}

/** The table of changes for a file. */
function tableOf(changes: readonly FunctionChange[], tree: FlameTree): { head: string[]; rows: string[][] } {
  const rows = changes.map(({ name, left, right, p, isSignal }) => [
    tree.names.at(name),
    formatShare(left),
    formatShare(right),
    formatPoints(right - left),
    verdict(p, isSignal),
  ]);
  return { head: ["Function", "Baseline", "Compared", "Change", "Verdict"], rows };
}

function verdict(p: number, isSignal: boolean): string {
  const shown = p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(p < 0.01 ? 3 : 2)}`;
  return isSignal ? `beyond chance (${shown})` : `within noise (${shown})`;
}

function describe(tree: FlameTree, changes: readonly FunctionChange[]): string {
  const first = changes
    .filter(({ isSignal }) => isSignal)
    .slice(0, 3)
    .map(({ name, left, right }) => `${displayName(tree.names.at(name), 120)} ${formatPoints(right - left)}`);
  const told =
    first.length === 0 ? "No function changed beyond chance." : `Changed most: ${first.join(", ")}.`;
  return `Flame graph of two profiles, coloured by change. ${told} The table below lists every function.`;
}

/** Rows shown at first, and added by each "Show more". */
const PAGE = 50;

interface TableProps {
  changes: readonly FunctionChange[];
  tree: FlameTree;
  matches: Uint8Array | undefined;
  by: "self" | "total";
}

function ChangeTable({ changes, tree, matches, by }: TableProps) {
  const [limit, setLimit] = useState(PAGE);
  const rows = useMemo(() => {
    if (!matches) return changes;
    const named = new Set<number>();
    for (let bar = 0; bar < tree.size; bar++) if (matches[bar]) named.add(tree.name[bar]!);
    return changes.filter(({ name }) => named.has(name));
  }, [changes, matches]);
  const signals = changes.filter(({ isSignal }) => isSignal).length;
  return (
    <section class="top">
      <div class="section-head">
        <h2 id="changes-title">Functions by change</h2>
        <p class="quiet" data-testid="signals">
          {signals} of {changes.length} changed beyond chance (two-proportion z-test, false discovery rate 5%)
        </p>
        <div class="segments" role="group" aria-label="Rank by">
          <button
            type="button"
            aria-pressed={by === "self"}
            onClick={() => setQuery({ by: undefined }, "replace")}
          >
            Self
          </button>
          <button
            type="button"
            aria-pressed={by === "total"}
            onClick={() => setQuery({ by: "total" }, "replace")}
          >
            Total
          </button>
        </div>
      </div>
      <Table
        class="functions changes"
        labelledBy="changes-title"
        columns={[
          "Function",
          { number: "Baseline" },
          { number: "Compared" },
          { number: "Change" },
          "Verdict",
        ]}
      >
        <tbody>
          {rows.slice(0, limit).map(({ name: index, left, right, p, isSignal }) => {
            const name = tree.names.at(index);
            const isRuntime = name === FOLDED_NAME;
            return (
              <tr key={index} class={isSignal ? (right > left ? "more" : "less") : "same"}>
                <td>
                  <div class="function">
                    <span class="name mono">
                      {isRuntime ? "Runtime frames (folded)" : displayName(name, 240)}
                    </span>
                    {!isRuntime && <CopyButton text={name} what={`name of ${displayName(name, 60)}`} />}
                  </div>
                </td>
                <td class="number">{formatShare(left)}</td>
                <td class="number">{formatShare(right)}</td>
                <td class="number change">{formatPoints(right - left)}</td>
                <td>{verdict(p, isSignal)}</td>
              </tr>
            );
          })}
        </tbody>
      </Table>
      {rows.length === 0 && <p class="quiet">No function matches.</p>}
      <ShowMore shown={limit} of={rows.length} page={PAGE} onMore={() => setLimit(limit + PAGE)} />
    </section>
  );
}
