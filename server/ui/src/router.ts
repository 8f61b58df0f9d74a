// The address is the page's state: path and query below the base, history and nothing else. Components read it through
// `useLocation` and change it through `navigate` and `setQuery`.

import { useEffect, useState } from "preact/hooks";
import { baseUrl, under } from "./base.ts";

export interface Location {
  /** Path below the base without a leading slash: "" or "span/00f067aa0ba902b7". */
  path: string;
  query: URLSearchParams;
}

/** Pages that stand directly below the base. */
const PAGES = ["traces", "services", "operation", "function", "compare"] as const;

export type Route =
  | { page: "home" }
  | { page: (typeof PAGES)[number] }
  | { page: "span" | "trace"; id: string }
  | { page: "missing" };

const CHANGED = "spanflame:navigated";

/** The address now. */
export function currentLocation(): Location {
  const path = location.pathname.startsWith(baseUrl.pathname)
    ? location.pathname.slice(baseUrl.pathname.length)
    : location.pathname.slice(1);
  return { path, query: new URLSearchParams(location.search) };
}

/** The page that a path names. */
export function routeOf(path: string): Route {
  if (path === "" || path === "index.html") return { page: "home" };
  const page = PAGES.find((name) => name === path);
  if (page) return { page };
  const one = /^(span|trace)\/([^/]*)$/.exec(path);
  if (one) return { page: one[1] as "span" | "trace", id: decode(one[2]!) };
  return { page: "missing" };
}

/** Goes to a path (with query) below the base. */
export function navigate(target: string, how: "push" | "replace" = "push"): void {
  const url = under(target);
  if (how === "push") history.pushState(null, "", url);
  else history.replaceState(null, "", url);
  dispatchEvent(new Event(CHANGED));
}

/** Sets query parameters of the page shown; undefined removes one. */
export function setQuery(changes: Record<string, string | undefined>, how: "push" | "replace"): void {
  const { path, query } = currentLocation();
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined || value === "") query.delete(key);
    else query.set(key, value);
  }
  const text = query.toString();
  navigate(text === "" ? path : `${path}?${text}`, how);
}

/** The address, kept up to date through back, forward and `navigate`. */
export function useLocation(): Location {
  const [at, setAt] = useState(currentLocation);
  useEffect(() => {
    const update = () => setAt(currentLocation());
    addEventListener("popstate", update);
    addEventListener(CHANGED, update);
    // A page below may have navigated while it mounted, before this component listened.
    update();
    return () => {
      removeEventListener("popstate", update);
      removeEventListener(CHANGED, update);
    };
  }, []);
  return at;
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
