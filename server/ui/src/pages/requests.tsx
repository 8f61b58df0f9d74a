// From a function to the requests that spent most time under it.

import { useEffect } from "preact/hooks";
import { fetchSpanPage, type SpanListEntry } from "../api.ts";
import { selectSeries } from "../querier.ts";
import { CopyButton } from "../components/copy.tsx";
import { Link } from "../components/link.tsx";
import { RangePicker } from "../components/rangepicker.tsx";
import { Failure, Loading } from "../components/states.tsx";
import { Table } from "../components/table.tsx";
import { displayName } from "../flame/names.ts";
import { formatCount, formatNanos, formatShare } from "../format.ts";
import { useLoad } from "../load.ts";
import { readRange, resolveRange, stepsOf, type RangeChoice, type TimeRange } from "../range.ts";
import { navigate } from "../router.ts";
import { CPU_TYPE, labelSelector } from "../selection.ts";
import { operationPath, servicesPath } from "./services.tsx";
import { requestsPath } from "./span.tsx";

const SHOWN = 100;

interface Found {
  range: TimeRange | undefined;
  requests: SpanListEntry[];
  /** Whether there are further requests. */
  hasMore: boolean;
  operations: { service: string; name: string; under: number }[];
}

export function RequestsPage({ query }: { query: URLSearchParams }) {
  const functionName = query.get("function") ?? "";
  const service = query.get("service") || undefined;
  const choice = readRange(query);
  const { loaded, retry } = useLoad(JSON.stringify([functionName, service, choice]), (signal) =>
    functionName === ""
      ? Promise.resolve({ range: undefined, requests: [], hasMore: false, operations: [] })
      : find(functionName, service, choice, signal),
  );
  useEffect(() => {
    document.title = `Requests in ${displayName(functionName, 80)} · Spanflame`;
  }, [functionName]);
  return (
    <>
      <header class="span-head">
        <p class="eyebrow">
          <span>Requests that spent most CPU time in</span>
          {service !== undefined && (
            <>
              <Link to={servicesPath(service, choice)} class="name">
                {displayName(service, 120)}
              </Link>
              <Link to={requestsPath(functionName, undefined, choice)}>Search all services</Link>
            </>
          )}
        </p>
        <div class="page-head">
          <h1 class="name function-name">
            {functionName === "" ? "Which function?" : displayName(functionName, 300)}
            {functionName !== "" && <CopyButton text={functionName} what="function name" />}
          </h1>
          <RangePicker
            choice={choice}
            range={loaded.state === "done" ? loaded.value.range : undefined}
            onRefresh={retry}
          />
        </div>
      </header>
      {functionName === "" && <AskFunction />}
      {loaded.state === "loading" && <Loading what="requests" />}
      {loaded.state === "failed" && (
        <Failure title="The requests cannot be found" error={loaded.error} retry={retry} isPart />
      )}
      {loaded.state === "done" && functionName !== "" && <Findings found={loaded.value} choice={choice} />}
    </>
  );
}

async function find(
  functionName: string,
  service: string | undefined,
  choice: RangeChoice,
  signal: AbortSignal,
): Promise<Found> {
  const range = await resolveRange(choice, signal);
  const request = {
    profileTypeID: CPU_TYPE,
    labelSelector: labelSelector(service === undefined ? {} : { service }),
    ...stepsOf(range, 1),
    groupBy: ["service_name", "span_name"],
  };
  const [page, series] = await Promise.all([
    fetchSpanPage({ function: functionName, service, ...range, limit: SHOWN }, signal),
    selectSeries(request, signal, { frames: [functionName] }),
  ]);
  const operations = series.map(({ labels = [], points = [] }) => {
    const label = (wanted: string) => labels.find(({ name }) => name === wanted)?.value ?? "";
    const under = points.reduce((sum, { value }) => sum + (value ?? 0), 0);
    return { service: label("service_name"), name: label("span_name"), under };
  });
  return {
    range,
    requests: page.spans,
    hasMore: page.next !== undefined,
    operations: operations.filter(({ under }) => under > 0).sort((a, b) => b.under - a.under),
  };
}

function Findings({
  found: { requests, hasMore, operations },
  choice,
}: {
  found: Found;
  choice: RangeChoice;
}) {
  if (operations.length === 0) {
    return (
      <section class="notice" data-testid="empty">
        <h2>No sample of this function</h2>
        <p>In this time no stored stack holds a function of exactly this name. Choose a longer time.</p>
      </section>
    );
  }
  const hasDurations = requests.some(({ durationNanos }) => durationNanos !== undefined);
  const whole = operations.reduce((sum, { under }) => sum + under, 0);
  return (
    <>
      <section>
        <div class="section-head">
          <h2 id="by-request">Requests</h2>
          <p class="quiet">
            {hasMore
              ? `The ${SHOWN} spans with most CPU time in the function`
              : "All spans with CPU time in the function"}
          </p>
        </div>
        {requests.length === 0 ? (
          <p class="quiet">The function ran in no span.</p>
        ) : (
          <Table
            class="requests"
            labelledBy="by-request"
            columns={[
              "Span",
              "Service",
              hasDurations && { number: "Duration" },
              { number: "In the function" },
              { number: "Share of the span" },
              "Trace",
            ]}
          >
            <tbody>
              {requests.map(({ spanId, traceId, service, name, functionNanos = 0, ...span }) => (
                <tr key={spanId}>
                  <td>
                    <Link to={`span/${spanId}`} class="name">
                      {name === null ? "(unnamed span)" : displayName(name, 160)}
                    </Link>
                    <div class="mono quiet small">{spanId}</div>
                  </td>
                  <td class="name">{displayName(service, 80)}</td>
                  {hasDurations && (
                    <td class="number">
                      {span.durationNanos === undefined ? "–" : formatNanos(span.durationNanos)}
                    </td>
                  )}
                  <td class="number">{formatNanos(functionNanos)}</td>
                  <td class="number">
                    {formatShare(Math.min(1, functionNanos / Math.max(span.cpuNanos, 1)))}
                  </td>
                  <td class="mono">
                    {traceId ? (
                      <Link to={`trace/${traceId}?span=${spanId}`} class="plain" title={traceId}>
                        {traceId.slice(0, 8)}…
                      </Link>
                    ) : (
                      "–"
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </Table>
        )}
      </section>
      <section>
        <div class="section-head">
          <h2 id="by-operation">By operation</h2>
          <p class="quiet">{formatNanos(whole)} of CPU time in the function</p>
        </div>
        <Table
          class="by-operation"
          labelledBy="by-operation"
          columns={["Operation", "Service", { number: "In the function" }, { number: "Share" }]}
        >
          <tbody>
            {operations.slice(0, SHOWN).map(({ service, name, under }) => (
              <tr key={`${service}\n${name}`}>
                <td>
                  <Link to={operationPath(service, name, choice)} class="name">
                    {name === "" ? "In no span" : displayName(name, 160)}
                  </Link>
                </td>
                <td class="name">{displayName(service, 80)}</td>
                <td class="number">{formatNanos(under)}</td>
                <td class="number">{formatShare(under / whole)}</td>
              </tr>
            ))}
          </tbody>
        </Table>
        {operations.length > SHOWN && <p class="quiet">and {formatCount(operations.length - SHOWN)} more</p>}
      </section>
    </>
  );
}

function AskFunction() {
  return (
    <form
      class="lookup"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        const name = new FormData(event.currentTarget).get("function");
        navigate(`function?${new URLSearchParams({ function: String(name ?? "").trim() })}`);
      }}
    >
      <label for="function">Whole name of the function</label>
      <div class="row">
        <input id="function" name="function" type="text" class="mono" spellcheck={false} autocomplete="off" />
        <button type="submit" class="primary">
          Find
        </button>
      </div>
    </form>
  );
}
