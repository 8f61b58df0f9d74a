// Takes the screenshots of the main views: `SPANFLAME_BIN=… SPANFLAME_DEMO=… npm run shoot`, where the second is the
// binary of examples/axum-tracing, whose load they show. With a server that runs, `SPANFLAME_URL=… SPANFLAME_SPAN_ID=…
// npm run shoot -- FILE.png [light|dark]` takes one, of that span.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { Browser } from "playwright-core";
import type { SpanListEntry, TraceSummary } from "../src/api.ts";
import { launch } from "./support/browser.ts";
import { testServer } from "./support/server.ts";

type Scheme = "light" | "dark";

const IMAGES = resolve(import.meta.dirname, "../../../docs/images");
const LOAD_SECONDS = 20;

const [file, scheme = "light"] = process.argv.slice(2);
const { SPANFLAME_SPAN_ID: spanId, SPANFLAME_DEMO: demo } = process.env;
const isOne = file !== undefined && spanId !== undefined && (scheme === "light" || scheme === "dark");
if (!isOne && (file !== undefined || demo === undefined)) {
  console.error("usage: SPANFLAME_BIN=… SPANFLAME_DEMO=… npm run shoot");
  console.error("       SPANFLAME_URL=… SPANFLAME_SPAN_ID=… npm run shoot -- FILE.png [light|dark]");
  process.exit(2);
}

const server = await testServer();
const browser = await launch();
try {
  if (isOne) await shoot(browser, `${server.url}/span/${spanId}`, resolve(file), scheme);
  else await shootAll(browser, server.url, demo!);
} finally {
  await browser.close();
  await server.stop();
}

/** Lets the demo service work, then shoots every main view. */
async function shootAll(browser: Browser, url: string, demo: string): Promise<void> {
  const service = spawn(demo, ["--listen", "127.0.0.1:0", "--demo-load", String(LOAD_SECONDS)], {
    stdio: ["ignore", "ignore", "inherit"],
    env: {
      ...process.env,
      PYROSCOPE_SERVER_ADDRESS: url,
      OTEL_EXPORTER_OTLP_ENDPOINT: url,
      SPANFLAME_UPLOAD_INTERVAL: "2",
      // Enough samples for a picture, on a busy machine too.
      SPANFLAME_FREQUENCY: "997",
      SPANFLAME_CPU_BUDGET: "off",
      OTEL_SERVICE_NAME: "checkout",
    },
  });
  const [status] = (await once(service, "exit")) as [number | null];
  if (status !== 0) throw new Error(`the demo service failed: ${status}`);

  const get = async <Answer>(path: string) => (await (await fetch(`${url}/api/v1/${path}`)).json()) as Answer;
  const { spans } = await get<{ spans: SpanListEntry[] }>("spans?limit=1000");
  const named = spans.filter(({ name, traceId }) => name !== null && traceId !== null);
  const [heaviest] = named;
  const other = named.find(({ name }) => name !== heaviest?.name);
  if (!heaviest || !other) throw new Error("the demo service left no spans of two names in traces");
  const { service: of, name, spanId, traceId } = heaviest;
  const operation = (name: string | null) => new URLSearchParams({ service: of, name: name! });
  // The request as a whole shows more than its heaviest span.
  const trace = await get<TraceSummary>(`traces/${traceId}`);
  const root = trace.spans.reduce((best, span) => (span.totalCpuNanos > best.totalCpuNanos ? span : best));
  const profile = await get<{ nodes: { name: string; self: number }[] }>(
    `spans/${spanId}/profile?format=json`,
  );
  const hottest = profile.nodes.reduce((best, node) => (node.self > best.self ? node : best)).name;
  const [from, until] = [
    Math.min(...spans.map((span) => span.from)),
    Math.max(...spans.map((span) => span.until)),
  ];
  const during = `from=${from}&until=${until}`;

  const views: [image: string, path: string, Scheme][] = [
    ["span-flame-graph", `span/${root.spanId}`, "light"],
    ["span-flame-graph-dark", `span/${root.spanId}`, "dark"],
    ["trace", `trace/${traceId}?span=${spanId}`, "light"],
    ["services", `services?${during}`, "light"],
    ["traces", `traces?${during}`, "light"],
    ["operation", `operation?${operation(name)}&${during}`, "light"],
    [
      "compare",
      `compare?${new URLSearchParams({ left: String(operation(other.name)), right: String(operation(name)) })}`,
      "dark",
    ],
    ["callers-and-callees", `span/${root.spanId}?${new URLSearchParams({ fn: hottest })}`, "light"],
    ["requests", `function?${new URLSearchParams({ function: hottest })}&${during}`, "light"],
  ];
  for (const [image, path, scheme] of views) {
    await shoot(browser, `${url}/${path}`, join(IMAGES, `${image}.png`), scheme);
    console.log(`docs/images/${image}.png`);
  }
}

async function shoot(browser: Browser, address: string, file: string, colorScheme: Scheme): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const page = await browser.newPage({ viewport: { width: 1280, height: 920 }, colorScheme });
  await page.goto(address, { waitUntil: "networkidle" });
  await page.locator("canvas, .operations, .requests, .traces").first().waitFor();
  await page.evaluate(() => document.fonts.ready);
  // The second frame after the canvas appeared has been painted.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  await page.screenshot({ path: file });
  await page.close();
}
