// Where the page is mounted. The built script always lies at `<base>/assets/<hash>.js`, so its own address gives the
// base under any sub-path; nothing else may guess it from `location`.

// Kept out of a `new URL("…", import.meta.url)` expression, which Vite would take for a reference to an asset.
const scriptUrl: string = import.meta.url;

/** Absolute URL of the folder the page is mounted at, with a trailing slash. */
export const baseUrl: URL = new URL("../", scriptUrl);

/** An address below the base: `under("span/00f067aa0ba902b7")`. */
export function under(path: string): string {
  return new URL(path, baseUrl).href;
}
