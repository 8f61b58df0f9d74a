// The page of one span: what it is, how much CPU it burned, and in which code.

import { fetchFlameGraph, fetchSpan, type ProfileTypeSummary, type SpanSummary } from "../api.ts";
import { CopyButton } from "../components/copy.tsx";
import { Link } from "../components/link.tsx";
import { LookUp } from "../components/lookup.tsx";
import { Failure, Loading } from "../components/states.tsx";
import { ApiError } from "../api.ts";
import { decodeFlameGraph } from "../flame/decode.ts";
import { displayName } from "../flame/names.ts";
import { FlamePanel } from "../flame/panel.tsx";
import { formatCount, formatInterval, formatNanos, formatShare } from "../format.ts";
import { parseId } from "../ids.ts";
import { useLoad } from "../load.ts";
import { navigate } from "../router.ts";
import { FEW_SAMPLES, shareInterval } from "../stats.ts";
import { useEffect } from "preact/hooks";

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
        {parsed.kind === "trace" && <Link to={`?trace=${parsed.id}`}>Spans of this trace</Link>}{" "}
        <Link to="">All spans</Link>
      </p>
    </section>
  );
}

function KnownId({ id, query, dark }: Props) {
  const type = query.get("type") || undefined;
  const span = useLoad(id, (signal) => fetchSpan(id, signal));
  const graph = useLoad(`${id} ${type}`, async (signal) =>
    decodeFlameGraph(await fetchFlameGraph(id, type, signal)),
  );
  const known = span.loaded.state === "done" ? span.loaded.value : undefined;
  useEffect(() => {
    document.title = known ? `${known.name ?? id} · ${known.service} · Spanflame` : `Span ${id} · Spanflame`;
  }, [id, known]);

  const retry = () => {
    span.retry();
    graph.retry();
  };
  if (span.loaded.state === "loading") return <Loading what={`span ${id}`} />;
  if (span.loaded.state === "failed") {
    return (
      <Failure title={failureTitle(span.loaded.error, id)} error={span.loaded.error} retry={retry}>
        <Link to="">All spans</Link>
      </Failure>
    );
  }
  const summary = span.loaded.value;
  const shown = chooseType(summary, type);
  return (
    <>
      <SpanHeader span={summary} />
      {graph.loaded.state === "loading" && <Loading what="the flame graph" />}
      {graph.loaded.state === "failed" && (
        <Failure title="The flame graph cannot be shown" error={graph.loaded.error} retry={retry} isPart />
      )}
      {graph.loaded.state === "done" &&
        (graph.loaded.value === undefined ? (
          <section class="notice">
            <h2>No samples of this profile type</h2>
            <p>The span is known, but none of its samples carry a value of {typeLabel(shown)}.</p>
          </section>
        ) : (
          <FlamePanel
            full={graph.loaded.value}
            unit={shown?.unit ?? "nanoseconds"}
            samples={shown?.samples ?? summary.samples}
            types={summary.profileTypes.map((each) => ({ id: each.id, label: typeLabel(each) }))}
            type={shown?.id ?? ""}
            query={query}
            dark={dark}
          />
        ))}
    </>
  );
}

function SpanHeader({ span }: { span: SpanSummary }) {
  return (
    <header class="span-head">
      <p class="eyebrow">
        <Link to={`?service=${encodeURIComponent(span.service)}`} class="name">
          {displayName(span.service, 120)}
        </Link>
      </p>
      <h1 class="name">{span.name === null ? "(unnamed span)" : displayName(span.name, 240)}</h1>
      <dl class="facts">
        <div class="fact strong">
          <dt>CPU time</dt>
          <dd data-testid="cpu">{formatNanos(span.cpuNanos)}</dd>
        </div>
        <div class="fact strong">
          <dt>Samples</dt>
          <dd data-testid="samples">{formatCount(span.samples)}</dd>
        </div>
        <div class="fact">
          <dt>Profiled</dt>
          <dd>
            <time dateTime={new Date(span.from).toISOString()} title={utcInterval(span)}>
              {formatInterval(span.from, span.until)}
            </time>
          </dd>
        </div>
        <IdFact term="Span" id={span.spanId} />
        {span.traceId !== null && <IdFact term="Trace" id={span.traceId} to={`?trace=${span.traceId}`} />}
        {span.parentSpanId !== null && (
          <IdFact term="Parent span" id={span.parentSpanId} to={`span/${span.parentSpanId}`} />
        )}
        {span.localRootSpanId !== null && span.localRootSpanId !== span.spanId && (
          <IdFact term="Local root" id={span.localRootSpanId} to={`span/${span.localRootSpanId}`} />
        )}
      </dl>
      {span.samples < FEW_SAMPLES && span.samples > 0 && <Uncertainty samples={span.samples} />}
    </header>
  );
}

function IdFact({ term, id, to }: { term: string; id: string; to?: string }) {
  return (
    <div class="fact">
      <dt>{term}</dt>
      <dd class="mono with-copy">
        {to === undefined ? <span>{id}</span> : <Link to={to}>{id}</Link>}
        <CopyButton text={id} what={`${term.toLowerCase()} id`} />
      </dd>
    </div>
  );
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

/** The profile type that the server answers: the one asked for, else the CPU type, else the first. */
function chooseType(span: SpanSummary, asked: string | undefined): ProfileTypeSummary | undefined {
  return (
    span.profileTypes.find(({ id }) => id === asked) ??
    span.profileTypes.find(({ id }) => id.startsWith("process_cpu:cpu:")) ??
    span.profileTypes[0]
  );
}

function typeLabel(type: ProfileTypeSummary | undefined): string {
  if (!type) return "this type";
  const [profile = "", sample = ""] = type.id.split(":");
  if (profile === "process_cpu" && sample === "cpu") return "CPU time";
  return displayName(profile === "process_cpu" || profile === sample ? sample : `${profile} ${sample}`, 60);
}

function utcInterval(span: SpanSummary): string {
  return `${new Date(span.from).toISOString()} – ${new Date(span.until).toISOString()}`;
}
