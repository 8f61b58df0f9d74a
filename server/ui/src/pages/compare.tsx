// Compares two selections: which functions take more of one than of the other, and which of that is more than chance.

import { useEffect, useState } from "preact/hooks";
import type { ProfileRoute } from "../api.ts";
import { typeLabel } from "../components/profile.tsx";
import { selectDiff, storedTypes, type StackTraces } from "../querier.ts";
import { Link } from "../components/link.tsx";
import { Failure, Loading } from "../components/states.tsx";
import { inBackground } from "../flame/background.ts";
import { DiffPanel } from "../flame/diffpanel.tsx";
import { isFolded, TypeChoice } from "../flame/toolbar.tsx";
import { formatCount } from "../format.ts";
import { useLoad } from "../load.ts";
import { setQuery } from "../router.ts";
import { CPU_TYPE, parseSelection, selectionText, type Selection } from "../selection.ts";
import { resolveSide, selectionFromText, type ResolvedSide } from "../sides.ts";
import { FEW_SAMPLES } from "../stats.ts";

interface Props {
  query: URLSearchParams;
  dark: boolean;
}

export function ComparePage({ query, dark }: Props) {
  const left = parseSelection(query.get("left"));
  const right = parseSelection(query.get("right"));
  useEffect(() => {
    document.title = "Compare · Spanflame";
  }, []);
  return (
    <>
      <header class="span-head">
        <h1>Compare</h1>
      </header>
      {left && right ? (
        <Compared key={JSON.stringify([left, right])} {...{ left, right, query, dark }} />
      ) : (
        <div class="sides">
          <Choose title="Baseline" param="left" chosen={left} />
          <Choose title="Compared with it" param="right" chosen={right} />
        </div>
      )}
    </>
  );
}

function Compared({ left, right, query, dark }: Props & { left: Selection; right: Selection }) {
  const type = query.get("type") || CPU_TYPE;
  const { loaded, retry } = useLoad(JSON.stringify([left, right, type]), async (signal) => {
    const [baseline, compared, types] = await Promise.all([
      resolveSide(left, right, type, signal),
      resolveSide(right, left, type, signal),
      storedTypes(signal),
    ]);
    const diff = await inBackground({
      what: "diff",
      isFolded: isFolded(query),
      bytes: await selectDiff(baseline.request, compared.request, signal),
    });
    return { baseline, compared, diff, types, samples: { left: baseline.samples, right: compared.samples } };
  });
  if (loaded.state === "loading") return <Loading what="both sides" />;
  if (loaded.state === "failed") {
    return (
      <Failure title="These cannot be compared" error={loaded.error} retry={retry} isPart>
        <Link to="compare">Choose others</Link>
      </Failure>
    );
  }
  const { baseline, compared, diff, types, samples } = loaded.value;
  const { unit } = types.find(({ id }) => id === type) ?? { unit: "nanoseconds" };
  const choices = types.map(({ id }) => ({ id, label: typeLabel(id) }));
  const chooseType = (next: string) =>
    setQuery({ type: next === CPU_TYPE ? undefined : next, zoom: undefined }, "push");
  const fewest = Math.min(samples.left, samples.right);
  return (
    <>
      <div class="sides">
        <SideCard title="Baseline" param="left" side={baseline} />
        <SideCard title="Compared with it" param="right" side={compared} />
      </div>
      <p class="onward">
        <button
          type="button"
          onClick={() =>
            setQuery({ left: selectionText(right), right: selectionText(left), zoom: undefined }, "push")
          }
        >
          Swap sides
        </button>
      </p>
      {fewest === 0 || !diff ? (
        <section class="notice" data-testid="empty">
          <h2>Nothing to compare: no samples of {typeLabel(type)}</h2>
          <p>
            {samples.left === 0 && samples.right === 0
              ? "Neither side has samples."
              : samples.left === 0
                ? "The baseline has no samples."
                : samples.right === 0
                  ? "What it is compared with has no samples."
                  : "No sample has a value."}
          </p>
          <TypeChoice types={choices} type={type} onType={chooseType} />
        </section>
      ) : (
        <>
          {fewest < FEW_SAMPLES && (
            <p class="caution">
              <b>Few samples.</b> One side rests on {formatCount(fewest)}: only large differences can be told
              from chance.
            </p>
          )}
          <DiffPanel
            diff={diff}
            samples={samples}
            unit={unit}
            title={`${baseline.title} and ${compared.title}`}
            routes={[routeOf(baseline.request), routeOf(compared.request)]}
            types={choices}
            type={type}
            onType={chooseType}
            query={query}
            dark={dark}
          />
        </>
      )}
    </>
  );
}

/** Where the server has a side in other formats. */
function routeOf({
  profileTypeID: type,
  labelSelector,
  start,
  end,
  spanSelector,
  traceIdSelector,
}: StackTraces): ProfileRoute {
  const [trace] = traceIdSelector ?? [];
  if (trace !== undefined) return { of: "traces", id: trace, type };
  if (spanSelector) return { of: "selection", spans: spanSelector, type };
  const time = end === 0 ? {} : { from: start, until: end };
  return { of: "selection", selector: labelSelector, ...time, type };
}

function SideCard({ title, param, side }: { title: string; param: "left" | "right"; side: ResolvedSide }) {
  return (
    <section class="side" data-testid={param} aria-label={title}>
      <h2>{title}</h2>
      <p>
        <Link to={side.path} class="name">
          {side.title}
        </Link>
      </p>
      <p class="quiet">
        {side.detail} · {formatCount(side.samples)} samples
      </p>
      <button type="button" onClick={() => setQuery({ [param]: undefined, zoom: undefined }, "push")}>
        Choose another
      </button>
    </section>
  );
}

function Choose({
  title,
  param,
  chosen,
}: {
  title: string;
  param: "left" | "right";
  chosen: Selection | undefined;
}) {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState("");
  if (chosen) {
    return (
      <section class="side" aria-label={title}>
        <h2>{title}</h2>
        <p class="mono name">{Object.values(chosen).join(" ")}</p>
        <button type="button" onClick={() => setQuery({ [param]: undefined }, "push")}>
          Choose another
        </button>
      </section>
    );
  }
  return (
    <section class="side" aria-label={title}>
      <h2>{title}</h2>
      <form
        class="lookup"
        onSubmit={(event) => {
          event.preventDefault();
          const found = selectionFromText(text);
          if (typeof found === "string") setProblem(found);
          else setQuery({ [param]: selectionText(found) }, "push");
        }}
      >
        <label for={`choose-${param}`}>Span id, trace id, or the address of a page here</label>
        <div class="row">
          <input
            id={`choose-${param}`}
            type="text"
            class="mono"
            value={text}
            autocomplete="off"
            spellcheck={false}
            maxLength={4000}
            aria-invalid={problem !== ""}
            aria-describedby={`choose-${param}-problem`}
            onInput={(event) => {
              setText(event.currentTarget.value);
              setProblem("");
            }}
          />
          <button type="submit" class="primary">
            Choose
          </button>
        </div>
        <p id={`choose-${param}-problem`} class="problem" role="alert">
          {problem}
        </p>
      </form>
    </section>
  );
}
