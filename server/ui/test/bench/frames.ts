// Prints what a graph of so many frames costs in the browser: `SPANFLAME_BIN=… npm run bench`.
// `ready` is the time from the arrival of the server's answer to the first painted graph; `cpu` is the main thread's own
// time for the entire load, which says more on a busy machine. `frame` is the script and paint time of one animation
// frame while the graph zooms in and out: the median, the 95th percentile and the worst.

import type { Page } from "playwright-core";
import { launch } from "../support/browser.ts";
import { largeSpan, profileOf } from "../support/dataset.ts";
import { push, testServer } from "../support/server.ts";

const SIZES = [1_000, 10_000, 50_000];
const ZOOMS = 12;

declare global {
  interface Window {
    /** Milliseconds that each animation frame's callbacks took. */
    frameTimes: number[];
    firstPaint: number;
  }
}

const server = await testServer();
const browser = await launch();
try {
  console.log("frames  ready ms  cpu ms  frame ms p50  p95  worst");
  for (const size of SIZES) {
    const span = largeSpan(size);
    await push(server, span.service, profileOf(span));
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    await page.addInitScript(instrument);
    const devtools = await page.context().newCDPSession(page);
    await devtools.send("Performance.enable", { timeDomain: "threadTicks" });
    await page.goto(`${server.url}/span/${span.spanId}?runtime=show`);
    await page.locator("canvas").waitFor();
    await page.waitForFunction(() => window.firstPaint > 0);
    const ready = await page.evaluate(() => {
      const answers = performance.getEntriesByType("resource") as PerformanceResourceTiming[];
      return window.firstPaint - answers.find(({ name }) => name.includes("/profile?"))!.responseEnd;
    });
    const { metrics } = await devtools.send("Performance.getMetrics");
    const cpu = metrics.find(({ name }) => name === "TaskDuration")!.value * 1000;
    const times = (await zoomTimes(page)).sort((a, b) => a - b);
    const at = (share: number) =>
      times[Math.min(times.length - 1, Math.floor(times.length * share))]!.toFixed(1);
    console.log(
      [
        String(size).padStart(6),
        ready.toFixed(0).padStart(9),
        cpu.toFixed(0).padStart(7),
        at(0.5).padStart(13),
        at(0.95),
        at(1),
      ].join("  "),
    );
    await page.close();
  }
} finally {
  await browser.close();
  await server.stop();
}

/** Runs in the page before its scripts: times every animation frame and notes the first one that drew on the canvas. */
function instrument(): void {
  window.frameTimes = [];
  window.firstPaint = 0;
  const original = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (callback) =>
    original((now) => {
      const began = performance.now();
      callback(now);
      const ended = performance.now();
      window.frameTimes.push(ended - began);
      if (window.firstPaint === 0 && document.querySelector("canvas")) window.firstPaint = ended;
    });
}

async function zoomTimes(page: Page): Promise<number[]> {
  const canvas = page.locator("canvas");
  await canvas.focus();
  await page.evaluate(() => (window.frameTimes = []));
  for (let i = 0; i < ZOOMS; i++) {
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press(i % 4 === 3 ? "Escape" : "Enter");
    await page.waitForTimeout(220);
  }
  return page.evaluate(() => window.frameTimes);
}
