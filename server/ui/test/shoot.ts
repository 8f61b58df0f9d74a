// Takes a screenshot of a span's page: `npm run shoot -- FILE.png`, with SPANFLAME_URL and SPANFLAME_SPAN_ID set.

import { mkdir } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { launch } from "./support/browser.ts";

const [file, colorScheme = "light"] = process.argv.slice(2);
const url = process.env["SPANFLAME_URL"];
const spanId = process.env["SPANFLAME_SPAN_ID"];
if (!file || !url || !spanId || (colorScheme !== "light" && colorScheme !== "dark")) {
  console.error("usage: SPANFLAME_URL=… SPANFLAME_SPAN_ID=… npm run shoot -- FILE.png [light|dark]");
  process.exit(2);
}

await mkdir(dirname(resolve(file)), { recursive: true });
const browser = await launch();
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, colorScheme });
  await page.goto(`${url.replace(/\/+$/, "")}/span/${spanId}`);
  await page.locator("canvas").waitFor();
  await page.evaluate(() => document.fonts.ready);
  // The second frame after the canvas appeared has been painted.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  await page.screenshot({ path: file });
} finally {
  await browser.close();
}
