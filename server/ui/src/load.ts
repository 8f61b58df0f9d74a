// A request as a component's state.

import { useEffect, useState } from "preact/hooks";
import { ApiError } from "./api.ts";

export type Loaded<Value> =
  { state: "loading" } | { state: "failed"; error: Error } | { state: "done"; value: Value };

/**
 * Runs `request` whenever `key` changes, and again on `retry`. An answer that comes after the key changed is dropped.
 */
export function useLoad<Value>(
  key: string,
  request: (signal: AbortSignal) => Promise<Value>,
): { loaded: Loaded<Value>; retry: () => void } {
  const [attempt, setAttempt] = useState(0);
  const run = `${attempt}:${key}`;
  const [result, setResult] = useState<{ run: string; loaded: Loaded<Value> }>();
  useEffect(() => {
    const abort = new AbortController();
    request(abort.signal).then(
      (value) => {
        if (!abort.signal.aborted) setResult({ run, loaded: { state: "done", value } });
      },
      (error: unknown) => {
        if (abort.signal.aborted) return;
        const known = error instanceof Error ? error : new ApiError(0, String(error));
        setResult({ run, loaded: { state: "failed", error: known } });
      },
    );
    return () => abort.abort();
  }, [run]);
  const loaded: Loaded<Value> = result?.run === run ? result.loaded : { state: "loading" };
  return { loaded, retry: () => setAttempt((before) => before + 1) };
}
