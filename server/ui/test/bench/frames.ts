// Prints what a graph of so many frames costs in the browser: `SPANFLAME_BIN=… npm run bench`, and beside it d3-flame-graph
// and speedscope on the same input, where `npm ci --prefix test/bench/peers` has installed them, and @grafana/flamegraph
// where `npm ci --legacy-peer-deps --prefix test/bench/peers/grafana` has. Numbers as arguments are other sizes.
//
// `first` is the time from the start of navigation to the end of the first frame that shows the graph, `data` the part of it
// after the last byte of the graph's data has come, `data cpu` the processor time of the main thread and the page's workers
// in that part, which other work on the machine changes little, `load cpu` the main thread's own time until then. A zoom is
// a click (in speedscope a double click) on a frame and the way back; `zoom cpu` is the main thread's time for both. `load`
// is the machine's load average, which times by the clock depend on. `frame` is the time from one animation frame to the next meanwhile: the median, the 95th
// percentile and the worst; 16.7 ms is fluid. Painting outside of the main thread is not in `cpu`, but shows in `frame`.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { loadavg } from "node:os";
import { extname, join } from "node:path";
import type { Browser, CDPSession, Page } from "playwright-core";
import { build } from "vite";
import { launch } from "../support/browser.ts";
import { largeSpan, profileOf, type TestSpan } from "../support/dataset.ts";
import { push, testServer } from "../support/server.ts";
import { mergeStacks, type CallNode } from "../support/stacks.ts";

const SIZES = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [1_000, 10_000, 50_000];
const ZOOMS = 5;
const PEERS = join(import.meta.dirname, "peers");
const GRAFANA = join(PEERS, "grafana");

/** One way to show a span's graph. */
interface Viewer {
  name: string;
  open: (page: Page, span: TestSpan) => Promise<void>;
  /** Whether the page shows the graph, asked in the page whenever it changes. */
  isShown: () => boolean;
  /** How the address of its data ends. */
  data: string;
  /** Zooms to the frame under a place. */
  zoom?: (page: Page, x: number, y: number) => Promise<void>;
  reset?: (page: Page) => Promise<void>;
}

declare global {
  interface Window {
    /** Milliseconds between animation frames. */
    intervals: number[];
    /** When the first frame with the graph was done, since navigation. */
    painted: number | undefined;
    resetZoom: () => void;
  }
}

const server = await testServer();
const peers = existsSync(join(PEERS, "node_modules")) ? await servePeers() : undefined;
const browser = await launch();
try {
  console.log(
    "viewer          frames  first ms  data ms  data cpu ms  load cpu ms  zoom cpu ms  frame ms p50    p95  worst   load",
  );
  for (const size of SIZES) {
    const span = largeSpan(size);
    await push(server, span.service, profileOf(span));
    for (const viewer of [ours(server.url), ...(peers?.viewers ?? [])])
      await measure(browser, viewer, span, size);
  }
} finally {
  await browser.close();
  peers?.stop();
  await server.stop();
}

async function measure(browser: Browser, viewer: Viewer, span: TestSpan, size: number): Promise<void> {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(120_000);
  await page.addInitScript(`
    const isShown = ${viewer.isShown};
    const observer = new MutationObserver(() => {
      if (!isShown()) return;
      observer.disconnect();
      // A task that is queued in a frame runs once that frame is painted.
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => (window.painted = performance.now());
      requestAnimationFrame(() => port2.postMessage(0));
    });
    observer.observe(document, { childList: true, subtree: true });
  `);
  await page.addInitScript(() => {
    window.intervals = [];
    let last = 0;
    const tick = (now: number) => {
      if (last > 0) window.intervals.push(now - last);
      last = now;
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  });
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Performance.enable", { timeDomain: "threadTicks" });
  await browser.startTracing(page, { categories: ["toplevel", "devtools.timeline"] });
  await viewer.open(page, span);
  await page.waitForFunction(() => window.painted !== undefined);
  const first = await page.evaluate(() => window.painted!);
  const came = await page.evaluate(
    (end) =>
      (performance.getEntriesByType("resource") as PerformanceResourceTiming[]).find(({ name }) =>
        name.endsWith(end),
      )?.responseEnd ?? NaN,
    viewer.data,
  );
  const loaded = await cpuOf(devtools);
  const own = ownTime(await browser.stopTracing(), viewer.data, first - came);
  await page.evaluate(() => (window.intervals = []));
  for (let i = 0; i < ZOOMS && viewer.zoom && viewer.reset; i++) {
    await viewer.zoom(page, 100 + 200 * i, 110 + 20 * (i % 4));
    await page.waitForTimeout(900);
    await viewer.reset(page);
    await page.waitForTimeout(900);
  }
  const zoomed = ((await cpuOf(devtools)) - loaded) / ZOOMS;
  const intervals = (await page.evaluate(() => window.intervals)).sort((a, b) => a - b);
  const at = (share: number) =>
    viewer.zoom ? intervals[Math.min(intervals.length - 1, Math.floor(intervals.length * share))]! : NaN;
  const numbers = [first, first - came, own, loaded, viewer.zoom ? zoomed : NaN].map((value, i) =>
    value.toFixed(0).padStart([8, 7, 11, 11, 11][i]!),
  );
  const frames = [at(0.5), at(0.95), at(1)].map((value, i) => value.toFixed(1).padStart([12, 5, 5][i]!));
  const load = loadavg()[0]!.toFixed(1).padStart(5);
  console.log([viewer.name.padEnd(14), String(size).padStart(6), ...numbers, ...frames, load].join("  "));
  await page.close();
}

interface TraceEvent {
  name: string;
  ph: string;
  pid: number;
  tid: number;
  /** Microseconds by the clock, and how many of them the thread had the processor. */
  ts: number;
  tdur?: number;
  args: { name?: string; data?: { url?: string; requestId?: string } };
}

/** Processor time of the page's main thread and its workers in so many milliseconds after some data has come. */
function ownTime(trace: Buffer, data: string, within: number): number {
  const { traceEvents: events } = JSON.parse(trace.toString()) as { traceEvents: TraceEvent[] };
  const asked = events.find(
    ({ name, args }) => name === "ResourceSendRequest" && args.data?.url?.endsWith(data),
  );
  const came = events.find(
    ({ name, args }) => name === "ResourceFinish" && args.data?.requestId === asked?.args.data?.requestId,
  );
  if (!asked || !came) return NaN;
  const threads = new Set(
    events
      .filter(({ name, pid }) => name === "thread_name" && pid === came.pid)
      .filter(({ args }) => /^(CrRendererMain|DedicatedWorker)/.test(args.name ?? ""))
      .map(({ tid }) => tid),
  );
  return events
    .filter(
      ({ name, ph, pid, tid }) => /RunTask$/.test(name) && ph === "X" && pid === came.pid && threads.has(tid),
    )
    .filter(({ ts }) => ts >= came.ts && ts < came.ts + within * 1000)
    .reduce((sum, { tdur = 0 }) => sum + tdur / 1000, 0);
}

async function cpuOf(devtools: CDPSession): Promise<number> {
  const { metrics } = await devtools.send("Performance.getMetrics");
  return metrics.find(({ name }) => name === "TaskDuration")!.value * 1000;
}

function ours(url: string): Viewer {
  return {
    name: "Spanflame",
    data: "/SelectMergeStacktraces",
    open: async (page, span) => {
      await page.goto(`${url}/span/${span.spanId}?runtime=show`);
      await page.locator("canvas").waitFor();
    },
    isShown: () => document.querySelector("canvas") !== null,
    zoom: (page, x, y) => page.locator("canvas").click({ position: { x, y } }),
    reset: (page) => page.keyboard.press("Escape"),
  };
}

/** Builds and serves the peers, each with the data of the span that was opened last. */
async function servePeers(): Promise<{ viewers: Viewer[]; stop: () => void }> {
  const outDir = join(PEERS, "node_modules/.bench");
  await build({ root: PEERS, logLevel: "warn", build: { outDir, target: "es2022" } });
  const hasGrafana = existsSync(join(GRAFANA, "node_modules"));
  if (hasGrafana) await buildGrafana(join(outDir, "grafana"));
  const speedscope = join(PEERS, "node_modules/speedscope/dist/release");
  const data = new Map<string, string>();
  const types: Record<string, string> = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
  };
  const listener = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://peers");
    const known = data.get(pathname);
    const file = pathname.startsWith("/speedscope/")
      ? join(speedscope, pathname.slice("/speedscope/".length))
      : join(outDir, pathname);
    const body = known === undefined ? readFile(file) : Promise.resolve(known);
    body.then(
      (content) => {
        const type = known === undefined ? types[extname(file)] : "application/json";
        response.writeHead(200, { "content-type": type ?? "application/octet-stream" }).end(content);
      },
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(listener.address() as AddressInfo).port}`;
  const d3: Viewer = {
    name: "d3-flame-graph",
    data: "/data.json",
    open: async (page, { stacks }) => {
      data.set("/data.json", JSON.stringify(forD3(mergeStacks(stacks))));
      await page.goto(`${url}/index.html`);
      await page.locator("svg g.frame").first().waitFor();
    },
    isShown: () => document.querySelector("svg g.frame") !== null,
    zoom: (page, x, y) => page.mouse.click(x, y),
    reset: (page) => page.evaluate(() => window.resetZoom()),
  };
  const scope: Viewer = {
    name: "speedscope",
    data: "/profile.json",
    open: async (page, span) => {
      const profile = await fetch(`${server.url}/api/v1/spans/${span.spanId}/profile?format=speedscope`);
      data.set("/speedscope/profile.json", await profile.text());
      await page.goto(
        `${url}/speedscope/index.html#profileURL=${encodeURIComponent(`${url}/speedscope/profile.json`)}`,
      );
      await page.getByText("Left Heavy").first().waitFor();
      await page.keyboard.press("2");
    },
    // The tool bar names its views once the graph is there.
    isShown: () => document.body?.textContent.includes("Left Heavy") ?? false,
    zoom: (page, x, y) => page.mouse.dblclick(x, y + 60),
    reset: (page) => page.keyboard.press("0"),
  };
  const grafana: Viewer = {
    name: "grafana",
    data: "/data.json",
    open: async (page, { stacks }) => {
      data.set("/grafana/data.json", JSON.stringify(forGrafana(mergeStacks(stacks))));
      await page.goto(`${url}/grafana/index.html`);
      await page.locator("canvas").waitFor();
    },
    isShown: () => document.querySelector("canvas") !== null,
    // The menu to zoom with is not part of the graph alone.
  };
  return {
    viewers: [d3, scope, ...(hasGrafana ? [grafana] : [])],
    stop: () => {
      listener.close();
      listener.closeAllConnections();
    },
  };
}

/** Builds the page that shows Grafana's component. */
async function buildGrafana(outDir: string): Promise<void> {
  await build({
    root: GRAFANA,
    base: "./",
    configFile: false,
    logLevel: "error",
    define: { "process.env.NODE_ENV": '"production"' },
    resolve: {
      alias: {
        "@grafana/assistant": join(GRAFANA, "absent.js"),
      },
    },
    build: { outDir, target: "es2022", emptyOutDir: true, chunkSizeWarningLimit: 10_000 },
  });
}

/** The tree as a nested set: depth first, each node with its level. */
function forGrafana(root: CallNode): Record<"level" | "value" | "self" | "label", unknown[]> {
  const columns = {
    level: [] as number[],
    value: [] as number[],
    self: [] as number[],
    label: [] as string[],
  };
  const add = ({ name, total, self, children }: CallNode, level: number) => {
    columns.level.push(level);
    columns.value.push(total);
    columns.self.push(self);
    columns.label.push(name);
    for (const child of children.values()) add(child, level + 1);
  };
  add(root, 0);
  return columns;
}

function forD3({ name, total, children }: CallNode): object {
  return { name, value: total, children: [...children.values()].map(forD3) };
}
