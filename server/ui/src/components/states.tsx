// What stands in a page's place while it loads, or when it cannot be shown.

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ApiError } from "../api.ts";
import { formatCount, formatTime } from "../format.ts";

/** Says that something loads, but not for an answer that comes at once. */
export function Loading({ what }: { what: string }) {
  const [isLate, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 150);
    return () => clearTimeout(timer);
  }, []);
  return (
    <p class="notice quiet" role="status">
      {isLate ? `Loading ${what}…` : ""}
    </p>
  );
}

/** Why something cannot be shown: the server's words, its hints, what it holds at all, and a way to try again. */
export function Failure({ title, error, retry, isPart, children }: FailureProps) {
  const api = error instanceof ApiError ? error : undefined;
  const isRetryable =
    api === undefined || api.status === 0 || api.status >= 429 || api.reason === "unknown_span";
  return (
    <section class="notice" role="alert">
      {isPart ? <h2>{title}</h2> : <h1>{title}</h1>}
      <p>{sentence(error.message)}</p>
      {api && api.hints.length > 0 && (
        <>
          <p>
            <b>What to check</b>
          </p>
          <ul>
            {api.hints.map((hint) => (
              <li key={hint}>{sentence(hint)}</li>
            ))}
          </ul>
        </>
      )}
      {api?.store && <p class="quiet">{storeText(api.store)}</p>}
      {api?.reason && (
        <p class="quiet">
          Reason: <code>{api.reason}</code>
        </p>
      )}
      {api?.status === 0 && (
        <p class="quiet">
          Is it running, and can this browser reach {location.host}? Nothing was lost on this page.
        </p>
      )}
      <p class="actions">
        {isRetryable && (
          <button type="button" class="primary" onClick={retry}>
            Try again
          </button>
        )}
        {children}
      </p>
    </section>
  );
}

/** The server's words, which begin in lower case and end without a full stop, as a sentence. */
export function sentence(text: string): string {
  const end = /[.!?…]$/.test(text) ? "" : ".";
  return text === "" ? "" : text[0]!.toUpperCase() + text.slice(1) + end;
}

interface FailureProps {
  title: string;
  error: Error;
  retry: () => void;
  /** Stands within a page that has its own heading. */
  isPart?: boolean;
  children?: ComponentChildren;
}

function storeText(store: NonNullable<ApiError["store"]>): string {
  if (store.profiles === 0) return "The server holds no profile at all yet.";
  const range =
    store.oldest !== null && store.newest !== null
      ? `, from ${formatTime(store.oldest)} to ${formatTime(store.newest)}`
      : "";
  return `The server holds ${formatCount(store.profiles)} profiles with ${formatCount(store.spans)} spans${range}.`;
}
