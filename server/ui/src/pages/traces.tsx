// Traces by what their spans say: service, span name, duration, status, attributes, time.

import { useEffect } from "preact/hooks";
import { fetchTraces, type FoundTrace } from "../api.ts";
import { Link } from "../components/link.tsx";
import { Pages } from "../components/pages.tsx";
import { RangePicker } from "../components/rangepicker.tsx";
import { SendTraces } from "../components/sendtraces.tsx";
import { Failure, Loading } from "../components/states.tsx";
import { ShareBar, Table } from "../components/table.tsx";
import { displayName } from "../flame/names.ts";
import { formatCount, formatNanos, formatTime } from "../format.ts";
import { useLoad } from "../load.ts";
import { readRange, resolveRange } from "../range.ts";
import { setQuery } from "../router.ts";

const PAGE = 50;

/** Boxes of the form: parameter, label, example. */
const BOXES = [
  ["service", "Service", "checkout"],
  ["name", "Span name", "GET /pay"],
  ["min", "At least", "100ms"],
  ["max", "At most", "2s"],
  ["attributes", "Attributes", "http.route=/pay user=ada"],
] as const;

export function TracesPage({ query }: { query: URLSearchParams }) {
  const choice = readRange(query);
  const text = (name: string) => query.get(name) || undefined;
  const filter = {
    service: text("service"),
    name: text("name"),
    minDuration: text("min"),
    maxDuration: text("max"),
    status: text("status"),
    attributes: splitAttributes(query.get("attributes") ?? ""),
    limit: PAGE,
  };
  const key = JSON.stringify([filter, choice]);
  const { loaded, retry } = useLoad(key, async (signal) => {
    const range = await resolveRange(choice, signal);
    return { range, found: await fetchTraces({ ...filter, ...range }, signal) };
  });
  useEffect(() => {
    document.title = "Traces · Spanflame";
  }, []);
  const done = loaded.state === "done" ? loaded.value : undefined;
  return (
    <>
      <div class="page-head">
        <h1>Traces</h1>
        <RangePicker choice={choice} range={done?.range} onRefresh={retry} />
      </div>
      <Form query={query} />
      {loaded.state === "loading" && <Loading what="traces" />}
      {loaded.state === "failed" && (
        <Failure title="The traces cannot be found" error={loaded.error} retry={retry} isPart />
      )}
      {done && done.found.traces.length === 0 && (
        <section class="notice" data-testid="empty">
          <h2>{done.found.known ? "No trace matches" : "No traces here yet"}</h2>
          {done.found.known ? (
            <p>
              In this time no trace has a span that is all that is asked for. Choose a longer time, or less.
            </p>
          ) : (
            <SendTraces />
          )}
        </section>
      )}
      {done && done.found.traces.length > 0 && (
        <Pages
          key={key}
          first={done.found}
          size={PAGE}
          more={(after, signal) => fetchTraces({ ...filter, ...done.range, after }, signal)}
          join={(shown, page) => ({ ...page, traces: [...shown.traces, ...page.traces] })}
        >
          {({ traces }) => <TraceTable traces={traces} />}
        </Pages>
      )}
    </>
  );
}

/** `key=value` pairs with spaces between; a value with spaces stands in double quotes. */
export function splitAttributes(text: string): string[] {
  const found = text.matchAll(/([^\s="]+)=(?:"([^"]*)"|(\S*))/g);
  return [...found].map(([, key, quoted, plain]) => `${key}=${quoted ?? plain}`);
}

function Form({ query }: { query: URLSearchParams }) {
  return (
    <form
      class="filter-form trace-form"
      role="search"
      aria-label="Find traces"
      key={query.toString()}
      onSubmit={(event) => {
        event.preventDefault();
        const form = new FormData(event.currentTarget);
        const names = [...BOXES.map(([name]) => name), "status"];
        setQuery(
          Object.fromEntries(names.map((name) => [name, String(form.get(name) ?? "").trim()])),
          "push",
        );
      }}
    >
      {BOXES.map(([name, label, example]) => (
        <label key={name}>
          <span>{label}</span>
          <input
            name={name}
            type="text"
            defaultValue={query.get(name) ?? ""}
            placeholder={example}
            autocomplete="off"
            spellcheck={false}
            maxLength={4000}
          />
        </label>
      ))}
      <label>
        <span>Status</span>
        <select name="status" defaultValue={query.get("status") ?? ""}>
          <option value="">Any</option>
          <option value="error">Error</option>
          <option value="ok">OK</option>
          <option value="unset">Not set</option>
        </select>
      </label>
      <button type="submit" class="primary">
        Find
      </button>
    </form>
  );
}

function TraceTable({ traces }: { traces: FoundTrace[] }) {
  const longest = Math.max(...traces.map(({ durationNanos }) => durationNanos), 1);
  return (
    <Table
      class="traces"
      label="Traces"
      columns={[
        "Trace",
        "Matching span",
        { number: "Duration" },
        { number: "CPU time" },
        { number: "Spans" },
        "Began",
      ]}
    >
      <tbody>
        {traces.map((trace) => (
          <tr key={trace.traceId}>
            <td class="wide">
              <Link to={`trace/${trace.traceId}?span=${trace.matched.spanId}`} class="name">
                {trace.name === "" ? "(unnamed span)" : displayName(trace.name, 160)}
              </Link>
              <div class="name quiet small">{displayName(trace.services.join(", "), 160)}</div>
            </td>
            <td>
              <span class="name">{displayName(trace.matched.name, 120)}</span>
              <div class="quiet small">
                {formatNanos(trace.matched.durationNanos)}
                {trace.matchCount > 1 && `, one of ${formatCount(trace.matchCount)}`}
              </div>
            </td>
            <td class="number">
              {formatNanos(trace.durationNanos)}
              <ShareBar share={trace.durationNanos / longest} />
            </td>
            <td class="number">{trace.samples === 0 ? "–" : formatNanos(trace.cpuNanos)}</td>
            <td class="number">
              {formatCount(trace.spanCount)}
              {trace.errorCount > 0 && (
                <div class="failed small">
                  {formatCount(trace.errorCount)} {trace.errorCount === 1 ? "error" : "errors"}
                </div>
              )}
            </td>
            <td class="when">{formatTime(trace.start)}</td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}
