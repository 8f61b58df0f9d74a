// The home page: look a span up by its id, or choose one from those that burned most CPU.

import { useEffect, useId, useState } from "preact/hooks";
import { fetchSpanPage } from "../api.ts";
import { labelValues } from "../querier.ts";
import { under } from "../base.ts";
import { CopyButton } from "../components/copy.tsx";
import { Link } from "../components/link.tsx";
import { LookUp } from "../components/lookup.tsx";
import { Pages } from "../components/pages.tsx";
import { SpanTable } from "../components/spantable.tsx";
import { Failure, Loading } from "../components/states.tsx";
import { useLoad } from "../load.ts";
import { setQuery } from "../router.ts";
import { labelSelector } from "../selection.ts";

const PAGE = 100;
/** Suggestions of names at most. */
const MAX_SUGGESTED = 500;

const ORDERS = [
  ["cpu", "Most CPU"],
  ["newest", "Newest"],
  ["samples", "Most samples"],
] as const;

export function HomePage({ query }: { query: URLSearchParams }) {
  const service = query.get("service") || undefined;
  const name = query.get("name") || undefined;
  const traceId = query.get("trace") || undefined;
  const sort = ORDERS.find(([order]) => order === query.get("sort"))?.[0] ?? "cpu";
  const filter = { service, name, traceId, sort, limit: PAGE };
  const key = JSON.stringify(filter);
  const { loaded, retry } = useLoad(key, (signal) => fetchSpanPage(filter, signal));
  const isFiltered = service !== undefined || name !== undefined || traceId !== undefined;
  const isEmpty = !isFiltered && loaded.state === "done" && loaded.value.spans.length === 0;
  return (
    <>
      <section class="hero">
        <h1>Which code did this span burn CPU in?</h1>
        <LookUp id="lookup" key={traceId} initial={traceId ?? ""} />
      </section>
      {isEmpty ? (
        <FirstProfile retry={retry} />
      ) : (
        <section>
          <div class="section-head">
            <h2 id="spans-title">Spans</h2>
            <Filters service={service} name={name} sort={sort} />
            {traceId !== undefined && (
              <p class="filters">
                trace <b class="mono">{traceId}</b>
              </p>
            )}
            {isFiltered && <Link to="">Show all</Link>}
            <button type="button" onClick={retry}>
              Refresh
            </button>
          </div>
          {loaded.state === "loading" && <Loading what="spans" />}
          {loaded.state === "failed" && (
            <Failure title="The spans cannot be listed" error={loaded.error} retry={retry} isPart />
          )}
          {loaded.state === "done" && loaded.value.spans.length === 0 && <NoMatch />}
          {loaded.state === "done" && loaded.value.spans.length > 0 && (
            <Pages
              key={key}
              first={loaded.value}
              size={PAGE}
              more={(after, signal) => fetchSpanPage({ ...filter, after }, signal)}
              join={(shown, page) => ({ ...page, spans: [...shown.spans, ...page.spans] })}
            >
              {({ spans }) => <SpanTable spans={spans} labelledBy="spans-title" />}
            </Pages>
          )}
        </section>
      )}
    </>
  );
}

function Filters(props: { service: string | undefined; name: string | undefined; sort: string }) {
  const { service, name, sort } = props;
  return (
    <form
      class="filter-form"
      role="search"
      aria-label="Filter spans"
      onSubmit={(event) => event.preventDefault()}
    >
      <NameFilter label="Service" param="service" value={service} of="service_name" selector="{}" />
      <NameFilter
        label="Span name"
        param="name"
        value={name}
        of="span_name"
        selector={labelSelector(service === undefined ? {} : { service })}
      />
      <label>
        <span class="visually-hidden">Order</span>
        <select
          value={sort}
          onChange={({ currentTarget: { value } }) =>
            setQuery({ sort: value === "cpu" ? undefined : value }, "push")
          }
        >
          {ORDERS.map(([order, title]) => (
            <option key={order} value={order}>
              {title}
            </option>
          ))}
        </select>
      </label>
    </form>
  );
}

interface NameFilterProps {
  label: string;
  param: string;
  value: string | undefined;
  /** The label whose values are suggested once the box has the focus, and of what. */
  of: string;
  selector: string;
}

function NameFilter({ label, param, value, of, selector }: NameFilterProps) {
  const [text, setText] = useState(value ?? "");
  const [known, setKnown] = useState<string[]>([]);
  // The address changed by other means than this box.
  useEffect(() => setText(value ?? ""), [value]);
  const commit = () => {
    const next = text.trim();
    if (next !== (value ?? "")) setQuery({ [param]: next }, "push");
  };
  const list = useId();
  // Without suggestions the box works all the same.
  const suggest = () =>
    void labelValues(of, selector, new AbortController().signal).then(
      (values) => setKnown(values.slice(0, MAX_SUGGESTED)),
      () => {},
    );
  return (
    <label>
      <span class="visually-hidden">{label}</span>
      <input
        type="text"
        list={list}
        value={text}
        placeholder={label}
        autocomplete="off"
        spellcheck={false}
        maxLength={4000}
        onFocus={suggest}
        onInput={({ currentTarget }) => setText(currentTarget.value)}
        onChange={commit}
        onKeyDown={({ key }) => key === "Enter" && commit()}
      />
      <datalist id={list}>
        {known.map((each) => (
          <option key={each} value={each} />
        ))}
      </datalist>
    </label>
  );
}

function NoMatch() {
  return (
    <section class="notice">
      <h2>No span matches</h2>
      <p>No stored profile holds samples for this selection.</p>
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
