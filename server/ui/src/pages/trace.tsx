// A trace: its spans as a waterfall with the CPU each burned, and beside it the flame graph of one of them or of all.

import { useEffect } from "preact/hooks";
import { ApiError, fetchSpan, fetchTrace, type TraceSpan, type TraceSummary } from "../api.ts";
import { RanFacts, SpanDetails } from "../components/details.tsx";
import { Fact, IdFact, TimeFact } from "../components/facts.tsx";
import { Link } from "../components/link.tsx";
import { LookUp } from "../components/lookup.tsx";
import { chooseType, Profile, readGraph } from "../components/profile.tsx";
import { Failure, Loading } from "../components/states.tsx";
import { Waterfall } from "../components/waterfall.tsx";
import { displayName } from "../flame/names.ts";
import { formatCount, formatNanos } from "../format.ts";
import { parseId } from "../ids.ts";
import { selectRoute } from "../querier.ts";
import { useLoad } from "../load.ts";
import { around } from "../range.ts";
import { navigate, setQuery } from "../router.ts";
import { pathOf } from "../selection.ts";
import { comparePath, requestsPath, SpanProfile } from "./span.tsx";

interface Props {
  /** As it stands in the address: perhaps no id at all. */
  id: string;
  query: URLSearchParams;
  dark: boolean;
}

export function TracePage({ id, query, dark }: Props) {
  const parsed = parseId(id);
  const canonical = parsed.kind === "trace" && parsed.id !== id ? parsed.id : undefined;
  useEffect(() => {
    if (canonical !== undefined) navigate(`trace/${canonical}${location.search}`, "replace");
  }, [canonical]);
  if (canonical !== undefined) return null;
  if (parsed.kind === "trace") return <KnownTrace id={parsed.id} query={query} dark={dark} />;
  return (
    <section class="notice">
      <h1>{parsed.kind === "span" ? "This is a span id" : "This is no trace id"}</h1>
      <p>
        <code class="name">{displayName(id, 120)}</code>
      </p>
      <p>A trace id has 32 hexadecimal characters.</p>
      <LookUp id="lookup" />
      <p>
        {parsed.kind === "span" && <Link to={`span/${parsed.id}`}>Open this span</Link>}{" "}
        <Link to="">All spans</Link>
      </p>
    </section>
  );
}

function KnownTrace({ id, query, dark }: Props) {
  const { loaded, retry } = useLoad(id, (signal) => fetchTrace(id, signal));
  const known = loaded.state === "done" ? loaded.value : undefined;
  useEffect(() => {
    const root = known && titleOf(known);
    document.title = root ? `${root} · trace · Spanflame` : `Trace ${id} · Spanflame`;
  }, [id, known]);
  if (loaded.state === "loading") return <Loading what={`trace ${id}`} />;
  if (loaded.state === "failed") {
    const isUnknown = loaded.error instanceof ApiError && loaded.error.status === 404;
    return (
      <Failure
        title={isUnknown ? `No profile for trace ${id}` : "The trace cannot be shown"}
        error={loaded.error}
        retry={retry}
      >
        <Link to="">All spans</Link>
      </Failure>
    );
  }
  const trace = loaded.value;
  const chosen = trace.spans.find(({ spanId }) => spanId === query.get("span"));
  return (
    <>
      <TraceHeader trace={trace} />
      <div class="beside">
        <Waterfall
          trace={trace}
          chosen={chosen?.spanId}
          onChoose={(spanId) => setQuery({ span: spanId, zoom: undefined, fn: undefined }, "push")}
        />
        <div class="beside-main">
          {chosen ? (
            <ChosenSpan key={chosen.spanId} span={chosen} query={query} dark={dark} />
          ) : (
            <WholeTrace trace={trace} query={query} dark={dark} />
          )}
        </div>
      </div>
    </>
  );
}

function titleOf(trace: TraceSummary): string | undefined {
  const named =
    trace.spans.find(({ depth, name }) => depth === 0 && name !== null) ??
    trace.spans.find(({ name }) => name !== null);
  return named?.name === undefined || named.name === null ? undefined : displayName(named.name, 240);
}

function TraceHeader({ trace }: { trace: TraceSummary }) {
  return (
    <header class="span-head">
      <p class="eyebrow">
        {trace.services.slice(0, 12).map((service) => (
          <Link key={service} to={pathOf({ service, ...around(trace) })} class="name">
            {displayName(service, 80)}
          </Link>
        ))}
      </p>
      <h1 class="name">{titleOf(trace) ?? "(unnamed trace)"}</h1>
      <dl class="facts">
        {trace.traced && (
          <Fact term="Duration" id="duration" strong>
            {formatNanos(trace.traced.durationNanos)}
          </Fact>
        )}
        {trace.traced && trace.traced.errorCount > 0 && (
          <Fact term="Spans with errors" id="errors" strong>
            <span class="failed">{formatCount(trace.traced.errorCount)}</span>
          </Fact>
        )}
        <Fact term="CPU time" id="cpu" strong>
          {formatNanos(trace.cpuNanos)}
        </Fact>
        <Fact term="Samples" id="samples" strong>
          {formatCount(trace.samples)}
        </Fact>
        <Fact term="Spans with samples" id="spans">
          {formatCount(trace.spans.filter(({ samples }) => samples > 0).length)} of{" "}
          {formatCount(trace.spanCount)}
        </Fact>
        <TimeFact from={trace.from} until={trace.until} />
        <IdFact term="Trace" id={trace.traceId} />
      </dl>
      <p class="onward">
        <Link to={comparePath(undefined, { trace: trace.traceId })}>Compare with…</Link>
      </p>
      {trace.traced?.truncated && (
        <p class="caution" data-testid="truncated">
          <b>This trace is cut short.</b> It has more spans than the server reads of one trace: the first{" "}
          {formatCount(trace.traced.spanCount)} are shown, and what they cost.
        </p>
      )}
      {trace.traced?.attributesLeftOut && (
        <p class="quiet small">
          Later spans are listed without attributes, events and links, for their size.
        </p>
      )}
    </header>
  );
}

function WholeTrace({ trace, query, dark }: { trace: TraceSummary; query: URLSearchParams; dark: boolean }) {
  const type = chooseType(trace.profileTypes, query.get("type") || undefined);
  const route = { of: "traces", id: trace.traceId, type: type?.id } as const;
  return (
    <>
      <div class="section-head">
        <h2>Whole trace</h2>
      </div>
      <Profile
        load={{
          key: `${trace.traceId} ${type?.id}`,
          run: async (signal) => ({
            graph: await readGraph(selectRoute(route, signal), "trace", query),
            samples: type?.samples ?? trace.samples,
          }),
        }}
        subject="trace"
        title={`trace ${trace.traceId}`}
        types={trace.profileTypes}
        type={type}
        query={query}
        dark={dark}
        route={route}
        requestsOf={(name) => requestsPath(name, undefined, { preset: undefined, range: around(trace) })}
        why={{ trace: trace.traceId, ...(type ? { type: type.id } : {}) }}
      />
    </>
  );
}

function ChosenSpan({ span, query, dark }: { span: TraceSpan; query: URLSearchParams; dark: boolean }) {
  const { traced } = span;
  const { loaded, retry } = useLoad(span.spanId, (signal) => fetchSpan(span.spanId, signal));
  return (
    <>
      <div class="section-head">
        <h2 class="name">{span.name === null ? "(unnamed span)" : displayName(span.name, 160)}</h2>
        <Link to={`span/${span.spanId}`}>Open the span</Link>
      </div>
      {traced && (
        <>
          <dl class="facts">
            <RanFacts traced={traced} />
          </dl>
          <SpanDetails traced={traced} />
        </>
      )}
      {loaded.state === "loading" && <Loading what="the span" />}
      {loaded.state === "failed" && (
        <Failure title="No samples in this process" error={loaded.error} retry={retry} isPart />
      )}
      {loaded.state === "done" && <SpanProfile span={loaded.value} query={query} dark={dark} />}
    </>
  );
}
