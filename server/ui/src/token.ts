// The token that the reader entered: kept for this tab alone, sent with every request and to nobody else.

import { useEffect, useState } from "preact/hooks";

const KEY = "spanflame.token";
const CHANGED = "spanflame:token";

export interface Login {
  /** Whether this tab has a token to forget. */
  hasToken: boolean;
  /** Why the server wants a token, or another one; undefined while it answers. */
  refusal: string | undefined;
}

let token = stored();
let refusal: string | undefined;

function stored(): string | undefined {
  try {
    return sessionStorage.getItem(KEY) ?? undefined;
  } catch {
    // Storage can be forbidden; the token then lasts as long as the page.
    return undefined;
  }
}

/** The header that holds a token, the one in use unless told. */
export function authorization(which = token): Record<string, string> {
  return which === undefined ? {} : { authorization: `Bearer ${which}` };
}

/** Uses a token from now on. */
export function logIn(next: string): void {
  change(next, undefined);
}

/** Forgets the token. */
export function logOut(): void {
  change(undefined, "You have signed out.");
}

/** The server refused a request for want of a good token, and said why. */
export function refused(message: string): void {
  change(token, message);
}

function change(next: string | undefined, why: string | undefined): void {
  token = next;
  refusal = why;
  try {
    if (next === undefined) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, next);
  } catch {
    // See `stored`.
  }
  dispatchEvent(new Event(CHANGED));
}

/** The state of the login, kept up to date. */
export function useLogin(): Login {
  const read = (): Login => ({ hasToken: token !== undefined, refusal });
  const [login, setLogin] = useState(read);
  useEffect(() => {
    const update = () => setLogin(read());
    addEventListener(CHANGED, update);
    // A request may have been refused before this component listened.
    update();
    return () => removeEventListener(CHANGED, update);
  }, []);
  return login;
}
