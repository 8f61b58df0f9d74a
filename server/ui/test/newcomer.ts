// Times a newcomer's path: `npm run newcomer` starts `cargo xtask demo` (or the command it is given), opens the link to a span
// that it prints, and tells how long it took from the end of compilation until that span's flame graph was painted. The
// two actions are the command and the click.

import { spawn } from "node:child_process";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { launch } from "./support/browser.ts";

const [command = "cargo", ...args] =
  process.argv.length > 2 ? process.argv.slice(2) : ["cargo", "xtask", "demo"];
/** What is promised: seconds, compilation left out. */
const PROMISED = 60;

const demo = spawn(command, args, {
  cwd: resolve(import.meta.dirname, "../../.."),
  stdio: ["ignore", "pipe", "pipe"],
  // A group of its own, so that what it started ends with it.
  detached: true,
});
const ended = new Promise<never>((_done, failed) => {
  demo.once("error", failed);
  demo.once("exit", (code) => failed(new Error(`the demo ended with ${code} before it named a span`)));
});
ended.catch(() => {});
let compiled = performance.now();
// Cargo says so once for the command itself and once for what it runs.
createInterface({ input: demo.stderr }).on("line", (line) => {
  if (/^\s*Finished /.test(line)) compiled = performance.now();
  console.error(line);
});
const browser = await launch();
try {
  const link = await Promise.race([linkOf(), ended]);
  const linked = performance.now();
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  await page.goto(link);
  await page.locator("canvas").waitFor({ timeout: 60_000 });
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  const painted = performance.now();
  const functions = await page.locator(".functions tbody tr").count();
  const seconds = (from: number, to: number) => ((to - from) / 1000).toFixed(1);
  console.log(
    `link:    ${seconds(compiled, linked)} s after compilation (action 1: ${[command, ...args].join(" ")})`,
  );
  console.log(
    `painted: ${seconds(linked, painted)} s later (action 2: open ${link}), ${functions} functions in the table`,
  );
  console.log(`in all:  ${seconds(compiled, painted)} s, promised: ${PROMISED} s`);
  if (painted - compiled > PROMISED * 1000) process.exitCode = 1;
} finally {
  await browser.close();
  if (demo.pid !== undefined && demo.exitCode === null) process.kill(-demo.pid, "SIGTERM");
}

async function linkOf(): Promise<string> {
  for await (const line of createInterface({ input: demo.stdout })) {
    console.log(line);
    const link = /^span:\s+(\S+)$/.exec(line)?.[1];
    if (link) return link;
  }
  throw new Error("the demo printed no link to a span");
}
