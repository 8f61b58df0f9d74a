// The flame graph with all that belongs to it. Its state lives in the address: zoom, search, folding, direction, sorting.

import { useMemo, useState } from "preact/hooks";
import { copyText } from "../clipboard.ts";
import { CopyButton } from "../components/copy.tsx";
import { formatCount, formatShare, formatValue } from "../format.ts";
import { setQuery } from "../router.ts";
import { FlameCanvas } from "./canvas.tsx";
import { collapse } from "./collapse.ts";
import { barLabel } from "./labels.ts";
import { displayName } from "./names.ts";
import { NO_CRATE, paletteFor, RUNTIME, type Palette } from "./palette.ts";
import { projectMatches, search } from "./search.ts";
import { Toolbar } from "./toolbar.tsx";
import { topRows, type TopColumn, type TopRow } from "./top.ts";
import { TopTable } from "./toptable.tsx";
import { barId, findBar, nameOf, type FlameTree } from "./tree.ts";

interface Props {
  /** The graph as the server sent it. */
  full: FlameTree;
  unit: string;
  samples: number;
  types: { id: string; label: string }[];
  type: string;
  query: URLSearchParams;
  dark: boolean;
}

export function FlamePanel({ full, unit, samples, types, type, query, dark }: Props) {
  const isFolded = query.get("runtime") !== "show";
  const flipped = query.get("view") === "flame";
  const term = query.get("q") ?? "";
  const { column, descending } = sortOf(query);
  const [focused, setFocused] = useState(-1);
  const [copied, setCopied] = useState("");

  const collapsed = useMemo(() => collapse(full), [full]);
  const tree = isFolded ? collapsed.tree : full;
  const palette = useMemo(() => paletteFor(tree, dark), [tree, dark]);
  const result = useMemo(() => search(full, term), [full, term]);
  const matches = useMemo(() => {
    if (term.trim() === "") return undefined;
    return isFolded ? projectMatches(result.matches, collapsed.shownAs, tree.size) : result.matches;
  }, [result, tree]);
  const zoomId = query.get("zoom") ?? "";
  const zoomedFull = useMemo(() => (zoomId === "" ? 0 : (findBar(full, zoomId) ?? 0)), [full, zoomId]);
  const zoomed = isFolded ? collapsed.shownAs[zoomedFull]! : zoomedFull;
  const rows = useMemo(() => topRows(tree), [tree]);
  const description = useMemo(() => describe(tree, rows, unit, samples), [rows, unit, samples]);

  const zoomTo = (bar: number) => {
    const target = isFolded ? collapsed.origin[bar]! : bar;
    if (target !== zoomedFull) setQuery({ zoom: target === 0 ? undefined : barId(full, target) }, "push");
  };
  const copyName = async (bar: number) => {
    const isDone = await copyText(fullName(tree, bar));
    setCopied(isDone ? `Copied ${barLabel(tree, bar, 80)}` : "Copy failed");
  };
  const found =
    term.trim() === ""
      ? ""
      : `${formatShare(result.value / full.total[0]!)} in ${result.functions} ${result.functions === 1 ? "function" : "functions"}`;
  // The keyboard's frame may belong to the graph before the last switch.
  const named = focused >= 0 && focused < tree.size ? focused : zoomed;

  return (
    <>
      <section class="graph" aria-label="Flame graph">
        <Toolbar
          term={term}
          onTerm={(next) => setQuery({ q: next }, "replace")}
          found={found}
          flipped={flipped}
          onFlipped={(next) => setQuery({ view: next ? "flame" : undefined }, "replace")}
          folded={isFolded}
          onFolded={(next) => {
            setFocused(-1);
            setQuery({ runtime: next ? undefined : "show" }, "replace");
          }}
          types={types}
          type={type}
          onType={(next) => setQuery({ type: next, zoom: undefined }, "push")}
        />
        <div class="readout" data-testid="readout">
          <span class="name">{barLabel(tree, named)}</span>
          <span class="numbers">
            <b>{formatShare(tree.total[named]! / tree.total[0]!)}</b> of span · total{" "}
            {formatValue(tree.total[named]!, unit)} · self {formatValue(tree.self[named]!, unit)}
          </span>
          {named !== 0 && <CopyButton text={fullName(tree, named)} what="function name" />}
          <button type="button" disabled={zoomed === 0} onClick={() => zoomTo(0)}>
            Reset zoom
          </button>
        </div>
        <FlameCanvas
          model={{ tree, palette, matches, zoomed, flipped }}
          unit={unit}
          samples={samples}
          description={description}
          onZoom={zoomTo}
          onFocus={setFocused}
          onCopy={copyName}
        />
        <Legend palette={palette} whole={tree.total[0]!} />
        <span class="visually-hidden" role="status">
          {copied}
        </span>
      </section>
      <TopTable
        tree={tree}
        rows={rows}
        palette={palette}
        unit={unit}
        matches={matches}
        column={column}
        descending={descending}
        onSort={(next, isDescending) =>
          setQuery(
            { sort: next === "self" ? undefined : next, order: isDescending ? undefined : "asc" },
            "replace",
          )
        }
        onSearch={(name) => setQuery({ q: name.slice(0, 2000) }, "replace")}
      />
    </>
  );
}

function sortOf(query: URLSearchParams): { column: TopColumn; descending: boolean } {
  const asked = query.get("sort");
  return {
    column: asked === "name" || asked === "total" ? asked : "self",
    descending: query.get("order") !== "asc",
  };
}

/** The whole name for the clipboard. */
function fullName(tree: FlameTree, bar: number): string {
  return tree.folded.has(bar) || bar === 0 ? barLabel(tree, bar) : nameOf(tree, bar);
}

function Legend({ palette, whole }: { palette: Palette; whole: number }) {
  const shown = palette.legend.slice(0, 8);
  return (
    <ul class="legend" aria-label="Self time by crate">
      {shown.map(({ crate, fill, self }) => (
        <li key={crate}>
          <span class="swatch" style={{ background: fill }} />
          <span class={crate === NO_CRATE || crate === RUNTIME ? "" : "name"}>{crate}</span>{" "}
          <span class="quiet">{formatShare(self / whole)}</span>
        </li>
      ))}
    </ul>
  );
}

/** The graph in a sentence or two: its size and where the time went. */
function describe(tree: FlameTree, rows: readonly TopRow[], unit: string, samples: number): string {
  const heaviest: TopRow[] = [];
  for (const row of rows) {
    const at = heaviest.findIndex((other) => other.self < row.self);
    if (at >= 0) heaviest.splice(at, 0, row);
    else heaviest.push(row);
    if (heaviest.length > 3) heaviest.pop();
  }
  const shares = heaviest.map(
    (row) => `${displayName(tree.names[row.name]!, 120)} ${formatShare(row.self / tree.total[0]!)}`,
  );
  return (
    `Flame graph of ${formatValue(tree.total[0]!, unit)} in ${formatCount(samples)} samples. ` +
    `Most self time: ${shares.join(", ")}. The table below lists every function.`
  );
}
