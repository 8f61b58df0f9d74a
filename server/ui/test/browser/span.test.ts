// A span's page against the real server: numbers, zoom, search, table, keyboard, links.

import assert from "node:assert/strict";
import type { Page } from "playwright-core";
import type { FlameTree } from "../../src/flame/tree.ts";
import {
  COMPRESS,
  HANDLER,
  paySpan,
  PLACES,
  profileOf,
  QUOTE,
  SIGN,
  type TestSpan,
} from "../support/dataset.ts";
import { barOf, canvas, fillOf, graphOf, pointOf } from "../support/graph.ts";
import { eventually } from "../support/poll.ts";
import { param, scenario } from "../support/scenario.ts";
import { push } from "../support/server.ts";

let span: TestSpan;
let tree: FlameTree;

const { check, server } = scenario(async (server) => {
  span = paySpan();
  await push(server, span.service, profileOf(span, { places: PLACES }));
  tree = await graphOf(server.url, span.spanId);
});

async function open(page: Page, query = ""): Promise<void> {
  await page.goto(`${server.url}/span/${span.spanId}${query}`);
  await canvas(page).waitFor();
}

async function clickBar(page: Page, name: string): Promise<void> {
  await canvas(page).click({ position: await pointOf(page, tree, barOf(tree, name)) });
}

const readout = (page: Page) => page.getByTestId("readout");
const rows = (page: Page) => page.locator(".functions tbody tr");

async function firstColumn(page: Page): Promise<string[]> {
  return rows(page).evaluateAll((all) => all.map((row) => row.querySelector(".function")!.textContent!));
}

check("shows what the span is and what it cost", async (page) => {
  await open(page);
  assert.equal(await page.locator("h1").textContent(), "POST /pay");
  assert.equal(await page.locator(".eyebrow").textContent(), "checkout");
  assert.equal(await page.getByTestId("cpu").textContent(), "1 s");
  assert.equal(await page.getByTestId("samples").textContent(), "100");
  assert.ok((await page.locator(".facts").textContent())!.includes(span.traceId));
  assert.match((await page.locator("time").textContent())!, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d – /);
  assert.match((await readout(page).textContent())!, /100\.0% of span · total 1 s · self 0 ms/);
  assert.equal(await page.title(), "POST /pay · checkout · Spanflame");
  assert.equal(await page.getByTestId("uncertainty").count(), 0, "100 samples are enough");
  assert.equal(await page.getByTestId("rate").textContent(), "100 Hz");
  await eventually(async () => assert.equal(await page.getByTestId("losses").textContent(), "none reported"));
});

check("the table holds the right values, heaviest self first", async (page) => {
  await open(page);
  const text = await rows(page).evaluateAll((all) =>
    all.map((row) =>
      [...row.querySelectorAll("td")].map((cell) => cell.textContent!.trim().replace(/\s+/g, " ")),
    ),
  );
  assert.deepEqual(text.slice(0, 4), [
    ["sha2::sha256::x86::digest_blocks", "400 ms 40.0% 30.9–49.8%", "400 ms 40.0% 30.9–49.8%"],
    [
      "<checkout::model::Order as serde::ser::Serialize>::serialize",
      "200 ms 20.0% 13.3–28.9%",
      "200 ms 20.0% 13.3–28.9%",
    ],
    ["checkout::pricing::rule_matches", "180 ms 18.0% 11.7–26.7%", "180 ms 18.0% 11.7–26.7%"],
    ["regex_automata::meta::regex::Regex::search_half", "120 ms 12.0% 7.0–19.8%", "120 ms 12.0% 7.0–19.8%"],
  ]);
  const folded = text.find(([name]) => name === "Runtime frames (folded)");
  assert.deepEqual(folded?.slice(1), ["100 ms 10.0% 5.5–17.4%", "1 s 100.0%"]);
  const handler = text.find(([name]) => name === HANDLER);
  assert.deepEqual(handler?.slice(1), ["0 ms 0.0% 0.0–3.7%", "940 ms 94.0% 87.5–97.2%"]);
});

check("sorts by every column, both ways", async (page) => {
  await open(page);
  const header = (name: string) =>
    page.locator("th", { has: page.getByRole("button", { name, exact: true }) });
  const sort = (name: string) => header(name).getByRole("button").click();
  assert.equal(await header("Self").getAttribute("aria-sort"), "descending");
  await sort("Total");
  assert.deepEqual((await firstColumn(page)).slice(0, 2), ["Runtime frames (folded)", HANDLER]);
  assert.equal(param(page, "sort"), "total");
  await sort("Total");
  assert.equal(await header("Total").getAttribute("aria-sort"), "ascending");
  assert.equal((await firstColumn(page)).at(-1), "Runtime frames (folded)");
  await sort("Function");
  const names = (await firstColumn(page)).filter((name) => !name.startsWith("Runtime"));
  assert.deepEqual(names, [...names].sort());
  assert.equal(await header("Self").getAttribute("aria-sort"), null);
});

check("a click zooms; reset, back and forward follow", async (page) => {
  await open(page);
  await clickBar(page, SIGN);
  await eventually(async () =>
    assert.match((await readout(page).textContent())!, /^checkout::crypto::sign_receipt40\.0%/),
  );
  const zoom = param(page, "zoom");
  assert.ok(zoom);
  // The zoomed frame fills its row: its right end shows its own callee below.
  await eventually(async () => {
    const box = (await canvas(page).boundingBox())!;
    await page.mouse.move(box.x + box.width - 6, box.y + (tree.level[barOf(tree, COMPRESS)]! + 0.5) * 20);
    assert.match((await page.locator(".tooltip").textContent())!, /sha2::sha256::compress256/);
  });
  // A pointer that keeps still is told what comes to it.
  await page.goBack();
  await eventually(async () =>
    assert.doesNotMatch((await page.locator(".tooltip").allTextContents()).join(), /compress256/),
  );
  await page.goForward();
  await eventually(async () =>
    assert.match((await page.locator(".tooltip").allTextContents()).join(), /sha2::sha256::compress256/),
  );
  await page.getByRole("button", { name: "Reset zoom" }).click();
  await eventually(async () => assert.equal(param(page, "zoom"), null));
  await page.goBack();
  await eventually(async () => assert.match((await readout(page).textContent())!, /sign_receipt/));
  await page.goForward();
  await eventually(async () => assert.match((await readout(page).textContent())!, /^whole span/));
  assert.ok(await page.getByRole("button", { name: "Reset zoom" }).isDisabled());
});

check("the tooltip tells name, values, share and certainty", async (page) => {
  await open(page);
  await canvas(page).hover({ position: await pointOf(page, tree, barOf(tree, QUOTE)) });
  const text = (await page.locator(".tooltip").textContent())!;
  assert.match(text, /checkout::pricing::quote/);
  assert.match(text, /Total300 ms30\.0%Self0 ms0\.0%/);
  assert.match(text, /about 30 of 100 samples; 95% sure of 21\.9% to 39\.6%/);
  await canvas(page).hover({ position: await pointOf(page, tree, 1) });
  await eventually(async () =>
    assert.match((await page.locator(".tooltip").textContent())!, /6 folded functions/),
  );
});

check("search tells the share, marks the frames and filters the table", async (page) => {
  await open(page);
  const bar = barOf(tree, COMPRESS);
  const plain = await fillOf(page, tree, bar);
  await page.getByPlaceholder("Search functions").fill("SHA256");
  await eventually(async () =>
    assert.equal(await page.getByTestId("found").textContent(), "40.0% in 2 functions"),
  );
  assert.equal(param(page, "q"), "SHA256");
  assert.deepEqual((await firstColumn(page)).sort(), [
    "sha2::sha256::compress256",
    "sha2::sha256::x86::digest_blocks",
  ]);
  const [red, green, blue] = (await fillOf(page, tree, bar)) as [number, number, number];
  assert.notDeepEqual([red, green, blue], plain);
  assert.ok(red > 200 && green > 150 && blue < 120, `a match is yellow, not ${red},${green},${blue}`);
  // A term that only folded frames hold is found all the same.
  await page.getByPlaceholder("Search functions").fill("tokio");
  await eventually(async () =>
    assert.equal(await page.getByTestId("found").textContent(), "100.0% in 1 function"),
  );
  assert.deepEqual(await firstColumn(page), ["Runtime frames (folded)"]);
  await page.getByPlaceholder("Search functions").fill("");
  await eventually(async () => assert.equal(param(page, "q"), null));
  assert.equal(await page.getByTestId("found").textContent(), "");
});

check("a function's name in the table searches for it", async (page) => {
  await open(page);
  await page.getByRole("button", { name: QUOTE, exact: true }).click();
  await eventually(async () =>
    assert.equal(await page.getByTestId("found").textContent(), "30.0% in 1 function"),
  );
  assert.equal(await page.getByPlaceholder("Search functions").inputValue(), QUOTE);
});

check("runtime frames unfold and fold again, the zoom stays", async (page) => {
  await open(page);
  assert.equal(await page.getByText("Runtime frames (folded)").count(), 1);
  await clickBar(page, HANDLER);
  await eventually(async () => assert.match((await readout(page).textContent())!, /handlers::pay.*94\.0%/));
  const fold = page.getByLabel("Fold runtime frames");
  await fold.uncheck();
  assert.equal(param(page, "runtime"), "show");
  assert.equal(await page.getByText("Runtime frames (folded)").count(), 0);
  assert.ok((await firstColumn(page)).includes("start_thread"));
  assert.match((await readout(page).textContent())!, /handlers::pay.*94\.0%/);
  await fold.check();
  assert.equal(param(page, "runtime"), null);
  assert.match((await readout(page).textContent())!, /handlers::pay.*94\.0%/);
});

check("a flame graph stands on its root", async (page) => {
  await open(page);
  await page.getByRole("button", { name: "Flame", exact: true }).click();
  assert.equal(param(page, "view"), "flame");
  assert.equal(
    await page.getByRole("button", { name: "Flame", exact: true }).getAttribute("aria-pressed"),
    "true",
  );
  await eventually(async () => {
    const box = (await canvas(page).boundingBox())!;
    await page.mouse.move(box.x + 50, box.y + (tree.levelStart.length - 2 + 0.5) * 20);
    assert.match((await page.locator(".tooltip").textContent())!, /^whole span/);
  });
});

check("everything works by keyboard, and is said aloud", async (page) => {
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await open(page);
  const spoken = page.getByTestId("flame-live");
  const says = (expected: RegExp) =>
    eventually(async () => assert.match((await spoken.textContent())!, expected));
  assert.match((await canvas(page).getAttribute("aria-label"))!, /1 s in 100 samples.*digest_blocks 40\.0%/);

  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("type")), "search");
  for (let tabs = 0; tabs < 12; tabs++) {
    await page.keyboard.press("Tab");
    if (await page.evaluate(() => document.activeElement?.tagName === "CANVAS")) break;
  }
  await says(/^whole span: 100\.0% of the span/);
  await page.keyboard.press("ArrowDown");
  await says(/^runtime: .*total 1 s, self 60 ms, level 2 of/);
  await page.keyboard.press("ArrowDown");
  await says(/^checkout::handlers::pay::\{\{closure\}\}: 94\.0%/);
  await page.keyboard.press("ArrowDown");
  await says(/^checkout::crypto::sign_receipt: 40\.0%.*1 callee$/);
  await page.keyboard.press("ArrowRight");
  await says(/^checkout::pricing::quote: 30\.0%/);
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("Enter");
  await eventually(async () => assert.ok(param(page, "zoom")));
  await page.keyboard.press("c");
  await eventually(async () => assert.equal(await page.evaluate(() => navigator.clipboard.readText()), SIGN));
  await page.keyboard.press("ArrowRight");
  await says(/^checkout::crypto::sign_receipt/);
  await page.keyboard.press("Backspace");
  await eventually(async () => assert.match((await readout(page).textContent())!, /sign_receipt/));
  await page.keyboard.press("Escape");
  await eventually(async () => assert.equal(param(page, "zoom"), null));
  await says(/^whole span/);
});

check("a function stands between its callers and its callees", async (page) => {
  await open(page);
  await page.getByRole("button", { name: `Callers and callees of ${SIGN}` }).click();
  const around = page.getByTestId("sandwich");
  await around.waitFor();
  assert.equal(param(page, "fn"), SIGN);
  assert.match(
    (await around.textContent())!,
    /sign_receipt.*40\.0% of span \(95%: 30\.9–49\.8%\) · total 400 ms/,
  );
  const [callers, callees] = await around.locator("canvas").all();
  // Below the function itself stands what it called, above it its callers.
  await callees!.hover({ position: { x: 200, y: 30 } });
  await eventually(async () =>
    assert.match((await page.locator(".tooltip").textContent())!, /^sha2::sha256::compress256.*400 ms40\.0%/),
  );
  await callers!.hover({ position: { x: 200, y: 30 } });
  await eventually(async () =>
    assert.match((await page.locator(".tooltip").textContent())!, /^checkout::handlers::pay.*400 ms40\.0%/),
  );
  await callees!.click({ position: { x: 200, y: 30 } });
  await eventually(async () => assert.equal(param(page, "fn"), COMPRESS));
  await page.goBack();
  await eventually(async () => assert.equal(param(page, "fn"), SIGN));
  await page.getByRole("button", { name: "Whole graph" }).click();
  await eventually(async () => assert.equal(await around.count(), 0));
  await page.goto(`${server.url}/span/${span.spanId}?fn=no::such::function`);
  await page.getByText("This function does not occur here").waitFor();
});

check("callers and callees are there by keyboard, too", async (page) => {
  await open(page);
  await canvas(page).focus();
  for (let i = 0; i < 3; i++) await page.keyboard.press("ArrowDown");
  await page.keyboard.press("s");
  await eventually(async () => assert.equal(param(page, "fn"), SIGN));
  const callees = page.getByTestId("sandwich").locator("canvas").nth(1);
  await callees.focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await eventually(async () => assert.equal(param(page, "fn"), COMPRESS));
});

check("the graph is exported in every form", async (page) => {
  await open(page);
  const save = async (name: string) => {
    await page.locator(".menu").evaluate((menu) => ((menu as HTMLDetailsElement).open = true));
    const download = page.waitForEvent("download");
    await page.locator(".menu-items > *", { hasText: name }).click();
    const file = await download;
    const chunks: Buffer[] = [];
    for await (const chunk of await file.createReadStream()) chunks.push(chunk as Buffer);
    return { name: file.suggestedFilename(), text: Buffer.concat(chunks).toString("utf8") };
  };
  const folded = await save("Folded stacks");
  assert.equal(folded.name, `span-${span.spanId}.cpu.folded.txt`);
  assert.match(
    folded.text,
    /sign_receipt;sha2::sha256::compress256;sha2::sha256::x86::digest_blocks 400000000/,
  );
  const speedscope = JSON.parse((await save("speedscope")).text) as { profiles: { type: string }[] };
  assert.equal(speedscope.profiles[0]!.type, "sampled");
  const pprof = await save("pprof");
  assert.equal(pprof.name, `span-${span.spanId}.cpu.pb.gz`);
  const svg = await save("SVG");
  assert.match(svg.name, /^POST-pay-[0-9a-f]{16}\.svg$/);
  assert.match(svg.text, /^<svg .*<title>checkout::pricing::quote: 300 ms, 30\.0%; self 0 ms<\/title>/s);
  const html = await save("HTML");
  assert.match(
    html.text,
    /<th scope="row">sha2::sha256::x86::digest_blocks<\/th><td>400 ms<\/td><td>40\.0%<\/td>/,
  );
  assert.ok(!html.text.includes("<script"));
});

check("files and lines are told where the profile has them", async (page) => {
  await open(page);
  const hover = async (name: string) => {
    await canvas(page).hover({ position: await pointOf(page, tree, barOf(tree, name)) });
    return (await page.locator(".tooltip").textContent())!;
  };
  await eventually(async () => assert.match(await hover(SIGN), /src\/crypto\.rs:17Total/));
  await page.locator(".legend").getByText("inlined").waitFor();
  assert.match(await hover(COMPRESS), /sha2-0\.10\.8\/src\/sha256\.rs:80, inlinedTotal/);
  await clickBar(page, SIGN);
  await eventually(async () =>
    assert.equal(await page.getByTestId("source").textContent(), "src/crypto.rs:17"),
  );
});

check("names are copied by a button", async (page) => {
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await open(page);
  await page.getByRole("button", { name: `Copy name of ${COMPRESS}` }).click();
  await eventually(async () =>
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), COMPRESS),
  );
  await page.getByRole("button", { name: "Copy trace id" }).click();
  await eventually(async () =>
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), span.traceId),
  );
});

check("a link holds zoom, search, direction, folding and sorting", async (page) => {
  await open(page);
  await clickBar(page, QUOTE);
  await eventually(async () => assert.ok(param(page, "zoom")));
  const zoom = param(page, "zoom")!;
  await open(page, `?zoom=${zoom}&q=regex&view=flame&runtime=show&sort=name&order=asc`);
  assert.match((await readout(page).textContent())!, /^checkout::pricing::quote30\.0%/);
  assert.equal(await page.getByTestId("found").textContent(), "12.0% in 1 function");
  assert.equal(await page.getByLabel("Fold runtime frames").isChecked(), false);
  assert.equal(
    await page.getByRole("button", { name: "Flame", exact: true }).getAttribute("aria-pressed"),
    "true",
  );
  assert.equal(await page.locator("th").first().getAttribute("aria-sort"), "ascending");
});

check("the other profile type of the span can be chosen", async (page) => {
  await open(page);
  await page.getByLabel("Profile type").selectOption({ label: "samples" });
  await eventually(async () => assert.match((await readout(page).textContent())!, /total 100 · self 0/));
  assert.equal(param(page, "type"), "process_cpu:samples:count:cpu:nanoseconds");
});

check("the graph redraws with the window and needs no sideways scrolling when narrow", async (page) => {
  await page.setViewportSize({ width: 360, height: 720 });
  await open(page);
  const sideways = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok((await sideways()) <= 0);
  const narrow = (await canvas(page).boundingBox())!.width;
  assert.ok(narrow > 280 && narrow <= 360, `${narrow}`);
  assert.equal((await firstColumn(page))[0], "sha2::sha256::x86::digest_blocks");
  await page.setViewportSize({ width: 1000, height: 720 });
  await eventually(async () => assert.ok((await canvas(page).boundingBox())!.width > 800));
  assert.ok((await sideways()) <= 0);
});

const given = process.env["SPANFLAME_SPAN_ID"];
if (given) {
  check("the span that was asked for has a graph", async (page) => {
    await page.goto(`${server.url}/span/${given}`);
    await canvas(page).waitFor();
    assert.notEqual(await page.getByTestId("cpu").textContent(), "0 ms");
    assert.ok((await rows(page).count()) > 0);
  });
}
