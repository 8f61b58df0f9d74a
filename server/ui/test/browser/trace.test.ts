// A trace's page and the focus of a span's against the real server: the waterfall, the graph beside it, what is lost.

import assert from "node:assert/strict";
import type { Page } from "playwright-core";
import type { TraceSummary } from "../../src/api.ts";
import { answerOf } from "../support/answer.ts";
import {
  hostileSpan,
  newId,
  newSpan,
  payTrace,
  profileOf,
  pushTrace,
  type TestSpan,
  type TestTrace,
} from "../support/dataset.ts";
import { canvas } from "../support/graph.ts";
import { eventually } from "../support/poll.ts";
import { sendTraces } from "../support/otlp.ts";
import { overhang, param, scenario } from "../support/scenario.ts";
import { push } from "../support/server.ts";

let trace: TestTrace;
let hostile: TestSpan;

const { check, server } = scenario(async (server) => {
  trace = payTrace();
  await pushTrace(server, trace);
  hostile = hostileSpan();
  await push(server, hostile.service, profileOf(hostile));
});

async function open(page: Page, query = "", id = trace.traceId): Promise<void> {
  await page.goto(`${server.url}/trace/${id}${query}`);
  await canvas(page).first().waitFor();
}

/** Another trace like the first, whose profiles tell of nothing that was lost. */
async function pushAnother(): Promise<TestTrace> {
  const another = payTrace();
  for (const [service, profile] of another.profiles)
    await push(server, `other-${service}`, { ...profile, comments: [] });
  return another;
}

const rows = (page: Page) => page.locator(".waterfall tbody tr");
const readout = (page: Page) => page.getByTestId("readout");

/** Own and whole CPU of each span as the waterfall says it. */
async function spansOf(page: Page): Promise<string[][]> {
  const all = await rows(page).evaluateAll((each) =>
    each.map((row) => [
      row.querySelector(".name")?.textContent ?? "",
      ...[...row.querySelectorAll(".number")].map((cell) => cell.textContent!),
    ]),
  );
  return all.slice(1);
}

check("the waterfall shows each span's CPU, by itself and with those below it", async (page) => {
  await open(page);
  assert.equal(await page.locator("h1").textContent(), "POST /pay");
  assert.equal(await page.getByTestId("cpu").textContent(), "2 s");
  assert.equal(await page.getByTestId("samples").textContent(), "200");
  assert.deepEqual(await spansOf(page), [
    ["POST /pay", "1 s", "2 s"],
    ["charge card", "400 ms", "1 s"],
    ["POST /charge", "400 ms", "400 ms"],
    ["hash", "200 ms", "200 ms"],
  ]);
  assert.match((await page.locator(".waterfall").textContent())!, /Durations are not known here/);
  assert.match((await readout(page).textContent())!, /^whole trace100\.0% of trace · total 2 s/);
  const widths = await page
    .locator(".cpu-bar .own")
    .evaluateAll((bars) => bars.map((bar) => Math.round(bar.getBoundingClientRect().width)));
  assert.ok(Math.abs(widths[0]! - 2.5 * widths[1]!) <= 3, `${widths}`);
});

check("a span's graph stands beside the waterfall, by a click, a key or a link", async (page) => {
  await open(page);
  await page.getByRole("button", { name: "charge card" }).click();
  await page.getByRole("heading", { name: "charge card" }).waitFor();
  assert.equal(param(page, "span"), trace.charge.spanId);
  await eventually(async () =>
    assert.match((await readout(page).textContent())!, /^whole span100\.0% of span · total 600 ms/),
  );
  assert.equal(await rows(page).nth(2).getAttribute("aria-current"), "true");
  await page.getByRole("button", { name: "charge card" }).focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await eventually(async () => assert.equal(param(page, "span"), trace.remote.spanId));
  await page.goBack();
  await eventually(async () => assert.equal(param(page, "span"), trace.charge.spanId));
  await page.getByRole("button", { name: "Whole trace" }).click();
  await eventually(async () => assert.match((await readout(page).textContent())!, /^whole trace/));
  await open(page, `?span=${trace.hash.spanId}&focus=self`);
  await eventually(async () => assert.match((await readout(page).textContent())!, /total 200 ms/));
  await page.getByRole("link", { name: "Open the span" }).click();
  await page.locator("h1", { hasText: "hash" }).waitFor();
});

check("a trace that is cut short says so", async (page) => {
  await page.route(`**/api/v1/traces/${trace.traceId}`, async (route) => {
    const answer = (await (await route.fetch()).json()) as TraceSummary;
    const traced = { start: answer.from, durationNanos: 1e9, spanCount: 4, errorCount: 0 };
    await route.fulfill({
      json: { ...answer, traced: { ...traced, truncated: true, attributesLeftOut: true } },
    });
  });
  await open(page);
  await page.getByTestId("truncated").getByText("the first 4 are shown").waitFor();
  await page.getByText("without attributes, events and links").waitFor();
});

check("durations and gaps are drawn where the server knows them", async (page) => {
  const timed = await pushAnother();
  const began = Date.now() - 60_000;
  await sendTraces(server, [
    { span: timed.root, startMillis: began, nanos: 4e9 },
    { span: timed.charge, startMillis: began + 1000, nanos: 2e9, error: "no such card" },
    { span: timed.remote, startMillis: began + 2000, nanos: 0.4e9 },
  ]);
  await open(page, "", timed.traceId);
  assert.deepEqual(
    (await spansOf(page)).map(([name, duration, own]) => [name, duration, own]),
    [
      ["POST /pay", "4 s", "1 s"],
      ["charge card", "2 s", "400 ms"],
      ["POST /charge", "400 ms", "400 ms"],
      ["hash", "–", "200 ms"],
    ],
  );
  const bars = await page.locator(".time-bar").evaluateAll((all) =>
    all.map((bar) => {
      const ran = bar.querySelector(".ran");
      if (!ran) return null;
      const [whole, part, own] = [bar, ran, ran.firstElementChild!].map((each) =>
        each.getBoundingClientRect(),
      );
      const share = (pixels: number) => Math.round((100 * pixels) / whole!.width);
      return [share(part!.left - whole!.left), share(part!.width), share(own!.width)];
    }),
  );
  assert.deepEqual(bars, [
    [0, 100, 25],
    [25, 50, 10],
    [50, 10, 10],
  ]);
  assert.match((await page.locator(".waterfall").textContent())!, /4 s in all/);
});

check("lists and spans tell durations where the server knows them", async (page) => {
  const timed = await pushAnother();
  const attributes = { "http.route": "/pay", user: "<b>ada</b>" };
  const root = { span: timed.root, startMillis: Date.now() - 60_000, nanos: 4e9, attributes };
  await sendTraces(server, [{ ...root, event: "cache miss" }]);
  await page.goto(`${server.url}/?trace=${timed.traceId}`);
  const row = page.locator(".spans tbody tr", { hasText: "POST /pay" });
  await row.waitFor();
  assert.deepEqual((await row.locator(".number").allTextContents()).slice(0, 2), ["4 s", "1 s"]);
  const other = page.locator(".spans tbody tr", { hasText: "hash" });
  assert.equal(await other.locator(".number").first().textContent(), "–");
  await row.getByRole("link", { name: "POST /pay" }).click();
  assert.equal(await page.getByTestId("duration").textContent(), "4 s");
  const details = page.getByTestId("details");
  await details.getByText("Attributes (2), events (1)").click();
  const told = await details.locator("table").first().locator("tr").allTextContents();
  assert.deepEqual(told, ["http.route/pay", "user<b>ada</b>"]);
  await details.getByText("cache miss").waitFor();
  await details.getByText("service.name").waitFor();
});

check("a span without samples tells what it says of itself", async (page) => {
  const quiet = { ...newSpan("checkout", "look up", []), traceId: newId(16) };
  await sendTraces(server, [
    { span: quiet, startMillis: Date.now() - 5000, nanos: 3e5, error: "no such card" },
  ]);
  await page.goto(`${server.url}/span/${quiet.spanId}`);
  await page.getByRole("heading", { name: "look up" }).waitFor();
  assert.equal(await page.getByTestId("duration").textContent(), "300 µs");
  assert.equal(await page.getByTestId("status").textContent(), "error: no such card");
  await page.getByText(`No profile for span ${quiet.spanId}`).waitFor();
  await page.getByRole("link", { name: quiet.traceId }).click();
  await page.locator(".waterfall").waitFor();
  assert.deepEqual(
    (await spansOf(page)).map(([name, duration]) => [name, duration]),
    [["look up", "300 µs"]],
  );
});

check("a span that is known by its children alone says that it has no samples", async (page) => {
  await page.route("**/api/v1/traces/*", async (route) => {
    const answer = await route.fetch();
    const body = (await answer.json()) as { spans: object[] };
    const ghost = { ...body.spans[0], spanId: "00000000000000f1", name: null, service: null, samples: 0 };
    await route.fulfill({ response: answer, json: { ...body, spans: [...body.spans, ghost] } });
  });
  await page.goto(`${server.url}/trace/${trace.traceId}?span=00000000000000f1`);
  await page.getByText("No samples in this process").waitFor();
  await page.getByText("unknown_span").waitFor();
});

check("what is wrong with a trace's address is said", async (page) => {
  const unknown = newId(16);
  await page.goto(`${server.url}/trace/${unknown}`);
  await page.getByRole("heading", { name: `No profile for trace ${unknown}` }).waitFor();
  await page.goto(`${server.url}/trace/${trace.root.spanId}`);
  await page.getByRole("heading", { name: "This is a span id" }).waitFor();
  await page.getByRole("link", { name: "Open this span" }).click();
  await page.locator("h1", { hasText: "POST /pay" }).waitFor();
  await page.goto(`${server.url}/trace/nonsense`);
  await page.getByRole("heading", { name: "This is no trace id" }).waitFor();
  await open(page, "", trace.traceId.toUpperCase());
  await eventually(async () => assert.equal(new URL(page.url()).pathname, `/trace/${trace.traceId}`));
});

check("hostile names in a trace stay text", async (page) => {
  await open(page, "", hostile.traceId);
  assert.equal((await spansOf(page))[0]![0], "<script>window.pwned=3</script> \ufffdمرحبا");
  assert.equal(await page.locator("main script, main img").count(), 0);
});

check("a narrow window stacks the trace", async (page) => {
  await page.setViewportSize({ width: 360, height: 720 });
  await open(page);
  assert.ok((await overhang(page)) <= 0);
  const [left, right] = await Promise.all(
    [page.locator(".waterfall"), page.locator(".beside-main")].map((part) => part.boundingBox()),
  );
  assert.ok(right!.y >= left!.y + left!.height);
});

check(
  "a span's graph can be of the span alone, with its children, or of the service meanwhile",
  async (page) => {
    await page.goto(`${server.url}/span/${trace.root.spanId}`);
    const says = (expected: RegExp) =>
      eventually(async () => assert.match((await readout(page).textContent())!, expected));
    await says(/^whole span100\.0% of span · total 1\.6 s/);
    assert.equal(await page.getByTestId("own-cpu").textContent(), "1 s");
    assert.equal(await page.getByTestId("losses").textContent(), "2 samples (ring_full)");
    await page.getByRole("button", { name: "This span only" }).click();
    await says(/total 1 s/);
    assert.equal(param(page, "focus"), "self");
    await page.getByRole("button", { name: "Whole service" }).click();
    await says(/^whole service100\.0% of service · total 1\.7 s/);
    assert.ok((await page.locator(".functions").textContent())!.includes("checkout::housekeeping"));
    await page.getByRole("link", { name: "charge card" }).click();
    await page.locator("h1", { hasText: "charge card" }).waitFor();
    await page.getByRole("link", { name: trace.traceId }).click();
    await page.locator(".waterfall").waitFor();
    assert.equal(param(page, "span"), trace.charge.spanId);
  },
);

check("an empty graph says why, in the server's words", async (page) => {
  const nothing = answerOf({ names: ["total"], levels: [{ values: [0, 0, 0, 0] }] });
  await page.route("**/SelectMergeStacktraces", (route) => route.fulfill({ body: Buffer.from(nothing) }));
  await page.route("**/api/v1/explain?*", async (route) => {
    const url = new URL(route.request().url());
    url.searchParams.set("selector", '{service_name="payments"}');
    await route.fulfill({ response: await route.fetch({ url: url.href }) });
  });
  await page.goto(`${server.url}/span/${trace.root.spanId}`);
  const empty = page.getByTestId("empty");
  await empty
    .getByText('instead of service_name="payments" there is "checkout"')
    .waitFor()
    .catch(() => {});
  assert.match((await empty.textContent())!, /Nothing to show: no samples of CPU time/);
  assert.match((await empty.textContent())!, /nstead of service_name="payments" there is "checkout"/);
  assert.match((await empty.textContent())!, /selector_mismatch/);
});
