// `npm run dev`: every page is there under its own address, from the sources.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { AddressInfo } from "node:net";
import { resolve } from "node:path";
import { createServer } from "vite";
import { launch, withPage } from "../support/browser.ts";
import { paySpan, profileOf } from "../support/dataset.ts";
import { push, testServer } from "../support/server.ts";

test("the sources serve every page under its own address", async () => {
  const server = await testServer();
  const span = paySpan();
  await push(server, span.service, profileOf(span));
  process.env["SPANFLAME_URL"] = server.url;
  const root = resolve(import.meta.dirname, "../..");
  const development = await createServer({ root, logLevel: "error", server: { port: 0, host: "127.0.0.1" } });
  const browser = await launch();
  try {
    await development.listen();
    const { port } = development.httpServer!.address() as AddressInfo;
    const url = `http://127.0.0.1:${port}`;
    await withPage(browser, url, async (page) => {
      // The first page waits for the tools to get ready.
      page.setDefaultTimeout(60_000);
      for (const [path, shown] of [
        ["", ".spans"],
        ["services", ".operations"],
        [`operation?service=${span.service}&name=${encodeURIComponent(span.name)}`, "canvas.flame-canvas"],
        ["function", "main form"],
        ["compare", "main form"],
        [`trace/${span.traceId}`, ".waterfall"],
        [`span/${span.spanId}?runtime=show`, "canvas.flame-canvas"],
      ] as const) {
        await page.goto(`${url}/${path}`);
        await page.locator(shown).first().waitFor();
      }
      assert.equal(await page.locator("h1").textContent(), span.name);
    });
  } finally {
    await browser.close();
    await development.close();
    await server.stop();
  }
});
