// Every service with its operations: what each cost, and what ran in no span.

import { useEffect } from "preact/hooks";
import { Link } from "../components/link.tsx";
import { Empty } from "../components/profile.tsx";
import { RangePicker } from "../components/rangepicker.tsx";
import { Failure, Loading } from "../components/states.tsx";
import { displayName } from "../flame/names.ts";
import { formatCount, formatNanos, formatShare } from "../format.ts";
import { useLoad } from "../load.ts";
import type { OperationSummary } from "../api.ts";
import { SendTraces } from "../components/sendtraces.tsx";
import { ShareBar, Table } from "../components/table.tsx";
import { fetchServices, MAX_OPERATIONS, type Service } from "../operations.ts";
import { rangeQuery, readRange, resolveRange, type RangeChoice } from "../range.ts";
import { CPU_TYPE, labelSelector } from "../selection.ts";

/** Operations of a service that are shown beside those of others. */
const FEW = 8;

export function ServicesPage({ query }: { query: URLSearchParams }) {
  const service = query.get("service") || undefined;
  const choice = readRange(query);
  const key = JSON.stringify([service, choice]);
  const { loaded, retry } = useLoad(key, async (signal) => {
    const range = await resolveRange(choice, signal);
    return { range, ...(await fetchServices(range, service, signal)) };
  });
  useEffect(() => {
    document.title = `${service ?? "Services"} · Spanflame`;
  }, [service]);
  return (
    <>
      <div class="page-head">
        <h1 class="name">{service === undefined ? "Services" : displayName(service, 120)}</h1>
        <RangePicker
          choice={choice}
          range={loaded.state === "done" ? loaded.value.range : undefined}
          onRefresh={retry}
        />
      </div>
      {service !== undefined && (
        <p class="onward">
          <Link to={servicesPath(undefined, choice)}>All services</Link>
          <Link to={`operation?${new URLSearchParams({ service, ...rangeQuery(choice) })}`}>
            Flame graph of the service
          </Link>
        </p>
      )}
      {loaded.state === "loading" && <Loading what="services" />}
      {loaded.state === "failed" && (
        <Failure title="The services cannot be listed" error={loaded.error} retry={retry} isPart />
      )}
      {loaded.state === "done" &&
        (loaded.value.services.length === 0 ? (
          <>
            <Empty
              why={{
                type: CPU_TYPE,
                selector: labelSelector(service === undefined ? {} : { service }),
                ...loaded.value.range,
              }}
              retry={retry}
              type="CPU time in this time"
            />
            <p>
              <Link to={servicesPath(service, { preset: "all" })}>Look at all that is kept</Link>
            </p>
          </>
        ) : (
          <OperationTable
            services={loaded.value.services}
            hasTraces={loaded.value.tracesKnown}
            isOne={service !== undefined}
            choice={choice}
          />
        ))}
    </>
  );
}

interface TableProps {
  services: Service[];
  /** Whether durations are known. */
  hasTraces: boolean;
  isOne: boolean;
  choice: RangeChoice;
}

function OperationTable({ services, hasTraces, isOne, choice }: TableProps) {
  const whole = services.reduce((sum, { cpuNanos }) => sum + cpuNanos, 0);
  const listed = services.reduce((sum, { operations }) => sum + operations.length, 0);
  return (
    <>
      <p class="quiet">
        An operation's CPU time is that of its own spans, without the spans below them.
        {hasTraces
          ? " Spans and durations are those of traces where these were sent, else spans are those with samples."
          : " Durations are not known here."}
      </p>
      {!hasTraces && <SendTraces />}
      <Table
        class="operations"
        label="Services and their operations"
        columns={[
          isOne ? "Operation" : "Service and operation",
          { number: "CPU time" },
          { number: "Share" },
          { number: "Spans" },
          { number: "CPU per span" },
          ...(hasTraces ? ["p50", "p95", "p99"].map((number) => ({ number })) : []),
          { number: "Samples" },
        ]}
      >
        {services.map((service) => (
          <ServiceRows key={service.service} {...{ service, whole, hasTraces, isOne, choice }} />
        ))}
      </Table>
      {listed >= MAX_OPERATIONS - services.length && (
        <p class="quiet">The {formatCount(MAX_OPERATIONS)} heaviest operations are shown.</p>
      )}
    </>
  );
}

interface RowsProps {
  service: Service;
  /** CPU of all services that are shown. */
  whole: number;
  hasTraces: boolean;
  isOne: boolean;
  choice: RangeChoice;
}

function ServiceRows({
  service: { service, cpuNanos, samples, operations, outsideCpuNanos, outsideSamples },
  whole,
  hasTraces,
  isOne,
  choice,
}: RowsProps) {
  const shown = isOne ? operations : operations.slice(0, FEW);
  const hidden = operations.length - shown.length;
  return (
    <tbody>
      <tr class="service-row">
        <th scope="rowgroup">
          <Link to={servicesPath(service, choice)} class="name">
            {displayName(service, 120)}
          </Link>
        </th>
        <Cpu nanos={cpuNanos} of={whole} />
        <td class="number">{formatShare(cpuNanos / Math.max(whole, 1))}</td>
        <td class="number">{formatCount(operations.reduce((sum, each) => sum + spansOf(each), 0))}</td>
        <td class="number" />
        {hasTraces && <td colSpan={3} />}
        <td class="number">{formatCount(samples)}</td>
      </tr>
      {shown.map((operation) => (
        <OperationRow key={operation.name} {...{ operation, whole, hasTraces, choice }} />
      ))}
      {hidden > 0 && (
        <tr>
          <td colSpan={hasTraces ? 9 : 6} class="operation">
            <Link to={servicesPath(service, choice)}>{formatCount(hidden)} more operations</Link>
          </td>
        </tr>
      )}
      {outsideCpuNanos > 0 && (
        <tr>
          <td class="operation">
            <Link to={operationPath(service, "", choice)} class="name">
              In no span
            </Link>
          </td>
          <Cpu nanos={outsideCpuNanos} of={whole} />
          <td class="number">{formatShare(outsideCpuNanos / Math.max(whole, 1))}</td>
          <td class="number">–</td>
          <td class="number">–</td>
          {hasTraces && <td colSpan={3} />}
          <td class="number">{formatCount(outsideSamples)}</td>
        </tr>
      )}
    </tbody>
  );
}

function OperationRow(props: {
  operation: OperationSummary;
  whole: number;
  hasTraces: boolean;
  choice: RangeChoice;
}) {
  const { operation, whole, hasTraces, choice } = props;
  const { service, name, cpuNanos, samples, cpuNanosPerRequest, traced } = operation;
  const spans = spansOf(operation);
  return (
    <tr>
      <td class="operation">
        {name === null ? (
          "Further names"
        ) : (
          <Link to={operationPath(service, name, choice)} class="name">
            {name === "" ? "(unnamed spans)" : displayName(name, 160)}
          </Link>
        )}
        {traced !== null && traced.errorCount > 0 && (
          <span class="failed small">
            {formatCount(traced.errorCount)} {traced.errorCount === 1 ? "error" : "errors"}
          </span>
        )}
      </td>
      <Cpu nanos={cpuNanos} of={whole} />
      <td class="number">{formatShare(cpuNanos / Math.max(whole, 1))}</td>
      <td class="number">{formatCount(spans)}</td>
      <td class="number">{cpuNanosPerRequest === null ? "–" : formatNanos(cpuNanosPerRequest)}</td>
      {hasTraces &&
        ([traced?.p50Nanos, traced?.p95Nanos, traced?.p99Nanos] as const).map((nanos, at) => (
          <td class="number" key={at}>
            {nanos === undefined ? "–" : formatNanos(nanos)}
          </td>
        ))}
      <td class="number">{formatCount(samples)}</td>
    </tr>
  );
}

/** The spans that traces tell of, or those with samples. */
function spansOf({ traced, sampledSpans }: OperationSummary): number {
  return traced?.count ?? sampledSpans;
}

function Cpu({ nanos, of }: { nanos: number; of: number }) {
  return (
    <td class="number">
      {formatNanos(nanos)}
      <ShareBar share={nanos / Math.max(of, 1)} />
    </td>
  );
}

/** The page of the services, or of one. */
export function servicesPath(service: string | undefined, choice: RangeChoice): string {
  const params = new URLSearchParams({
    ...(service === undefined ? {} : { service }),
    ...rangeQuery(choice),
  });
  return `services?${params}`;
}

/** The page of an operation. */
export function operationPath(service: string, name: string, choice: RangeChoice): string {
  return `operation?${new URLSearchParams({ service, name, ...rangeQuery(choice) })}`;
}
