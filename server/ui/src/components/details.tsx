// What a span says of itself: how it ended, its attributes, what happened in it, and what it lost.

import type { Attributes, Traced } from "../api.ts";
import { displayName } from "../flame/names.ts";
import { formatCount, formatNanos } from "../format.ts";
import { Fact } from "./facts.tsx";
import { Link } from "./link.tsx";

/** Facts for the head of a page. */
export function RanFacts({ traced }: { traced: Traced }) {
  return (
    <>
      <Fact term="Duration" id="duration" strong>
        {formatNanos(traced.durationNanos)}
      </Fact>
      <Fact term="Status" id="status" strong={traced.status === "error"}>
        <StatusText {...traced} />
      </Fact>
      {traced.kind !== "unspecified" && <Fact term="Kind">{traced.kind}</Fact>}
    </>
  );
}

function StatusText({ status, statusMessage }: Traced) {
  const title = status === "unset" ? "not set" : status;
  return (
    <span class={status === "error" ? "failed" : undefined}>
      {statusMessage === "" ? title : `${title}: ${displayName(statusMessage, 300)}`}
    </span>
  );
}

/** Attributes, events and links, folded. */
export function SpanDetails({ traced }: { traced: Traced }) {
  const { attributes, events, links, resource, dropped, start } = traced;
  const lost = Object.entries(dropped).filter(([, count]) => count > 0);
  const count = Object.keys(attributes).length;
  return (
    <details class="details" data-testid="details">
      <summary>
        Attributes ({formatCount(count)}){events.length > 0 && `, events (${formatCount(events.length)})`}
        {links.length > 0 && `, links (${formatCount(links.length)})`}
      </summary>
      <Table caption="Attributes" attributes={attributes} />
      {events.length > 0 && (
        <>
          <h3>Events</h3>
          <ol class="events">
            {events.map((event, at) => (
              <li key={at}>
                <span class="quiet">{formatNanos(Math.max(0, (event.at - start) * 1e6))}</span>{" "}
                <b class="name">{displayName(event.name, 200)}</b>
                <Table attributes={event.attributes} />
              </li>
            ))}
          </ol>
        </>
      )}
      {links.length > 0 && (
        <>
          <h3>Links</h3>
          <ul>
            {links.map(({ traceId, spanId }) => (
              <li key={spanId} class="mono">
                <Link to={`trace/${traceId}?span=${spanId}`}>{spanId}</Link>
              </li>
            ))}
          </ul>
        </>
      )}
      {resource && <Table caption="Resource" attributes={resource} />}
      {lost.length > 0 && (
        <p class="quiet">
          Not kept: {lost.map(([what, count]) => `${formatCount(count)} ${what}`).join(", ")}.
        </p>
      )}
    </details>
  );
}

function Table({ caption, attributes }: { caption?: string; attributes: Attributes }) {
  const pairs = Object.entries(attributes);
  if (pairs.length === 0)
    return caption === undefined ? null : <p class="quiet">No {caption.toLowerCase()}.</p>;
  return (
    <table class="attributes">
      {caption !== undefined && <caption>{caption}</caption>}
      <tbody>
        {pairs.map(([key, value]) => (
          <tr key={key}>
            <th scope="row" class="name">
              {displayName(key, 200)}
            </th>
            <td class="name">{valueText(value)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function valueText(value: unknown): string {
  return displayName(typeof value === "string" ? value : JSON.stringify(value), 4000);
}
