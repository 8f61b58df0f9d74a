// A profile as part of a page: loads it, says why it is empty, shows its flame graph.

import { useEffect, useState } from "preact/hooks";
import { explain, fetchPprof, type Explanation, type ProfileRoute, type ProfileTypeSummary } from "../api.ts";
import { inBackground } from "../flame/background.ts";
import { displayName } from "../flame/names.ts";
import { FlamePanel } from "../flame/panel.tsx";
import { isFolded } from "../flame/toolbar.tsx";
import type { Graph } from "../flame/tasks.ts";
import type { Sources } from "../flame/source.ts";
import { formatTime } from "../format.ts";
import { useLoad } from "../load.ts";
import { CPU_TYPE } from "../selection.ts";
import { Failure, Loading, sentence } from "./states.tsx";

/** A profile as it was loaded, with the samples behind it (0 if unknown). */
export interface LoadedProfile {
  /** Undefined where there is nothing. */
  graph: Graph | undefined;
  samples: number;
}

interface Props {
  /** Names what is loaded: another key loads anew. */
  load: { key: string; run: (signal: AbortSignal) => Promise<LoadedProfile> };
  /** What it is of, in a word: "span", "trace". */
  subject: string;
  title: string;
  types: readonly ProfileTypeSummary[];
  /** The profile type that is shown. */
  type: ProfileTypeSummary | undefined;
  query: URLSearchParams;
  dark: boolean;
  route?: ProfileRoute | undefined;
  requestsOf?: (functionName: string) => string;
  /** What to ask the server when nothing is found. */
  why: Parameters<typeof explain>[0];
}

export function Profile({ load, subject, type, types, route, why, ...rest }: Props) {
  const { loaded, retry } = useLoad(load.key, load.run);
  const sources = useSources(route, loaded.state === "done" ? loaded.value.graph : undefined);
  if (loaded.state === "loading") return <Loading what="the flame graph" />;
  if (loaded.state === "failed") {
    return <Failure title="The flame graph cannot be shown" error={loaded.error} retry={retry} isPart />;
  }
  const { graph, samples } = loaded.value;
  if (!graph) return <Empty why={why} retry={retry} type={typeLabel(type?.id)} />;
  return (
    <FlamePanel
      {...rest}
      graph={graph}
      subject={subject}
      unit={type?.unit ?? "nanoseconds"}
      samples={samples}
      types={types.map((each) => ({ id: each.id, label: typeLabel(each.id) }))}
      type={type?.id ?? ""}
      sources={sources}
      route={route}
    />
  );
}

/** The graph in the server's answer, read while the page waits for whatever else it needs. */
export async function readGraph(
  answer: Promise<ArrayBuffer>,
  subject: string,
  query: URLSearchParams,
): Promise<Graph | undefined> {
  const bytes = await answer;
  return inBackground({ what: "graph", bytes, root: `whole ${subject}`, isFolded: isFolded(query) });
}

/** Files and lines, once the graph is there; without them everything else works. */
function useSources(route: ProfileRoute | undefined, graph: Graph | undefined): Sources | undefined {
  const [known, setKnown] = useState<{ graph: Graph; sources: Sources }>();
  useEffect(() => {
    if (!route || !graph) return;
    const abort = new AbortController();
    fetchPprof(route, abort.signal)
      .then((bytes) => inBackground({ what: "sources", bytes, names: graph.full.names.texts }))
      .then(
        (sources) => sources && !abort.signal.aborted && setKnown({ graph, sources }),
        () => {},
      );
    return () => abort.abort();
  }, [graph]);
  return known && known.graph === graph ? known.sources : undefined;
}

/** Says why there is nothing, in the server's words, and what to change. */
export function Empty({ why, retry, type }: { why: Props["why"]; retry: () => void; type: string }) {
  const { loaded } = useLoad(JSON.stringify(why), (signal) => explain(why, signal));
  return (
    <section class="notice" data-testid="empty">
      <h2>Nothing to show: no samples of {type}</h2>
      {loaded.state === "loading" && <Loading what="the reason" />}
      {loaded.state === "failed" && <p>The server does not say why: {sentence(loaded.error.message)}</p>}
      {loaded.state === "done" && <Reason explanation={loaded.value} />}
      <p class="actions">
        <button type="button" class="primary" onClick={retry}>
          Try again
        </button>
      </p>
    </section>
  );
}

/** An explanation as text. */
export function Reason({ explanation }: { explanation: Explanation }) {
  const { message, advice, causes, losses, reason } = explanation;
  return (
    <>
      <p>{sentence(readable(message))}</p>
      {advice !== null && <p>{sentence(readable(advice))}</p>}
      {causes.length > 0 && (
        <ul>
          {causes.map((cause) => (
            <li key={cause.message}>
              {sentence(cause.message)} {sentence(cause.advice)}
            </li>
          ))}
        </ul>
      )}
      {losses.length > 0 && <p>Lost by senders: {lossText(losses)}.</p>}
      <p class="quiet">
        Reason: <code>{reason}</code>
      </p>
    </>
  );
}

/** `12 samples (ring_full)`. */
export function lossText(losses: Explanation["losses"]): string {
  return losses
    .map(
      ({ cause, samples }) =>
        `${samples} ${samples === 1 ? "sample" : "samples"} (${displayName(cause, 80)})`,
    )
    .join(", ");
}

/** The server's words with times as people read them, and nothing in them that reorders or hides text. */
function readable(text: string): string {
  return displayName(text, 2000)
    .replace(/\b(1[0-9]{12})\b/g, (millis) => formatTime(Number(millis)))
    .replace(" (Unix milliseconds)", "");
}

/** The profile type that the server answers: the one asked for, else the CPU type, else the first. */
export function chooseType(
  types: readonly ProfileTypeSummary[],
  asked: string | undefined,
): ProfileTypeSummary | undefined {
  return types.find(({ id }) => id === asked) ?? types.find(({ id }) => id === CPU_TYPE) ?? types[0];
}

/** A profile type as people call it. */
export function typeLabel(id: string | undefined): string {
  if (id === undefined) return "this type";
  const [profile = "", sample = ""] = id.split(":");
  if (profile === "process_cpu" && sample === "cpu") return "CPU time";
  return displayName(profile === "process_cpu" || profile === sample ? sample : `${profile} ${sample}`, 60);
}
