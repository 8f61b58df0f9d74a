// One operation: its spans over time by their CPU, those that burned most, and the code they burned it in.

import { useEffect } from "preact/hooks";
import { costOfSpans, explain, fetchDurations, fetchSpans, fetchTraces, type SpanListEntry } from "../api.ts";
import { selectSpanHeatmap, selectStackTraces, type HeatmapSlot } from "../querier.ts";
import { Fact } from "../components/facts.tsx";
import { Heatmap, type Brush } from "../components/heatmap.tsx";
import { Link } from "../components/link.tsx";
import { Profile, readGraph, type LoadedProfile } from "../components/profile.tsx";
import { RangePicker } from "../components/rangepicker.tsx";
import { SendTraces } from "../components/sendtraces.tsx";
import { SpanTable } from "../components/spantable.tsx";
import { Failure, Loading } from "../components/states.tsx";
import { displayName } from "../flame/names.ts";
import { formatCount, formatInterval, formatNanos } from "../format.ts";
import { useLoad } from "../load.ts";
import { readRange, resolveRange, stepsOf, type TimeRange } from "../range.ts";
import { setQuery } from "../router.ts";
import { CPU_TYPE, labelSelector, stackTraces, type Selection } from "../selection.ts";
import { servicesPath } from "./services.tsx";
import { comparePath, requestsPath } from "./span.tsx";

interface Props {
  query: URLSearchParams;
  dark: boolean;
}

/** Steps of the heat map. */
const COLUMNS = 60;
const DURATION_ROWS = 24;
/** The most spans that are listed, and merged where spans rather than a name are selected. */
const MAX_SPANS = 500;
const SHOWN_SPANS = 20;

export function OperationPage({ query, dark }: Props) {
  const service = query.get("service");
  const name = query.get("name");
  const choice = readRange(query);
  const { loaded, retry } = useLoad(JSON.stringify(choice), (signal) => resolveRange(choice, signal));
  const title = name === null ? "Whole service" : name === "" ? "In no span" : displayName(name, 240);
  useEffect(() => {
    document.title = `${title} · ${service ?? ""} · Spanflame`;
  }, [title, service]);
  if (service === null) {
    return (
      <section class="notice">
        <h1>Which operation?</h1>
        <p>
          The address of an operation names a <code>service</code> and a span <code>name</code>; without a
          name it is all of the service.
        </p>
        <p>
          <Link to="services">All services</Link>
        </p>
      </section>
    );
  }
  return (
    <>
      <header class="span-head">
        <p class="eyebrow">
          <Link to={servicesPath(service, choice)} class="name">
            {displayName(service, 120)}
          </Link>
        </p>
        <div class="page-head">
          <h1 class="name">{title}</h1>
          <RangePicker
            choice={choice}
            range={loaded.state === "done" ? loaded.value : undefined}
            onRefresh={retry}
          />
        </div>
      </header>
      {loaded.state === "loading" && <Loading what="the operation" />}
      {loaded.state === "failed" && (
        <Failure title="The operation cannot be shown" error={loaded.error} retry={retry} isPart />
      )}
      {loaded.state === "done" &&
        (name === null || name === "" ? (
          <Merged
            {...{ service, query, dark }}
            name={name ?? undefined}
            range={loaded.value}
            spans={undefined}
          />
        ) : (
          <Spans {...{ service, name, query, dark }} range={loaded.value} />
        ))}
    </>
  );
}

interface PartProps extends Props {
  service: string;
  /** Undefined for the whole service. */
  name: string | undefined;
  range: TimeRange;
}

function Spans(props: PartProps & { name: string }) {
  const { service, name, range, query } = props;
  const brush = readBrush(query);
  const { from, until } = brush ?? range;
  const steps = stepsOf(range, COLUMNS);
  const byDuration = query.get("by") === "duration";
  const heat = useLoad(JSON.stringify([service, name, range, byDuration]), async (signal) => {
    if (byDuration) return durationSlots({ service, name, range, steps }, signal);
    const request = {
      profileTypeID: CPU_TYPE,
      labelSelector: labelSelector({ service, name }),
      ...steps,
      groupBy: [],
    };
    return (await selectSpanHeatmap(request, false, signal))[0]?.slots ?? [];
  });
  const list = useLoad(JSON.stringify([service, name, from, until, brush, byDuration]), async (signal) => {
    if (byDuration) return spansByDuration({ service, name, from, until, brush }, signal);
    const spans = await fetchSpans({ service, name, from, until, limit: MAX_SPANS }, signal);
    return brush ? spans.filter(({ cpuNanos }) => cpuNanos >= brush.min && cpuNanos <= brush.max) : spans;
  });
  const spans = list.loaded.state === "done" ? list.loaded.value : undefined;
  return (
    <>
      <section aria-labelledby="heat-title">
        <div class="section-head">
          <h2 id="heat-title">Spans over time, by {byDuration ? "their duration" : "their own CPU time"}</h2>
          <div class="segments" role="group" aria-label="By what">
            {(["CPU time", "Duration"] as const).map((title) => (
              <button
                key={title}
                type="button"
                aria-pressed={byDuration === (title === "Duration")}
                onClick={() =>
                  setQuery(
                    { by: title === "Duration" ? "duration" : undefined, brush: undefined, zoom: undefined },
                    "push",
                  )
                }
              >
                {title}
              </button>
            ))}
          </div>
        </div>
        {heat.loaded.state === "loading" && <Loading what="the heat map" />}
        {heat.loaded.state === "failed" && (
          <Failure title="The heat map cannot be shown" error={heat.loaded.error} retry={heat.retry} isPart />
        )}
        {heat.loaded.state === "done" &&
          (heat.loaded.value.length === 0 ? (
            <>
              <p class="quiet">
                {byDuration
                  ? "No trace tells of a span of this operation that began in this time."
                  : "No span of this operation began in this time."}
              </p>
              {byDuration && <SendTraces />}
            </>
          ) : (
            <Heatmap
              key={byDuration ? "duration" : "cpu"}
              slots={heat.loaded.value}
              of={byDuration ? "duration" : "CPU time"}
              start={steps.start}
              step={steps.step * 1000}
              columns={COLUMNS}
              brush={brush}
              onBrush={(next) => setQuery({ brush: next && brushText(next), zoom: undefined }, "push")}
            />
          ))}
        {brush && (
          <p class="filters" data-testid="brush">
            <span>
              Selected: {formatInterval(brush.from, brush.until)}, {formatNanos(brush.min)} to{" "}
              {formatNanos(brush.max)}
            </span>
            <button
              type="button"
              onClick={() =>
                setQuery(
                  {
                    from: String(brush.from),
                    until: String(brush.until),
                    range: undefined,
                    brush: undefined,
                  },
                  "push",
                )
              }
            >
              Zoom to this time
            </button>
            <button type="button" onClick={() => setQuery({ brush: undefined, zoom: undefined }, "push")}>
              Clear
            </button>
          </p>
        )}
      </section>
      {list.loaded.state === "loading" && <Loading what="spans" />}
      {list.loaded.state === "failed" && (
        <Failure title="The spans cannot be listed" error={list.loaded.error} retry={list.retry} isPart />
      )}
      {spans && spans.length > 0 && (
        <TopSpans spans={spans} operation={{ service, name }} byDuration={byDuration} />
      )}
      {spans && <Merged {...props} spans={brush || query.get("children") === "1" ? spans : undefined} />}
    </>
  );
}

interface DurationQuery {
  service: string;
  name: string;
  range: TimeRange;
  steps: { start: number; step: number };
}

/** Spans by duration in the steps of the other map, as it takes them. */
async function durationSlots(
  { service, name, range, steps }: DurationQuery,
  signal: AbortSignal,
): Promise<HeatmapSlot[]> {
  const step = steps.step * 1000;
  const until = range.from + COLUMNS * step - 1;
  const query = { service, name, from: range.from, until, columns: COLUMNS, rows: DURATION_ROWS };
  const { count, columns, edges } = await fetchDurations(query, signal);
  if (count === 0) return [];
  return columns.map((counts, at) => ({
    timestamp: String(steps.start + at * step),
    yMin: edges.slice(0, -1),
    yEnd: edges.at(-1)!,
    counts,
  }));
}

/** The latest spans of an operation, the longest first, with what each cost. */
async function spansByDuration(
  query: { service: string; name: string; from: number; until: number; brush: Brush | undefined },
  signal: AbortSignal,
): Promise<SpanListEntry[]> {
  const { brush, ...filter } = query;
  const bounds = brush ? { minDuration: `${brush.min}ns`, maxDuration: `${brush.max}ns` } : {};
  const { traces } = await fetchTraces({ ...filter, ...bounds, limit: MAX_SPANS }, signal);
  const spans = traces.map(({ traceId, matched }) => ({ ...matched, traceId }));
  if (spans.length === 0) return [];
  const costs = await costOfSpans(
    spans.map(({ spanId }) => spanId),
    signal,
  );
  return spans
    .map((span, at) => ({
      ...span,
      samples: costs[at]?.samples ?? 0,
      cpuNanos: costs[at]?.cpuNanos ?? 0,
      from: Math.floor(span.start),
      until: Math.ceil(span.start + span.durationNanos / 1e6),
    }))
    .sort((a, b) => b.durationNanos - a.durationNanos);
}

function TopSpans(props: { spans: SpanListEntry[]; operation: Selection; byDuration: boolean }) {
  const { spans, operation, byDuration } = props;
  const durations = spans.flatMap(({ durationNanos }) => durationNanos ?? []).sort((a, b) => a - b);
  const byCpu = spans.map(({ cpuNanos }) => cpuNanos).sort((a, b) => a - b);
  const cpu = spans.reduce((sum, { cpuNanos }) => sum + cpuNanos, 0);
  const heaviest = spans[0]!;
  return (
    <section>
      <dl class="facts">
        <Fact term="Spans" id="span-count" strong>
          {spans.length === MAX_SPANS ? `${formatCount(MAX_SPANS)} or more` : formatCount(spans.length)}
        </Fact>
        <Fact term="CPU time" id="cpu" strong>
          {formatNanos(cpu)}
        </Fact>
        <Fact term="CPU per span">{formatNanos(cpu / spans.length)}</Fact>
        <Fact term="Median">{formatNanos(byCpu[(byCpu.length - 1) >> 1]!)}</Fact>
        <Fact term="Most">{formatNanos(byCpu.at(-1)!)}</Fact>
        {durations.length > 0 && (
          <Fact term="Median duration" id="median-duration">
            {formatNanos(durations[(durations.length - 1) >> 1]!)}
          </Fact>
        )}
      </dl>
      <div class="section-head">
        <h2 id="top-spans">{byDuration ? "Longest spans" : "Spans with most CPU"}</h2>
        <Link to={comparePath({ ...operation, typical: true }, { span: heaviest.spanId })}>
          Compare the {byDuration ? "longest" : "heaviest"} with typical ones
        </Link>
      </div>
      <SpanTable spans={spans.slice(0, SHOWN_SPANS)} labelledBy="top-spans" />
    </section>
  );
}

/** The flame graph of the operation's samples, or of some of its spans. */
function Merged(props: PartProps & { spans: SpanListEntry[] | undefined }) {
  const { service, name, range, query, dark, spans } = props;
  const withChildren = query.get("children") === "1";
  const selection: Selection = { service, ...(name === undefined ? {} : { name }), ...range };
  const isNamed = name !== undefined && name !== "";
  const subject = name === undefined ? "service" : "operation";
  const ids = spans?.map(({ spanId }) => spanId);
  const run = async (signal: AbortSignal): Promise<LoadedProfile> => {
    if (!ids || !spans) {
      const [graph, explanation] = await Promise.all([
        readGraph(selectStackTraces(stackTraces(selection), signal), subject, query),
        explain({ selector: labelSelector(selection), type: CPU_TYPE, ...range }, signal),
      ]);
      return { graph, samples: explanation.samples.inWindow };
    }
    // No id at all would select everything.
    if (ids.length === 0) return { graph: undefined, samples: 0 };
    const request = { ...stackTraces({}), spanSelector: ids, rollUp: withChildren };
    const [graph, costs] = await Promise.all([
      readGraph(selectStackTraces(request, signal), subject, query),
      withChildren ? costOfSpans(ids, signal) : spans,
    ]);
    return { graph, samples: costs.reduce((sum, { samples }) => sum + samples, 0) };
  };
  return (
    <section class="merged" aria-label="Merged profile">
      <div class="section-head">
        <h2>{mergedTitle(name, spans !== undefined)}</h2>
        {isNamed && (
          <div class="segments" role="group" aria-label="Whose samples">
            <button
              type="button"
              aria-pressed={!withChildren}
              onClick={() => setQuery({ children: undefined, zoom: undefined }, "push")}
            >
              These spans only
            </button>
            <button
              type="button"
              aria-pressed={withChildren}
              title={`Of the ${MAX_SPANS} heaviest spans at most`}
              onClick={() => setQuery({ children: "1", zoom: undefined }, "push")}
            >
              With children
            </button>
          </div>
        )}
        <Link to={comparePath(undefined, selection)}>Compare with…</Link>
      </div>
      <Profile
        load={{ key: JSON.stringify([selection, ids, withChildren]), run }}
        subject={subject}
        title={`${service} ${name === "" ? "in no span" : (name ?? "")}`}
        types={[]}
        type={{ id: CPU_TYPE, unit: "nanoseconds", total: 0, samples: 0 }}
        query={query}
        dark={dark}
        requestsOf={(functionName) => requestsPath(functionName, service, readRange(query))}
        route={
          ids
            ? ids.length === 0
              ? undefined
              : { of: "selection", spans: ids, rollUp: withChildren, type: CPU_TYPE }
            : { of: "selection", selector: labelSelector(selection), ...range, type: CPU_TYPE }
        }
        why={{ selector: labelSelector(selection), type: CPU_TYPE, ...range }}
      />
    </section>
  );
}

function mergedTitle(name: string | undefined, isOfSpans: boolean): string {
  if (name === undefined) return "Code of the service";
  if (name === "") return "Code that ran in no span";
  return isOfSpans ? "Code of these spans" : "Code of the operation";
}

function readBrush(query: URLSearchParams): Brush | undefined {
  const numbers = (query.get("brush") ?? "").split("_").map(Number);
  if (numbers.length !== 4 || !numbers.every(Number.isSafeInteger)) return undefined;
  const [from, until, min, max] = numbers as [number, number, number, number];
  return from <= until && min <= max ? { from, until, min, max } : undefined;
}

function brushText({ from, until, min, max }: Brush): string {
  return [from, until, min, max].join("_");
}
