// The home page: look a span up by its id, or choose one from those that burned most CPU.

import { fetchSpans, type SpanListEntry } from "../api.ts";
import { under } from "../base.ts";
import { CopyButton } from "../components/copy.tsx";
import { Link } from "../components/link.tsx";
import { LookUp } from "../components/lookup.tsx";
import { Failure, Loading } from "../components/states.tsx";
import { displayName } from "../flame/names.ts";
import { formatAge, formatCount, formatInterval, formatNanos } from "../format.ts";
import { useLoad } from "../load.ts";

const LIMIT = 100;

export function HomePage({ query }: { query: URLSearchParams }) {
  const service = query.get("service") || undefined;
  const traceId = query.get("trace") || undefined;
  const { loaded, retry } = useLoad(JSON.stringify([service, traceId]), (signal) =>
    fetchSpans({ service, traceId, limit: LIMIT }, signal),
  );
  const isFiltered = service !== undefined || traceId !== undefined;
  return (
    <>
      <section class="hero">
        <h1>Which code did this span burn CPU in?</h1>
        <LookUp id="lookup" key={traceId} initial={traceId ?? ""} />
      </section>
      {loaded.state === "loading" && <Loading what="spans" />}
      {loaded.state === "failed" && (
        <Failure title="The spans cannot be listed" error={loaded.error} retry={retry} isPart />
      )}
      {loaded.state === "done" &&
        loaded.value.length === 0 &&
        (isFiltered ? <NoMatch /> : <FirstProfile retry={retry} />)}
      {loaded.state === "done" && loaded.value.length > 0 && (
        <section>
          <div class="section-head">
            <h2 id="spans-title">Spans with most CPU</h2>
            {isFiltered && (
              <p class="filters">
                {service !== undefined && (
                  <span>
                    service <b class="name">{displayName(service, 80)}</b>
                  </span>
                )}
                {traceId !== undefined && (
                  <span>
                    trace <b class="mono">{traceId}</b>
                  </span>
                )}
                <Link to="">Show all</Link>
              </p>
            )}
            <button type="button" onClick={retry}>
              Refresh
            </button>
          </div>
          <SpanTable spans={loaded.value} />
          {loaded.value.length === LIMIT && (
            <p class="quiet">The first {LIMIT}; look others up by their id.</p>
          )}
        </section>
      )}
    </>
  );
}

function SpanTable({ spans }: { spans: SpanListEntry[] }) {
  const now = Date.now();
  const most = Math.max(...spans.map((span) => span.cpuNanos), 1);
  return (
    <div class="table-box" role="region" aria-labelledby="spans-title" tabIndex={0}>
      <table class="spans">
        <thead>
          <tr>
            <th scope="col">Span</th>
            <th scope="col">Service</th>
            <th scope="col" class="number">
              CPU time
            </th>
            <th scope="col" class="number">
              Samples
            </th>
            <th scope="col">Trace</th>
            <th scope="col">When</th>
          </tr>
        </thead>
        <tbody>
          {spans.map((span) => (
            <tr key={span.spanId}>
              <td class="wide">
                <Link to={`span/${span.spanId}`} class="name">
                  {span.name === null ? "(unnamed span)" : displayName(span.name, 160)}
                </Link>
                <div class="mono quiet small">{span.spanId}</div>
              </td>
              <td>
                <Link to={`?service=${encodeURIComponent(span.service)}`} class="name plain">
                  {displayName(span.service, 80)}
                </Link>
              </td>
              <td class="number">
                {formatNanos(span.cpuNanos)}
                <div class="bar" aria-hidden="true">
                  <div style={{ width: `${(100 * span.cpuNanos) / most}%` }} />
                </div>
              </td>
              <td class="number">{formatCount(span.samples)}</td>
              <td class="mono">
                {span.traceId === null ? (
                  <span class="quiet">–</span>
                ) : (
                  <Link to={`?trace=${span.traceId}`} class="plain" title={span.traceId}>
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
      </table>
    </div>
  );
}

function NoMatch() {
  return (
    <section class="notice">
      <h2>No span matches</h2>
      <p>No stored profile holds samples for this selection.</p>
      <p>
        <Link to="">Show all spans</Link>
      </p>
    </section>
  );
}

function FirstProfile({ retry }: { retry: () => void }) {
  const address = under("").replace(/\/$/, "");
  const start = `PYROSCOPE_SERVER_ADDRESS=${address} OTEL_SERVICE_NAME=my-service ./my-service`;
  return (
    <section class="notice">
      <h2>No span profiles yet</h2>
      <p>
        The server runs and waits for the first profile. Add the <code>spanflame</code> crate to a Rust
        service that has OpenTelemetry traces, start its profiler, and point it here:
      </p>
      <pre tabIndex={0} aria-label="Example">
        {`let _profiler = spanflame::Profiler::builder().start()?;`}
      </pre>
      <p class="with-copy">
        <code class="name">{start}</code>
        <CopyButton text={start} what="command" />
      </p>
      <p class="quiet">
        A profile arrives every few seconds; a span appears here once it has burned enough CPU to be sampled.
        Any Pyroscope client that labels its samples with <code>span_id</code> works as well.
      </p>
      <p class="actions">
        <button type="button" class="primary" onClick={retry}>
          Look again
        </button>
      </p>
    </section>
  );
}
