// The top table: every function with its self and total value, sortable, as text.

import { useEffect, useMemo, useState } from "preact/hooks";
import { CopyButton } from "../components/copy.tsx";
import { ShowMore } from "../components/table.tsx";
import { formatShare, formatValue } from "../format.ts";
import { FOLDED_NAME } from "./collapse.ts";
import { intervalText, type Measure } from "./facts.ts";
import { displayName } from "./names.ts";
import type { Palette } from "./palette.ts";
import { firstRows, type TopColumn, type TopRow } from "./top.ts";
import type { FlameTree } from "./tree.ts";

interface Props {
  tree: FlameTree;
  rows: readonly TopRow[];
  palette: Palette;
  measure: Measure;
  matches: Uint8Array | undefined;
  column: TopColumn;
  descending: boolean;
  onSort: (column: TopColumn, descending: boolean) => void;
  onSearch: (name: string) => void;
  /** Shows a function's callers and callees. */
  onAround: (name: string) => void;
}

/** Rows shown at first, and added by each "Show more". */
const PAGE = 50;

const COLUMNS: { column: TopColumn; title: string }[] = [
  { column: "name", title: "Function" },
  { column: "self", title: "Self" },
  { column: "total", title: "Total" },
];

export function TopTable(props: Props) {
  const {
    tree,
    rows: all,
    palette,
    measure,
    matches,
    column,
    descending,
    onSort,
    onSearch,
    onAround,
  } = props;
  const [limit, setLimit] = useState(PAGE);
  useEffect(() => setLimit(PAGE), [tree, matches]);
  const rows = useMemo(() => {
    if (!matches) return all;
    const named = new Set<number>();
    for (let bar = 0; bar < tree.size; bar++) if (matches[bar]) named.add(tree.name[bar]!);
    return all.filter((row) => named.has(row.name));
  }, [all, matches]);
  const shown = useMemo(
    () => firstRows(rows, tree.names, { column, descending }, limit),
    [rows, column, descending, limit],
  );
  return (
    <section class="top" aria-labelledby="top-title">
      <div class="section-head">
        <h2 id="top-title">Functions</h2>
        <p class="quiet">
          {matches
            ? `${rows.length} of ${all.length} match the search`
            : `${all.length} in this ${measure.subject}`}
        </p>
      </div>
      <table class="functions">
        <thead>
          <tr>
            {COLUMNS.map(({ column: key, title }) => {
              const isSorted = key === column;
              const direction = isSorted ? (descending ? "descending" : "ascending") : undefined;
              return (
                <th
                  key={key}
                  scope="col"
                  class={key === "name" ? "" : "number"}
                  {...(direction ? { "aria-sort": direction } : {})}
                >
                  <button
                    type="button"
                    class="sort"
                    onClick={() => onSort(key, isSorted ? !descending : key !== "name")}
                  >
                    {key === "name" && title}
                    <span class="arrow" aria-hidden="true">
                      {isSorted ? (descending ? "▼" : "▲") : ""}
                    </span>
                    {key !== "name" && title}
                  </button>
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {shown.map((row) => {
            const name = tree.names.at(row.name);
            const isFolded = name === FOLDED_NAME;
            const title = isFolded ? "Runtime frames (folded)" : displayName(name, 240);
            return (
              <tr key={row.name}>
                <td>
                  <div class="function">
                    <span class="swatch" style={{ background: palette.fillOf(row.name) }} />
                    {isFolded ? (
                      <span>{title}</span>
                    ) : (
                      <>
                        <button
                          type="button"
                          class="name link"
                          title="Search for this function"
                          onClick={() => onSearch(name)}
                        >
                          {title}
                        </button>
                        <CopyButton text={name} what={`name of ${displayName(name, 60)}`} />
                        <button
                          type="button"
                          class="icon-button"
                          aria-label={`Callers and callees of ${displayName(name, 60)}`}
                          title="Callers and callees"
                          onClick={() => onAround(name)}
                        >
                          <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
                            <path
                              d="M4.5 5L8 1.5 11.5 5M4.5 11L8 14.5 11.5 11M2 8h12"
                              fill="none"
                              stroke="currentColor"
                              stroke-width="1.4"
                            />
                          </svg>
                        </button>
                      </>
                    )}
                  </div>
                </td>
                <Value value={row.self} measure={measure} />
                <Value value={row.total} measure={measure} />
              </tr>
            );
          })}
        </tbody>
      </table>
      {rows.length === 0 && <p class="quiet">No function matches.</p>}
      <ShowMore shown={limit} of={rows.length} page={PAGE} onMore={() => setLimit(limit + PAGE)} />
    </section>
  );
}

function Value({ value, measure }: { value: number; measure: Measure }) {
  const share = value / measure.whole;
  const interval = intervalText(share, measure.samples);
  return (
    <td class="number">
      <span class="amount">{formatValue(value, measure.unit)}</span>{" "}
      <span class="share">{formatShare(share)}</span>{" "}
      <span class="interval" title="95% confidence interval of the share">
        {interval}
      </span>
    </td>
  );
}
