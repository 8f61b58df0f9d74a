// Every service with its operations: what each cost, and what ran in no span.

import { useEffect } from "preact/hooks";
import { Link } from "../components/link.tsx";
import { Empty } from "../components/profile.tsx";
import { RangePicker } from "../components/rangepicker.tsx";
import { Failure, Loading } from "../components/states.tsx";
import { displayName } from "../flame/names.ts";
import { formatCount, formatNanos, formatShare } from "../format.ts";
import { useLoad } from "../load.ts";
import { fetchServices, MAX_OPERATIONS, type Operation, type Service } from "../operations.ts";
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
    return { range, services: await fetchServices(range, service, signal) };
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
          <Table services={loaded.value.services} isOne={service !== undefined} choice={choice} />
        ))}
    </>
  );
}

function Table({ services, isOne, choice }: { services: Service[]; isOne: boolean; choice: RangeChoice }) {
  const whole = services.reduce((sum, { cpuNanos }) => sum + cpuNanos, 0);
  const listed = services.reduce((sum, { operations }) => sum + operations.length, 0);
  return (
    <>
      <p class="quiet">
        Durations are not known here: the numbers are CPU time alone. An operation's time is that of its own
        spans, without the spans below them.
      </p>
      <div class="table-box" role="region" aria-label="Services and their operations" tabIndex={0}>
        <table class="operations">
          <thead>
            <tr>
              <th scope="col">{isOne ? "Operation" : "Service and operation"}</th>
              <th scope="col" class="number">
                CPU time
              </th>
              <th scope="col" class="number">
                Share
              </th>
              <th scope="col" class="number">
                Spans
              </th>
              <th scope="col" class="number">
                CPU per span
              </th>
              <th scope="col" class="number">
                Samples
              </th>
            </tr>
          </thead>
          {services.map((service) => (
            <ServiceRows key={service.service} {...{ service, whole, isOne, choice }} />
          ))}
        </table>
      </div>
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
  isOne: boolean;
  choice: RangeChoice;
}

function ServiceRows({
  service: { service, cpuNanos, operations, outside },
  whole,
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
        <td class="number">{formatCount(operations.reduce((sum, { spans }) => sum + spans, 0))}</td>
        <td class="number" />
        <td class="number">
          {formatCount(operations.reduce((sum, { samples }) => sum + samples, outside.samples))}
        </td>
      </tr>
      {shown.map((operation) => (
        <OperationRow key={operation.name} {...{ service, operation, whole, choice }} />
      ))}
      {hidden > 0 && (
        <tr>
          <td colSpan={6} class="operation">
            <Link to={servicesPath(service, choice)}>{formatCount(hidden)} more operations</Link>
          </td>
        </tr>
      )}
      {outside.cpuNanos > 0 && <OperationRow {...{ service, operation: outside, whole, choice }} />}
    </tbody>
  );
}

function OperationRow(props: { service: string; operation: Operation; whole: number; choice: RangeChoice }) {
  const { service, operation, whole, choice } = props;
  const { name, cpuNanos, samples, spans } = operation;
  return (
    <tr>
      <td class="operation">
        <Link to={operationPath(service, name, choice)} class="name">
          {name === "" ? "In no span" : displayName(name, 160)}
        </Link>
      </td>
      <Cpu nanos={cpuNanos} of={whole} />
      <td class="number">{formatShare(cpuNanos / Math.max(whole, 1))}</td>
      <td class="number">{name === "" ? "–" : formatCount(spans)}</td>
      <td class="number">{name === "" || spans === 0 ? "–" : formatNanos(cpuNanos / spans)}</td>
      <td class="number">{formatCount(samples)}</td>
    </tr>
  );
}

function Cpu({ nanos, of }: { nanos: number; of: number }) {
  return (
    <td class="number">
      {formatNanos(nanos)}
      <div class="bar" aria-hidden="true">
        <div style={{ width: `${(100 * nanos) / Math.max(of, 1)}%` }} />
      </div>
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
