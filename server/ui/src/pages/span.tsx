// The page of one span: what it is, how much CPU it burned, and in which code.

import { useEffect, useRef } from "preact/hooks";
import { ApiError, explain, fetchSpan, type OwnRoute, type ProfileRoute, type SpanSummary } from "../api.ts";
import { selectRoute, selectStackTraces } from "../querier.ts";
import { RanFacts, SpanDetails } from "../components/details.tsx";
import { Fact, IdFact, TimeFact } from "../components/facts.tsx";
import { Link } from "../components/link.tsx";
import { LookUp } from "../components/lookup.tsx";
import { chooseType, lossText, Profile, readGraph, type LoadedProfile } from "../components/profile.tsx";
import { Failure, Loading } from "../components/states.tsx";
import { displayName } from "../flame/names.ts";
import type { Graph } from "../flame/tasks.ts";
import { formatCount, formatNanos, formatRate, formatShare } from "../format.ts";
import { parseId } from "../ids.ts";
import { useLoad } from "../load.ts";
import { around, rangeQuery, type RangeChoice } from "../range.ts";
import { navigate, setQuery } from "../router.ts";
import { CPU_TYPE, labelSelector, pathOf, selectionText, stackTraces, type Selection } from "../selection.ts";
import { FEW_SAMPLES, shareInterval } from "../stats.ts";

interface Props {
  /** As it stands in the address: perhaps no id at all. */
  id: string;
  query: URLSearchParams;
  dark: boolean;
}

export function SpanPage({ id, query, dark }: Props) {
  const parsed = parseId(id);
  const canonical = parsed.kind === "span" && parsed.id !== id ? parsed.id : undefined;
  useEffect(() => {
    if (canonical !== undefined) navigate(`span/${canonical}${location.search}`, "replace");
  }, [canonical]);
  if (canonical !== undefined) return null;
  if (parsed.kind === "span") return <KnownId id={parsed.id} query={query} dark={dark} />;
  return (
    <section class="notice">
      <h1>{parsed.kind === "trace" ? "This is a trace id" : "This is no span id"}</h1>
      <p>
        <code class="name">{displayName(id, 120)}</code>
      </p>
      <p>
        {parsed.kind === "trace"
          ? "A span id has 16 hexadecimal characters; 32 of them name a trace."
          : parsed.message}
      </p>
      <LookUp id="lookup" />
      <p>
        {parsed.kind === "trace" && <Link to={`trace/${parsed.id}`}>Spans of this trace</Link>}{" "}
        <Link to="">All spans</Link>
      </p>
    </section>
  );
}

function KnownId({ id, query, dark }: Props) {
  const early = useRef<EarlyGraph | undefined>(undefined);
  const { loaded, retry } = useLoad(id, (signal) => {
    early.current = startEarly(id, query, signal);
    return fetchSpan(id, signal);
  });
  const known = loaded.state === "done" ? loaded.value : undefined;
  useEffect(() => {
    document.title = known ? `${known.name ?? id} · ${known.service} · Spanflame` : `Span ${id} · Spanflame`;
  }, [id, known]);
  if (loaded.state === "loading") return <Loading what={`span ${id}`} />;
  if (loaded.state === "failed") {
    const traced = loaded.error instanceof ApiError ? loaded.error.traced : undefined;
    return (
      <>
        {traced && (
          <header class="span-head">
            <p class="eyebrow name">{displayName(traced.service, 120)}</p>
            <h1 class="name">{displayName(traced.name, 240)}</h1>
            <dl class="facts">
              <RanFacts traced={traced} />
              <IdFact term="Span" id={id} />
              <IdFact term="Trace" id={traced.traceId} to={`trace/${traced.traceId}?span=${id}`} />
            </dl>
            <SpanDetails traced={traced} />
          </header>
        )}
        <Failure
          title={failureTitle(loaded.error, id)}
          error={loaded.error}
          retry={retry}
          isPart={traced !== undefined}
        >
          <Link to="">All spans</Link>
        </Failure>
      </>
    );
  }
  return (
    <>
      <SpanHeader span={loaded.value} />
      <SpanProfile span={loaded.value} query={query} dark={dark} early={early} />
    </>
  );
}

/** Whose samples a span's graph shows. */
type Focus = "tree" | "self" | "service";

const FOCUSES: [Focus, string, string][] = [
  ["tree", "With children", "The span and those below it in the same process"],
  ["self", "This span only", "Without the spans below it"],
  ["service", "Whole service", "Everything that the service did in the profiles that hold this span"],
];

function focusOf(query: URLSearchParams): Focus {
  const asked = query.get("focus");
  return asked === "self" || asked === "service" ? asked : "tree";
}

/** Where the graph of a focus is. */
function routeOf(id: string, focus: Exclude<Focus, "service">, type: string | undefined): OwnRoute {
  return { of: "spans", id, type, ...(focus === "self" ? { rollUp: false } : {}) };
}

interface EarlyGraph {
  key: string;
  graph: Promise<Graph | undefined>;
}

/** Asks for the graph that the span will most likely need before its profile types are known. */
function startEarly(id: string, query: URLSearchParams, signal: AbortSignal): EarlyGraph | undefined {
  const focus = focusOf(query);
  if (focus === "service") return undefined;
  const route = routeOf(id, focus, query.get("type") || CPU_TYPE);
  const graph = readGraph(selectRoute(route, signal), "span", query);
  // Whoever needs it sees the failure; nobody may.
  graph.catch(() => {});
  return { key: JSON.stringify(route), graph };
}

interface ProfileProps {
  span: SpanSummary;
  query: URLSearchParams;
  dark: boolean;
  /** The graph, where it was asked for together with the span. */
  early?: { current: EarlyGraph | undefined };
}

/** A span's flame graph, of whatever the address says that it shows. */
export function SpanProfile({ span, query, dark, early }: ProfileProps) {
  const focus = focusOf(query);
  const type = chooseType(span.profileTypes, query.get("type") || undefined);
  const service: Selection = { service: span.service, from: span.from, until: span.until };
  const route: ProfileRoute =
    focus === "service"
      ? {
          of: "selection",
          selector: labelSelector(service),
          from: span.from,
          until: span.until,
          type: type?.id,
        }
      : routeOf(span.spanId, focus, type?.id);
  const run = async (signal: AbortSignal): Promise<LoadedProfile> => {
    if (route.of !== "selection") {
      const ownSamples = type?.id === CPU_TYPE ? span.ownSamples : 0;
      const samples = focus === "self" ? ownSamples : (type?.samples ?? span.samples);
      const begun = early?.current?.key === JSON.stringify(route) ? early.current.graph : undefined;
      // Once: what is asked for again is to be new.
      if (early) early.current = undefined;
      return { graph: await (begun ?? readGraph(selectRoute(route, signal), "span", query)), samples };
    }
    return serviceProfile(service, type?.id, query, signal);
  };
  const what = span.name === null ? span.spanId : displayName(span.name, 120);
  return (
    <>
      <div class="focus">
        <div class="segments" role="group" aria-label="Whose samples">
          {FOCUSES.map(([each, title, hint]) => (
            <button
              key={each}
              type="button"
              aria-pressed={focus === each}
              title={hint}
              onClick={() => setQuery({ focus: each === "tree" ? undefined : each, zoom: undefined }, "push")}
            >
              {title}
            </button>
          ))}
        </div>
      </div>
      <Profile
        load={{ key: `${span.spanId} ${type?.id} ${focus}`, run }}
        subject={focus === "service" ? "service" : "span"}
        title={focus === "service" ? `${span.service} around ${what}` : `${what} ${span.spanId}`}
        types={span.profileTypes}
        type={type}
        query={query}
        dark={dark}
        route={route}
        requestsOf={(name) => requestsPath(name, span.service, { preset: undefined, range: around(span) })}
        why={{
          ...(focus === "service"
            ? { selector: labelSelector(service), from: span.from, until: span.until }
            : { span: span.spanId }),
          ...(type ? { type: type.id } : {}),
        }}
      />
    </>
  );
}

/** What a service did in some time, and in how many samples. */
async function serviceProfile(
  service: Selection,
  type: string | undefined,
  query: URLSearchParams,
  signal: AbortSignal,
): Promise<LoadedProfile> {
  const { from, until } = service;
  const what = { selector: labelSelector(service), ...(from && until ? { from, until } : {}) };
  const [graph, explanation] = await Promise.all([
    readGraph(selectStackTraces(stackTraces(service, type), signal), "service", query),
    explain({ ...what, ...(type === undefined ? {} : { type }) }, signal),
  ]);
  return { graph, samples: explanation.samples.inWindow };
}

/** The page of the requests that spent most time in a function. */
export function requestsPath(functionName: string, service: string | undefined, time: RangeChoice): string {
  const params = new URLSearchParams({ function: functionName, ...rangeQuery(time) });
  if (service !== undefined) params.set("service", service);
  return `function?${params}`;
}

function SpanHeader({ span }: { span: SpanSummary }) {
  const { service, name, spanId, traceId, from, until, samples, cpuNanos } = span;
  const operation = { service, name: name ?? "" };
  return (
    <header class="span-head">
      <p class="eyebrow">
        <Link to={pathOf({ service, ...around(span) })} class="name">
          {displayName(service, 120)}
        </Link>
      </p>
      <h1 class="name">{name === null ? "(unnamed span)" : displayName(name, 240)}</h1>
      <dl class="facts">
        {span.traced && <RanFacts traced={span.traced} />}
        <Fact term="CPU time" id="cpu" strong>
          {formatNanos(cpuNanos)}
        </Fact>
        {span.childCount > 0 && (
          <Fact term="Without children" id="own-cpu">
            {formatNanos(span.ownCpuNanos)}
          </Fact>
        )}
        <Fact term="Samples" id="samples" strong>
          {formatCount(samples)}
        </Fact>
        {samples > 0 && cpuNanos > 0 && (
          <Fact
            term="Effective rate"
            id="rate"
            title={`One sample for each ${formatNanos(cpuNanos / samples)} of CPU time`}
          >
            {formatRate((samples * 1e9) / cpuNanos)}
          </Fact>
        )}
        <LossFact span={span} />
        <TimeFact from={from} until={until} />
        <IdFact term="Span" id={spanId} />
        {traceId !== null && <IdFact term="Trace" id={traceId} to={`trace/${traceId}?span=${spanId}`} />}
        {span.parentSpanId !== null && (
          <IdFact term="Parent span" id={span.parentSpanId} to={`span/${span.parentSpanId}`} />
        )}
        {hasOwnLocalRoot(span) && (
          <IdFact term="Local root" id={span.localRootSpanId} to={`span/${span.localRootSpanId}`} />
        )}
      </dl>
      <p class="onward">
        {name !== null && (
          <>
            <Link to={pathOf({ ...operation, ...around(span) })}>Operation</Link>
            <Link to={comparePath({ ...operation, typical: true }, { span: spanId })}>
              Compare with typical spans
            </Link>
          </>
        )}
        <Link to={comparePath(undefined, { span: spanId })}>Compare with…</Link>
      </p>
      {span.traced && <SpanDetails traced={span.traced} />}
      {span.children.length > 0 && <Children span={span} />}
      {samples < FEW_SAMPLES && samples > 0 && <Uncertainty samples={samples} />}
    </header>
  );
}

/** The page that compares two selections; the reader chooses a side that is left out. */
export function comparePath(left: Selection | undefined, right: Selection | undefined): string {
  const params = new URLSearchParams();
  if (left) params.set("left", selectionText(left));
  if (right) params.set("right", selectionText(right));
  return `compare?${params}`;
}

const SHOWN_CHILDREN = 6;

function Children({ span }: { span: SpanSummary }) {
  const hidden = span.childCount - Math.min(span.children.length, SHOWN_CHILDREN);
  return (
    <p class="children">
      <span class="quiet">Spans below:</span>
      {span.children.slice(0, SHOWN_CHILDREN).map((child) => (
        <span key={child.spanId}>
          <Link to={`span/${child.spanId}`} class="name">
            {child.name === null ? "(unnamed span)" : displayName(child.name, 80)}
          </Link>{" "}
          <span class="quiet">{formatNanos(child.cpuNanos)}</span>
        </span>
      ))}
      {hidden > 0 && span.traceId !== null && (
        <Link to={`trace/${span.traceId}?span=${span.spanId}`}>and {formatCount(hidden)} more</Link>
      )}
    </p>
  );
}

/** What the senders of the profiles that hold the span say that they lost. */
function LossFact({ span }: { span: SpanSummary }) {
  const { spanId, service, from, until } = span;
  const { loaded } = useLoad(`losses ${spanId}`, (signal) =>
    explain({ span: spanId, selector: labelSelector({ service }), from, until }, signal),
  );
  if (loaded.state !== "done") return null;
  const { losses } = loaded.value;
  return (
    <Fact
      term="Lost meanwhile"
      id="losses"
      title="Samples that the service's profiler says it lost in that time"
    >
      {losses.length === 0 ? "none reported" : lossText(losses)}
    </Fact>
  );
}

/** Whether the local root is another span than this one and the parent that is named already. */
function hasOwnLocalRoot(span: SpanSummary): span is SpanSummary & { localRootSpanId: string } {
  const root = span.localRootSpanId;
  return root !== null && root !== span.spanId && root !== span.parentSpanId;
}

function Uncertainty({ samples }: { samples: number }) {
  const { low, high } = shareInterval(0.5, samples);
  return (
    <p class="caution" data-testid="uncertainty">
      <b>Few samples.</b> Shares rest on {samples === 1 ? "a single sample" : `${samples} samples`}: a frame
      shown at 50% may truly be anywhere from {formatShare(low)} to {formatShare(high)} (95% confidence).
    </p>
  );
}

function failureTitle(error: Error, id: string): string {
  if (!(error instanceof ApiError)) return "The span cannot be shown";
  if (error.reason === "unknown_span" || error.status === 404) return `No profile for span ${id}`;
  return error.status === 0 ? "No connection" : "The span cannot be shown";
}
