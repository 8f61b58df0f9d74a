// What the browser tests push: spans whose every number is known. Ids are new in every run, so that a server that already
// holds data can be tested too.

import { randomBytes } from "node:crypto";
import type { LabelledStack, ProfileInput } from "./pprof.ts";
import { below, randomFrom } from "./random.ts";
import type { Stack } from "./stacks.ts";

export interface TestSpan {
  service: string;
  name: string;
  spanId: string;
  traceId: string;
  stacks: Stack[];
}

/** CPU nanoseconds between two samples. */
export const PERIOD = 10_000_000;

/** A span with new ids. */
export function newSpan(service: string, name: string, stacks: Stack[]): TestSpan {
  return { service, name, stacks, spanId: newId(8), traceId: newId(16) };
}

/** A random id of so many bytes in lower-case hexadecimal. */
export function newId(bytes: number): string {
  return randomBytes(bytes).toString("hex");
}

/** The profile that holds a span's samples. */
export function profileOf(span: TestSpan): ProfileInput {
  const labels = { span_id: span.spanId, trace_id: span.traceId, span_name: span.name };
  const stacks: LabelledStack[] = span.stacks.map((stack) => ({ ...stack, labels }));
  return { stacks, period: PERIOD, startMillis: Date.now() - 20_000, durationMillis: 10_000 };
}

const RUNTIME = [
  "__clone3",
  "start_thread",
  "std::sys::thread::unix::Thread::new::thread_start",
  "tokio::runtime::scheduler::multi_thread::worker::Context::run_task",
  "hyper::proto::h1::dispatch::Dispatcher<D,Bs,I,T>::poll_catch",
  "<tower::util::map_future::MapFuture<S,F> as tower_service::Service<R>>::call",
];

export const HANDLER = "checkout::handlers::pay::{{closure}}";
export const SIGN = "checkout::crypto::sign_receipt";
export const COMPRESS = "sha2::sha256::compress256";
export const QUOTE = "checkout::pricing::quote";

function underHandler(samples: number, ...frames: string[]): Stack {
  return { frames: [...RUNTIME, HANDLER, ...frames], value: samples * PERIOD };
}

/** 100 samples, 1 s of CPU: 40 in the hash, 30 in pricing, 20 in JSON, 4 in the runtime under the handler, 6 above it. */
export function paySpan(): TestSpan {
  return newSpan("checkout", "POST /pay", [
    underHandler(40, SIGN, COMPRESS, "sha2::sha256::x86::digest_blocks"),
    underHandler(18, QUOTE, "alloc::vec::in_place_collect::from_iter", "checkout::pricing::rule_matches"),
    underHandler(12, QUOTE, "regex_automata::meta::regex::Regex::search_half"),
    underHandler(
      20,
      "serde_json::ser::to_vec",
      "<checkout::model::Order as serde::ser::Serialize>::serialize",
    ),
    underHandler(4, "core::slice::sort::stable::driftsort_main"),
    { frames: RUNTIME, value: 6 * PERIOD },
  ]);
}

export const SCRIPT_NAME = "<script>window.pwned=1</script>";
export const IMAGE_NAME = '"><img src=x onerror="window.pwned=2">';
export const RTL_NAME = "دالة::حساب\u202egnirts";
export const LONG_NAME = `long::${"x".repeat(65_000)}::end`;

/** A span whose every name is hostile. */
export function hostileSpan(): TestSpan {
  return newSpan("<b>shop</b>", `<script>window.pwned=3</script> \u202eمرحبا`, [
    { frames: [SCRIPT_NAME, IMAGE_NAME], value: 3 * PERIOD },
    { frames: [SCRIPT_NAME, RTL_NAME, LONG_NAME], value: 2 * PERIOD },
    { frames: [LONG_NAME, "{{constructor.constructor('window.pwned=4')()}}"], value: PERIOD },
  ]);
}

/** A span whose graph has about so many frames: 40 to 60 deep, branching all the way down. */
export function largeSpan(frames: number): TestSpan {
  const random = randomFrom(frames);
  const stacks: Stack[] = [];
  let path: string[] = [];
  let made = 0;
  while (made < frames) {
    const keep = path.length === 0 ? 0 : path.length - 1 - below(random, Math.min(path.length, 12));
    const deepest = keep + 1 + below(random, 60 - Math.min(keep, 59));
    path = path.slice(0, keep);
    while (path.length < deepest && made < frames) {
      path.push(`crate${below(random, 14)}::module${below(random, 40)}::function${made}`);
      made++;
    }
    stacks.push({ frames: path, value: PERIOD * (1 + below(random, 8)) });
  }
  return newSpan("large", `${frames} frames`, stacks);
}
