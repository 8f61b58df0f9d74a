// What the lists of every page are made of: a table that scrolls sideways by itself, bars in its cells, and a button for more.

import type { ComponentChildren } from "preact";
import { formatCount } from "../format.ts";

/** A column's title; `number` stands it to the right. */
export type Column = string | { number: string };

interface Props {
  class: string;
  /** What the table is called: a text, or the id of its heading. */
  label?: string;
  labelledBy?: string;
  columns: readonly (Column | false)[];
  /** Bodies with rows of as many cells. */
  children: ComponentChildren;
}

export function Table({ class: name, label, labelledBy, columns, children }: Props) {
  return (
    <div class="table-box" role="region" aria-label={label} aria-labelledby={labelledBy} tabIndex={0}>
      <table class={name}>
        <thead>
          <tr>
            {columns.map(
              (column) =>
                column !== false && (
                  <th
                    key={titleOf(column)}
                    scope="col"
                    class={typeof column === "string" ? undefined : "number"}
                  >
                    {titleOf(column)}
                  </th>
                ),
            )}
          </tr>
        </thead>
        {children}
      </table>
    </div>
  );
}

function titleOf(column: Column): string {
  return typeof column === "string" ? column : column.number;
}

/** A part of a whole, from 0 to 1, under the number that tells it. */
export function ShareBar({ share }: { share: number }) {
  return (
    <div class="bar" aria-hidden="true">
      <div style={{ width: `${100 * share}%` }} />
    </div>
  );
}

interface MoreProps {
  /** Rows that are shown, of so many, and how many a press adds. */
  shown: number;
  of: number;
  page: number;
  onMore: () => void;
}

/** The button for rows that are there and not shown yet. */
export function ShowMore({ shown, of, page, onMore }: MoreProps) {
  const left = of - shown;
  if (left <= 0) return null;
  return (
    <button type="button" onClick={onMore}>
      Show {Math.min(page, left)} more of {formatCount(left)}
    </button>
  );
}
