// A list that comes page by page: what is there already, and a button for more.

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { sentence } from "./states.tsx";

interface Props<P> {
  first: P;
  /** Entries of a page. */
  size: number;
  more: (after: string, signal: AbortSignal) => Promise<P>;
  /** All that is shown, once a page has come. */
  join: (shown: P, page: P) => P;
  children: (shown: P) => ComponentChildren;
}

export function Pages<P extends { next: string | undefined }>(props: Props<P>) {
  const [shown, setShown] = useState(props.first);
  useEffect(() => setShown(props.first), [props.first]);
  const [problem, setProblem] = useState("");
  const more = async (after: string) => {
    try {
      const page = await props.more(after, new AbortController().signal);
      setShown(props.join(shown, page));
      setProblem("");
    } catch (error) {
      setProblem(sentence(error instanceof Error ? error.message : String(error)));
    }
  };
  const { next } = shown;
  return (
    <>
      {props.children(shown)}
      {next !== undefined && (
        <p class="actions more">
          <button type="button" onClick={() => more(next)}>
            Show {props.size} more
          </button>
        </p>
      )}
      {problem !== "" && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
    </>
  );
}
