// What every file of browser tests begins with: a server, a browser, and what is pushed before the first test.

import { after, before, test } from "node:test";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { launch, withPage } from "./browser.ts";
import { testServer, type TestServer } from "./server.ts";

type Run = (page: Page) => Promise<void>;

export interface Scenario {
  /** Its address is known from the first test on. */
  readonly server: TestServer;
  /** A test in a page of its own. */
  check(title: string, run: Run, options?: BrowserContextOptions): void;
  /** Runs in a page that may ask nobody but this origin. */
  visit(origin: string, run: Run): Promise<void>;
}

export function scenario(prepare: (server: TestServer) => Promise<void>): Scenario {
  const server: TestServer = { url: "", stop: async () => {} };
  let browser: Browser | undefined;
  before(async () => {
    Object.assign(server, await testServer());
    await prepare(server);
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await server.stop();
  });
  const visit = (origin: string, run: Run, options?: BrowserContextOptions) => {
    if (!browser) throw new Error("no browser before the first test");
    return withPage(browser, origin, run, options);
  };
  return {
    server,
    visit,
    check: (title, run, options) => void test(title, () => visit(server.url, run, options)),
  };
}

/** A parameter of the page's address. */
export function param(page: Page, name: string): string | null {
  return new URL(page.url()).searchParams.get(name);
}

/** The text of every cell of some rows. */
export function cells(page: Page, rows: string): Promise<string[][]> {
  return page
    .locator(rows)
    .evaluateAll((all) =>
      all.map((row) => [...row.querySelectorAll("th, td")].map((cell) => cell.textContent!.trim())),
    );
}

/** How many pixels the page is wider than its window. */
export function overhang(page: Page): Promise<number> {
  return page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
}
