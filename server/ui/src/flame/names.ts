// What a function's name tells: its crate, a short form for narrow bars, a harmless form for display, and whether it
// belongs to the runtime around a service's own code. Names are foreign data: every scan here is linear and bounded.

/** Names longer than this are cut before they are parsed; the copy button still gives the whole name. */
const PARSED = 1024;

/** Crates that carry a request rather than serve it: the standard library, executors, HTTP stack, instrumentation. */
const RUNTIME_CRATES = new Set(
  (
    "alloc core std backtrace addr2line gimli panic_unwind " +
    "tokio tokio_util tokio_stream tokio_rustls mio async_std async_executor async_io async_task smol futures futures_channel " +
    "futures_core futures_executor futures_io futures_sink futures_task futures_util pin_project pin_project_lite " +
    "hyper hyper_util hyper_rustls h2 http http_body http_body_util httparse axum axum_core tower tower_http " +
    "tower_layer tower_service tonic matchit actix_http actix_rt actix_server actix_service actix_web warp " +
    "tracing tracing_core tracing_futures tracing_log tracing_opentelemetry tracing_subscriber opentelemetry opentelemetry_sdk " +
    "opentelemetry_http opentelemetry_otlp spanflame parking_lot parking_lot_core lock_api scopeguard"
  ).split(" "),
);

/** Functions outside of any crate that start a process or a thread. */
const RUNTIME_SYMBOLS = new Set(
  "_start __libc_start_main __libc_start_main_impl __libc_start_call_main start_thread clone clone3 __clone __clone3 main".split(
    " ",
  ),
);

/** The crate that defines a function, "" for one without a Rust path (C code, the kernel, the root). */
export function crateOf(name: string): string {
  let path = name.length > PARSED ? name.slice(0, PARSED) : name;
  // `<app::Type as core::Trait>::method` belongs to the crate of the type; `<T as core::Trait>::method` to the trait's.
  for (let depth = 0; depth < 8 && path.startsWith("<"); depth++) {
    const inner = path.slice(1);
    const as = topLevelAs(inner);
    const type = stripPointer(as < 0 ? inner : inner.slice(0, as));
    if (as < 0 || type.startsWith("<") || firstSegment(type) !== "") path = type;
    else path = stripPointer(inner.slice(as + 4));
  }
  return firstSegment(path);
}

/** `app` of `app::main` and of `app[3f2504e04f8911d3]::main`; "" where no identifier stands before the first `::`. */
function firstSegment(path: string): string {
  const end = path.indexOf("::");
  if (end <= 0) return "";
  const segment = path.slice(0, end);
  const bare = segment.endsWith("]") ? segment.slice(0, Math.max(0, segment.indexOf("["))) : segment;
  return /^[A-Za-z_]\w*$/.test(bare) ? bare : "";
}

/** Whether a function, of that crate, belongs to the runtime around a service's own code. */
export function isRuntime(name: string, crate = crateOf(name)): boolean {
  if (crate !== "") return RUNTIME_CRATES.has(crate);
  return RUNTIME_SYMBOLS.has(name) || name.startsWith("__rust_");
}

/**
 * The last two segments of a Rust path without generic arguments, for bars too narrow for the whole name:
 * `<alloc::vec::Vec<T> as core::iter::FromIterator<T>>::from_iter` gives `Vec::from_iter`.
 */
export function shortName(name: string): string {
  if (name.length > PARSED) return name;
  const bare = name.replace(/::h[0-9a-f]{16}$/, "");
  let path = bare;
  if (bare.startsWith("<")) {
    const close = matchingClose(bare, 0);
    if (close < 0) return bare;
    const inner = bare.slice(1, close);
    const as = topLevelAs(inner);
    path = stripPointer(as < 0 ? inner : inner.slice(0, as)) + bare.slice(close + 1);
  }
  const flat = withoutGenerics(path);
  // Only what reads like a path is shortened.
  if (!/^[A-Za-z_{]/.test(flat)) return bare;
  const segments = flat.split("::").filter((segment) => segment !== "");
  let from = segments.length - 1;
  // A closure says nothing by itself: keep the function it was written in.
  while (from > 0 && segments[from]!.startsWith("{")) from--;
  return segments.slice(Math.max(0, from - 1)).join("::") || bare;
}

// Control characters, bidirectional overrides and isolates, zero-width characters and line separators could reorder or
// hide what stands around a name.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A name as it may be shown: nothing invisible or reordering in it, at most `limit` characters. */
export function displayName(name: string, limit = 400): string {
  const clean = (name.length > limit * 2 ? cut(name, limit) : name).replace(UNSAFE, "\ufffd");
  return cut(clean, limit);
}

function cut(text: string, limit: number): string {
  if (text.length <= limit) return text;
  const head = Math.ceil(limit * 0.7);
  return `${text.slice(0, head)}…${text.slice(text.length - (limit - head - 1))}`;
}

function stripPointer(type: string): string {
  return type.replace(/^(?:&|\*(?:const|mut) |mut |dyn |\(|\[)+/, "");
}

/** Position of ` as ` outside of nested brackets, -1 if there is none before the closing bracket. */
function topLevelAs(text: string): number {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "<") depth++;
    else if (c === ">" && text[i - 1] !== "-") {
      if (depth === 0) return -1;
      depth--;
    } else if (depth === 0 && text.startsWith(" as ", i)) return i;
  }
  return -1;
}

function matchingClose(text: string, open: number): number {
  let depth = 0;
  for (let i = open; i < text.length; i++) {
    if (text[i] === "<") depth++;
    else if (text[i] === ">" && text[i - 1] !== "-" && --depth === 0) return i;
  }
  return -1;
}

function withoutGenerics(text: string): string {
  let depth = 0;
  let out = "";
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    if (c === "<") depth++;
    else if (c === ">" && text[i - 1] !== "-") depth = Math.max(0, depth - 1);
    else if (depth === 0) out += c;
  }
  return out;
}
