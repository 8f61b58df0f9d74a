// A list of spans with what each cost.

import type { SpanListEntry } from "../api.ts";
import { displayName } from "../flame/names.ts";
import { formatAge, formatCount, formatInterval, formatNanos } from "../format.ts";
import { around } from "../range.ts";
import { pathOf } from "../selection.ts";
import { Link } from "./link.tsx";
import { ShareBar, Table } from "./table.tsx";

interface Props {
  spans: SpanListEntry[];
  /** What the list is called: the id of its heading. */
  labelledBy: string;
}

export function SpanTable({ spans, labelledBy }: Props) {
  const now = Date.now();
  const hasDurations = spans.some(({ durationNanos }) => typeof durationNanos === "number");
  const most = Math.max(...spans.map((span) => span.cpuNanos), 1);
  return (
    <Table
      class="spans"
      labelledBy={labelledBy}
      columns={[
        "Span",
        "Service",
        hasDurations && { number: "Duration" },
        { number: "CPU time" },
        { number: "Samples" },
        "Trace",
        "When",
      ]}
    >
      <tbody>
        {spans.map((span) => (
          <tr key={span.spanId}>
            <td class="wide">
              <Link to={`span/${span.spanId}`} class="name">
                {span.name === null ? "(unnamed span)" : displayName(span.name, 160)}
              </Link>
              <div class="mono quiet small">
                {span.spanId}
                {span.status === "error" && <span class="failed"> error</span>}
              </div>
            </td>
            <td>
              <Link to={pathOf({ service: span.service, ...around(span) })} class="name plain">
                {displayName(span.service, 80)}
              </Link>
            </td>
            {hasDurations && (
              <td class="number">
                {typeof span.durationNanos === "number" ? formatNanos(span.durationNanos) : "–"}
              </td>
            )}
            <td class="number">
              {formatNanos(span.cpuNanos)}
              <ShareBar share={span.cpuNanos / most} />
            </td>
            <td class="number">{formatCount(span.samples)}</td>
            <td class="mono">
              {span.traceId === null ? (
                <span class="quiet">–</span>
              ) : (
                <Link to={`trace/${span.traceId}?span=${span.spanId}`} class="plain" title={span.traceId}>
                  {span.traceId.slice(0, 8)}…
                </Link>
              )}
            </td>
            <td class="when" title={formatInterval(span.from, span.until)}>
              {formatAge(span.until, now)}
            </td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}
