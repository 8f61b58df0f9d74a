// Chromium, and pages in it that record whatever no page of ours may do.

import assert from "node:assert/strict";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Starts Debian's Chromium, or the one that `CHROMIUM` names. */
export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: FLAGS });
}

declare global {
  interface Window {
    /** Set by a script that a hostile name smuggled in. */
    pwned?: unknown;
  }
}

/**
 * Runs a test in a new page. Afterwards it asserts that the page asked no other origin for anything, broke no content
 * security policy, logged no error of its own, and that no foreign script ran.
 */
export async function withPage(
  browser: Browser,
  origin: string,
  run: (page: Page) => Promise<void>,
  options: BrowserContextOptions = {},
): Promise<void> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const troubles: string[] = [];
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.origin !== new URL(origin).origin) troubles.push(`request to ${url}`);
  });
  page.on("pageerror", (error) => troubles.push(`exception: ${error.stack ?? error.message}`));
  page.on("console", (message) => {
    // The browser itself logs a request that failed, which tests of failures cause, and tests that read pixels.
    const isOwnLog = !/^(Failed to load resource|Canvas2D: Multiple readback)/.test(message.text());
    if (isOwnLog && ["error", "warning"].includes(message.type()))
      troubles.push(`console: ${message.text()}`);
  });
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => {
      console.error(`content security policy: ${event.violatedDirective} blocked ${event.blockedURI}`);
    });
  });
  try {
    await run(page);
    assert.equal(await page.evaluate(() => window.pwned), undefined, "a foreign script ran");
  } finally {
    await context.close();
  }
  assert.deepEqual(troubles, []);
}
