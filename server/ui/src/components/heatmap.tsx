// A heat map of spans: columns of time, rows of CPU time or duration, the number of spans as strength of colour. A rectangle of cells
// is chosen by dragging, or with the arrow keys, Shift and Enter.

import { useMemo, useRef, useState } from "preact/hooks";
import type { HeatmapSlot } from "../querier.ts";
import { formatCount, formatInterval, formatNanos, formatTime } from "../format.ts";
import type { TimeRange } from "../range.ts";

/** A rectangle of the map: of time (Unix milliseconds) and CPU time or duration (nanoseconds), ends included. */
export interface Brush extends TimeRange {
  min: number;
  max: number;
}

interface Props {
  slots: HeatmapSlot[];
  /** What rows are of. */
  of: string;
  /** Where the first step ends, how long a step is (both in milliseconds), and how many there are. */
  start: number;
  step: number;
  columns: number;
  brush: Brush | undefined;
  onBrush: (brush: Brush | undefined) => void;
}

/** Columns and rows, both ends included. */
interface Cells {
  left: number;
  right: number;
  low: number;
  high: number;
}

interface Corner {
  column: number;
  row: number;
}

export function Heatmap({ slots, of, start, step, columns, brush, onBrush }: Props) {
  const grid = useMemo(() => gridOf(slots, start, step, columns), [slots, start, step, columns]);
  const [drag, setDrag] = useState<{ anchor: Corner; at: Corner }>();
  const [cursor, setCursor] = useState<{ anchor: Corner; at: Corner }>();
  const [spoken, setSpoken] = useState("");
  const picture = useRef<SVGSVGElement>(null);
  const { rows, counts, most } = grid;

  const toBrush = ({ left, right, low, high }: Cells): Brush => ({
    from: start + (left - 1) * step + 1,
    until: start + right * step,
    min: Math.floor(grid.edges[low]!),
    max: Math.ceil(grid.edges[high + 1]!),
  });
  const shown = drag ?? cursor;
  const cells = shown
    ? cellsOf(shown.anchor, shown.at)
    : brush && cellsOfBrush(brush, start, step, columns, grid);

  const at = (event: PointerEvent): Corner => {
    const box = picture.current!.getBoundingClientRect();
    const part = (position: number, length: number, count: number) =>
      Math.min(count - 1, Math.max(0, Math.floor((position / length) * count)));
    return {
      column: part(event.clientX - box.left, box.width, columns),
      row: rows - 1 - part(event.clientY - box.top, box.height, rows),
    };
  };
  const say = (chosen: Cells) => {
    const { from, until, min, max } = toBrush(chosen);
    const spans = countIn(grid, chosen, columns);
    setSpoken(
      `${formatInterval(from, until)}, ${formatNanos(min)} to ${formatNanos(max)}: ` +
        `${formatCount(spans)} ${spans === 1 ? "span" : "spans"}`,
    );
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, 1],
      ArrowDown: [0, -1],
    };
    const move = steps[event.key];
    if (move) {
      const from = cursor?.at ?? { column: columns - 1, row: 0 };
      const next = {
        column: Math.min(columns - 1, Math.max(0, from.column + (cursor ? move[0] : 0))),
        row: Math.min(rows - 1, Math.max(0, from.row + (cursor ? move[1] : 0))),
      };
      const anchor = event.shiftKey && cursor ? cursor.anchor : next;
      setCursor({ anchor, at: next });
      say(cellsOf(anchor, next));
    } else if ((event.key === "Enter" || event.key === " ") && cursor) {
      onBrush(toBrush(cellsOf(cursor.anchor, cursor.at)));
    } else if (event.key === "Escape") {
      setCursor(undefined);
      onBrush(undefined);
    } else return;
    event.preventDefault();
  };

  return (
    <figure class="heatmap">
      <div class="heatmap-scale" aria-hidden="true">
        <span>{formatNanos(grid.edges[rows]!)}</span>
        <span>{formatNanos(grid.edges[0]!)}</span>
      </div>
      <svg
        ref={picture}
        viewBox={`0 0 ${columns} ${rows}`}
        preserveAspectRatio="none"
        tabIndex={0}
        role="application"
        aria-roledescription="heat map"
        aria-label={
          `Spans over time by their ${of}, ${formatTime(start - step)} to ${formatTime(start + (columns - 1) * step)}. ` +
          "Arrow keys move, Shift extends, Enter selects, Escape clears."
        }
        onKeyDown={onKeyDown}
        onBlur={() => setCursor(undefined)}
        onPointerDown={(event) => {
          if (event.button !== 0) return;
          picture.current!.setPointerCapture(event.pointerId);
          setCursor(undefined);
          setDrag({ anchor: at(event), at: at(event) });
        }}
        onPointerMove={(event) => {
          const here = at(event);
          if (drag) setDrag({ ...drag, at: here });
          else say(cellsOf(here, here));
        }}
        onPointerUp={(event) => {
          if (!drag) return;
          setDrag(undefined);
          onBrush(toBrush(cellsOf(drag.anchor, at(event))));
        }}
        onPointerCancel={() => setDrag(undefined)}
      >
        {[...counts].map(([cell, count]) => (
          <rect
            key={cell}
            class="cell"
            x={cell % columns}
            y={rows - 1 - Math.floor(cell / columns)}
            width={1}
            height={1}
            // The root keeps single spans visible beside crowds.
            fill-opacity={0.2 + 0.8 * Math.sqrt(count / most)}
          />
        ))}
        {cells && (
          <rect
            class="brush"
            x={cells.left}
            y={rows - 1 - cells.high}
            width={cells.right - cells.left + 1}
            height={cells.high - cells.low + 1}
          />
        )}
      </svg>
      <div class="heatmap-times" aria-hidden="true">
        <span>{formatTime(start - step)}</span>
        <span>{formatTime(start + (columns - 1) * step)}</span>
      </div>
      <p class="quiet" role="status" data-testid="heatmap-status">
        {spoken || "Point at a cell to read it, drag to select spans."}
      </p>
    </figure>
  );
}

interface Grid {
  rows: number;
  /** Where each row begins and the last one ends, in nanoseconds. */
  edges: number[];
  /** Number of spans by `row * columns + column`. */
  counts: Map<number, number>;
  most: number;
}

function gridOf(slots: HeatmapSlot[], start: number, step: number, columns: number): Grid {
  const { yMin = [0], yEnd } = slots[0] ?? {};
  const rows = Math.max(1, yMin.length);
  const floor = yMin[0] ?? 0;
  const counts = new Map<number, number>();
  for (const { timestamp, counts: inSlot = [] } of slots) {
    const column = Math.round((Number(timestamp) - start) / step);
    if (column < 0 || column >= columns) continue;
    inSlot.forEach((count, row) => {
      if (count > 0) counts.set(row * columns + column, count);
    });
  }
  // All values alike make one row, which stands for that value.
  const height = rows > 1 ? yMin[1]! - floor : 1;
  const edges = yEnd === undefined ? [] : [...yMin, yEnd];
  for (let row = edges.length; row <= rows; row++) edges.push(floor + row * height);
  return { rows, edges, counts, most: Math.max(1, ...counts.values()) };
}

function countIn(grid: Grid, { left, right, low, high }: Cells, columns: number): number {
  let sum = 0;
  for (const [cell, count] of grid.counts) {
    const [row, column] = [Math.floor(cell / columns), cell % columns];
    if (row >= low && row <= high && column >= left && column <= right) sum += count;
  }
  return sum;
}

function cellsOf(a: Corner, b: Corner): Cells {
  return {
    left: Math.min(a.column, b.column),
    right: Math.max(a.column, b.column),
    low: Math.min(a.row, b.row),
    high: Math.max(a.row, b.row),
  };
}

function cellsOfBrush(
  brush: Brush,
  start: number,
  step: number,
  columns: number,
  { rows, edges }: Grid,
): Cells | undefined {
  const left = Math.max(0, Math.round((brush.from - 1 - start) / step) + 1);
  const right = Math.min(columns - 1, Math.round((brush.until - start) / step));
  const nearest = (nanos: number) =>
    edges.reduce(
      (best, edge, at) => (Math.abs(edge - nanos) < Math.abs(edges[best]! - nanos) ? at : best),
      0,
    );
  const low = nearest(brush.min);
  const high = Math.min(rows - 1, nearest(brush.max) - 1);
  return left > right || low > high ? undefined : { left, right, low, high };
}
