// The flame graph with all that belongs to it. Its state lives in the address: zoom, search, folding, direction, sorting,
// the function whose callers and callees are shown.

import { useMemo, useState } from "preact/hooks";
import type { ProfileRoute } from "../api.ts";
import { copyText } from "../clipboard.ts";
import { CopyButton } from "../components/copy.tsx";
import { Link } from "../components/link.tsx";
import { formatCount, formatShare, formatValue } from "../format.ts";
import { usePainted } from "../painted.ts";
import { setQuery } from "../router.ts";
import { FlameCanvas } from "./canvas.tsx";
import { Exports } from "./exports.tsx";
import { factsOf, intervalText, sourceText, type Measure } from "./facts.ts";
import { barLabel } from "./labels.ts";
import { displayName } from "./names.ts";
import { NO_CRATE, paletteFor, RUNTIME, type Palette } from "./palette.ts";
import { SandwichView } from "./sandwichview.tsx";
import { projectMatches, search } from "./search.ts";
import { sourceOf, type Sources } from "./source.ts";
import { isFolded, Toolbar } from "./toolbar.tsx";
import type { Graph } from "./tasks.ts";
import { firstRows, sortOf, topRows, type TopRow } from "./top.ts";
import { TopTable } from "./toptable.tsx";
import { barId, findBar, linkName, MAX_LINKED_NAME, nameOf, type FlameTree } from "./tree.ts";

interface Props {
  graph: Graph;
  /** What it is of, in a word: "span", "trace". */
  subject: string;
  /** What it is of, for the names of files. */
  title: string;
  unit: string;
  /** Samples behind it, 0 if unknown. */
  samples: number;
  types: { id: string; label: string }[];
  type: string;
  query: URLSearchParams;
  dark: boolean;
  sources?: Sources | undefined;
  /** Where the server has this profile in other formats. */
  route?: ProfileRoute | undefined;
  /** The page of the requests that spent most time in a function. */
  requestsOf?: (functionName: string) => string;
}

export function FlamePanel(props: Props) {
  const { graph, subject, unit, samples, query, dark, sources } = props;
  const folds = isFolded(query);
  const flipped = query.get("view") === "flame";
  const term = query.get("q") ?? "";
  const { column, descending } = sortOf(query);
  const [focused, setFocused] = useState(-1);
  const [copied, setCopied] = useState("");

  const { full } = graph;
  const collapsed = folds ? graph.collapsed : undefined;
  const tree = collapsed ? collapsed.tree : full;
  const palette = useMemo(() => paletteFor(tree, dark), [tree, dark]);
  const result = useMemo(() => search(full, term), [full, term]);
  const matches = useMemo(() => {
    if (term.trim() === "") return undefined;
    return collapsed ? projectMatches(result.matches, collapsed.shownAs, tree.size) : result.matches;
  }, [result, tree]);
  const zoomId = query.get("zoom") ?? "";
  const zoomedFull = useMemo(() => (zoomId === "" ? 0 : (findBar(full, zoomId) ?? 0)), [full, zoomId]);
  const zoomed = collapsed ? collapsed.shownAs[zoomedFull]! : zoomedFull;
  // Nobody waits for the picture because of what stands below it or is read aloud.
  const isPainted = usePainted();
  const rows = useMemo(() => (isPainted ? topRows(tree) : []), [isPainted, tree]);
  const description = useMemo(() => describe(tree, rows, unit, samples), [tree, rows, unit, samples]);

  const inlined = useMemo(
    () => sources && Uint8Array.from(sources.inlined, (share) => (share > 0.5 ? 1 : 0)),
    [sources],
  );

  const whole = tree.total[0]!;
  const measure: Measure = useMemo(
    () => ({ subject, unit, whole, samples, sources }),
    [subject, unit, whole, samples, sources],
  );
  const zoomTo = (bar: number) => {
    const target = collapsed ? collapsed.origin[bar]! : bar;
    if (target !== zoomedFull) setQuery({ zoom: target === 0 ? undefined : barId(full, target) }, "push");
  };
  const copyName = async (name: string, label: string) => {
    setCopied((await copyText(name)) ? `Copied ${label}` : "Copy failed");
  };
  const linked = query.get("fn") ?? "";
  const around = useMemo(
    () =>
      (linked.startsWith("#") ? tree.names.all().find((name) => linkName(name) === linked) : linked) ??
      linked,
    [tree, linked],
  );
  const showAround = (name: string | undefined) => setQuery({ fn: name && linkName(name) }, "push");
  const legend = useMemo(
    () => <Legend palette={palette} whole={whole} hasInlined={inlined?.includes(1) ?? false} />,
    [palette, whole, inlined],
  );
  // The same element as before is not looked at again: a zoom leaves the table alone.
  const table = useMemo(
    () => (
      <TopTable
        tree={tree}
        rows={rows}
        palette={palette}
        measure={measure}
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
        onAround={showAround}
      />
    ),
    [tree, rows, palette, measure, matches, column, descending],
  );
  const requestsOf = (name: string) => (name.length > MAX_LINKED_NAME ? undefined : props.requestsOf?.(name));
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
          folded={folds}
          onFolded={(next) => {
            setFocused(-1);
            setQuery({ runtime: next ? undefined : "show" }, "replace");
          }}
          types={props.types}
          type={props.type}
          onType={(next) => setQuery({ type: next, zoom: undefined }, "push")}
        >
          <Exports
            shown={{ title: props.title, tree, palette, unit, flipped }}
            samples={samples}
            route={props.route}
            dark={dark}
          />
        </Toolbar>
        {around !== "" ? (
          <SandwichView
            tree={tree}
            name={around}
            palette={palette}
            measure={measure}
            inlined={inlined}
            onAround={showAround}
            onCopy={copyName}
            requests={requestsOf(around)}
          />
        ) : (
          <>
            <Readout
              tree={tree}
              bar={named}
              measure={measure}
              requests={requestsOf}
              onAround={showAround}
              onReset={zoomed === 0 ? undefined : () => zoomTo(0)}
            />
            <FlameCanvas
              model={{ tree, palette, inlined, matches, zoomed, flipped }}
              facts={(bar) => factsOf(tree, bar, measure)}
              description={description}
              onZoom={zoomTo}
              onFocus={setFocused}
              onCopy={(bar) => copyName(fullName(tree, bar), barLabel(tree, bar, 80))}
              onAround={(bar) => isFunction(tree, bar) && showAround(nameOf(tree, bar))}
            />
          </>
        )}
        {legend}
        <span class="visually-hidden" role="status">
          {copied}
        </span>
      </section>
      {isPainted && table}
    </>
  );
}

/** The frame that the keyboard is on, else the zoomed one, with what can be done with it. */
function Readout({
  tree,
  bar,
  measure,
  requests,
  onAround,
  onReset,
}: {
  tree: FlameTree;
  bar: number;
  measure: Measure;
  requests: (name: string) => string | undefined;
  onAround: (name: string) => void;
  onReset: (() => void) | undefined;
}) {
  const { subject, unit, whole, samples, sources } = measure;
  const share = tree.total[bar]! / whole;
  const interval = intervalText(share, samples);
  const name = isFunction(tree, bar) ? nameOf(tree, bar) : undefined;
  const link = name === undefined ? undefined : requests(name);
  const source = name === undefined ? undefined : sources && sourceOf(sources, tree.name[bar]!);
  return (
    <div class="readout" data-testid="readout">
      <span class="name">{barLabel(tree, bar)}</span>
      <span class="numbers">
        <b>{formatShare(share)}</b> of {subject}
        {interval !== "" && ` (95%: ${interval})`} · total {formatValue(tree.total[bar]!, unit)} · self{" "}
        {formatValue(tree.self[bar]!, unit)}
      </span>
      {bar !== 0 && <CopyButton text={fullName(tree, bar)} what="function name" />}
      {source && (
        <span class="source mono small" data-testid="source">
          {sourceText(source)}
        </span>
      )}
      <span class="spring" />
      {name !== undefined && (
        <>
          {link !== undefined && <Link to={link}>Requests</Link>}
          <button type="button" onClick={() => onAround(name)}>
            Callers and callees
          </button>
        </>
      )}
      <button type="button" disabled={!onReset} onClick={onReset}>
        Reset zoom
      </button>
    </div>
  );
}

/** Whether a bar stands for one function rather than for everything or for folded frames. */
function isFunction(tree: FlameTree, bar: number): boolean {
  return bar !== 0 && !tree.folded.has(bar);
}

/** The whole name for the clipboard. */
function fullName(tree: FlameTree, bar: number): string {
  return isFunction(tree, bar) ? nameOf(tree, bar) : barLabel(tree, bar);
}

function Legend({ palette, whole, hasInlined }: { palette: Palette; whole: number; hasInlined: boolean }) {
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
      {hasInlined && (
        <li>
          <span class="swatch inlined" /> inlined
        </li>
      )}
    </ul>
  );
}

/** The graph in a sentence or two: its size and where the time went. */
function describe(tree: FlameTree, rows: readonly TopRow[], unit: string, samples: number): string {
  const most = firstRows(rows, tree.names, { column: "self", descending: true }, 3);
  const shares = most.map(
    (row) => `${displayName(tree.names.at(row.name), 120)} ${formatShare(row.self / tree.total[0]!)}`,
  );
  const counted = samples > 0 ? ` in ${formatCount(samples)} samples` : "";
  return (
    `Flame graph of ${formatValue(tree.total[0]!, unit)}${counted}. ` +
    `Most self time: ${shares.join(", ")}. The table below lists every function.`
  );
}
