// What the browser tests push: spans whose every number is known. Ids are new in every run, so that a server that already
// holds data can be tested too.

import { randomBytes } from "node:crypto";
import type { LabelledStack, Place, ProfileInput } from "./pprof.ts";
import { below, randomFrom } from "./random.ts";
import { push, type TestServer } from "./server.ts";
import type { Stack } from "./stacks.ts";

export interface TestSpan {
  service: string;
  name: string;
  spanId: string;
  traceId: string;
  /** Ids of the span above and of the first one of the trace in the same process. */
  parentId?: string;
  localRootId?: string;
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

/** How long ago the profiles of the tests began, unless they say otherwise. */
const AGE_MS = 20_000;

/** The profile that holds the samples of spans of one service. */
export function profileOf(spans: TestSpan | TestSpan[], more: Partial<ProfileInput> = {}): ProfileInput {
  const stacks = [spans].flat().flatMap((span) => {
    const labels = {
      span_id: span.spanId,
      trace_id: span.traceId,
      span_name: span.name,
      ...(span.parentId === undefined ? {} : { parent_span_id: BigInt(`0x${span.parentId}`) }),
      ...(span.localRootId === undefined ? {} : { local_root_span_id: BigInt(`0x${span.localRootId}`) }),
    };
    return span.stacks.map((stack): LabelledStack => ({ ...stack, labels }));
  });
  return { stacks, period: PERIOD, startMillis: Date.now() - AGE_MS, durationMillis: 10_000, ...more };
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

/** Where the functions of `paySpan` are; the digest is inlined. */
export const PLACES: Record<string, Place> = {
  [HANDLER]: { file: "src/handlers.rs", line: 42 },
  [SIGN]: { file: "src/crypto.rs", line: 17 },
  [COMPRESS]: { file: "sha2-0.10.8/src/sha256.rs", line: 80, inlined: true },
};

/** A trace through two services: its spans and their profiles, by service. */
export interface TestTrace {
  traceId: string;
  /** 100 samples by itself, 160 in its process, 200 in all. */
  root: TestSpan;
  /** 40 samples by itself and 20 in `hash`. */
  charge: TestSpan;
  hash: TestSpan;
  /** 40 samples in another process. */
  remote: TestSpan;
  profiles: [service: string, profile: ProfileInput][];
}

/** 200 samples, 2 s of CPU, in four spans; the profile also tells of two lost samples and of 10 in no span. */
export function payTrace(): TestTrace {
  const root = paySpan();
  const { spanId, traceId } = root;
  const below = (parentId: string) => ({ traceId, parentId, localRootId: spanId });
  const charge: TestSpan = {
    ...newSpan("checkout", "charge card", [underHandler(40, "checkout::cards::charge")]),
    ...below(spanId),
  };
  const hash: TestSpan = {
    ...newSpan("checkout", "hash", [underHandler(20, "checkout::cards::charge", SIGN)]),
    ...below(charge.spanId),
  };
  const remote = newSpan("payments", "POST /charge", [{ frames: ["payments::charge"], value: 40 * PERIOD }]);
  Object.assign(remote, { traceId, parentId: charge.spanId, localRootId: remote.spanId });
  const checkout = profileOf([root, charge, hash], { places: PLACES, comments: ["lost.ring_full=2"] });
  checkout.stacks.push({ frames: ["checkout::housekeeping"], value: 10 * PERIOD, labels: {} });
  return {
    traceId,
    root,
    charge,
    hash,
    remote,
    profiles: [
      ["checkout", checkout],
      ["payments", profileOf(remote)],
    ],
  };
}

/** Pushes a trace's profiles. */
export async function pushTrace(server: TestServer, trace: TestTrace): Promise<void> {
  for (const [service, profile] of trace.profiles) await push(server, service, profile);
}

/** An operation over half an hour: spans a minute apart, of 20 to 40 samples, and a last one that is slow elsewhere. */
export interface TestOperation {
  service: string;
  name: string;
  spans: TestSpan[];
  slow: TestSpan;
}

export const SLOW = "app::cache::rebuild";

/** Pushes an operation of a service that nothing else uses, with 50 samples in no span. */
export async function pushOperation(server: TestServer, name = "GET /item"): Promise<TestOperation> {
  const service = `shop-${newId(4)}`;
  const spanOf = (samples: number) =>
    newSpan(service, name, [
      { frames: ["app::item", "app::query"], value: samples * 0.6 * PERIOD },
      { frames: ["app::item", "app::render"], value: samples * 0.4 * PERIOD },
    ]);
  const spans = Array.from({ length: 21 }, (_, i) => spanOf(20 + 5 * (i % 5)));
  const now = Date.now();
  for (const [i, span] of spans.entries()) {
    await push(server, service, profileOf(span, { startMillis: now - (25 - i) * 60_000 }));
  }
  const slow = newSpan(service, name, [
    ...spanOf(40).stacks,
    { frames: ["app::item", SLOW], value: 160 * PERIOD },
  ]);
  const last = profileOf(slow, { startMillis: now - 2 * 60_000 });
  last.stacks.push({ frames: ["app::background"], value: 50 * PERIOD, labels: {} });
  await push(server, service, last);
  return { service, name, spans, slow };
}
