// Traces that were sent to the real server: finding them, and durations beside CPU time in every view of operations.

import assert from "node:assert/strict";
import { audit } from "../support/axe.ts";
import { newId, pushOperation, type TestOperation } from "../support/dataset.ts";
import { canvas } from "../support/graph.ts";
import { sendTraces } from "../support/otlp.ts";
import { eventually } from "../support/poll.ts";
import { cells, overhang, param, scenario } from "../support/scenario.ts";

let operation: TestOperation;

const { check, server } = scenario(async (server) => {
  operation = await pushOperation(server);
});

const query = (params: Record<string, string>) => new URLSearchParams(params).toString();

/** What the others need is sent by the first. */
check("without traces the page says how to send some, then finds them", async (page) => {
  await page.goto(`${server.url}/traces`);
  await page.getByText("No traces here yet").waitFor();
  const line = await page.locator(".send-traces code").textContent();
  assert.equal(line, `OTEL_EXPORTER_OTLP_ENDPOINT=${server.url} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`);
  await audit(page, "no traces");
  const { spans, slow, service } = operation;
  const now = Date.now();
  // A minute apart, of 100 to 2,100 ms; the slow one of 9 s fails.
  await sendTraces(server, [
    ...spans.map((span, i) => ({
      span,
      startMillis: now - (25 - i) * 60_000,
      nanos: (i + 1) * 100e6,
      attributes: { user: i % 2 === 0 ? "ada" : "bob and eve" },
    })),
    { span: slow, startMillis: now - 2 * 60_000, nanos: 9e9, error: "too late" },
    {
      span: { service, name: "look up", spanId: newId(8), traceId: slow.traceId, parentId: slow.spanId },
      startMillis: now - 2 * 60_000 + 10,
      nanos: 1e9,
    },
  ]);
  await page.getByRole("button", { name: "Refresh" }).click();
  await page.locator(".traces").waitFor();
  const found = await cells(page, ".traces tbody tr");
  assert.equal(found.length, 22);
  assert.match(found[0]![0]!, /^GET \/itemshop-/);
  assert.match(found[0]![1]!, /^look up1 s, one of 2$/);
  assert.deepEqual(found[0]!.slice(2, 5), ["9 s", "2 s", "21 error"]);
  await audit(page, "traces");
});

check("traces are found by what their spans say", async (page) => {
  await page.goto(`${server.url}/traces`);
  await page.locator(".traces").waitFor();
  const find = async (values: Record<string, string>, count: number) => {
    for (const label of ["Service", "Span name", "At least", "At most", "Attributes"])
      await page.getByLabel(label, { exact: true }).fill(values[label] ?? "");
    await page.getByLabel("Status").selectOption(values["Status"] ?? "");
    await page.getByRole("button", { name: "Find", exact: true }).click();
    await eventually(async () => assert.equal((await cells(page, ".traces tbody tr")).length, count));
  };
  await find({ "Span name": "GET /item", "At least": "2s" }, 3);
  assert.equal(param(page, "min"), "2s");
  await find({ "At most": "300ms" }, 3);
  await find({ Status: "Error" }, 1);
  await find({ Attributes: "user=ada" }, 11);
  await find({ Attributes: 'user="bob and eve"' }, 10);
  await find({ Service: "nobody" }, 0);
  await page.getByText("No trace matches").waitFor();
  await page.goBack();
  await eventually(async () => assert.equal((await cells(page, ".traces tbody tr")).length, 10));
  await page.getByLabel("At least").fill("soon");
  await page.keyboard.press("Enter");
  await page.getByText("MinDuration: expected a duration such as 250ms").waitFor();
  await page.goto(`${server.url}/traces?status=error`);
  await page.getByRole("link", { name: "GET /item" }).click();
  await page.locator(".waterfall").waitFor();
  assert.equal(await page.getByTestId("duration").first().textContent(), "9 s");
  assert.equal(await page.getByTestId("errors").textContent(), "1");
  await audit(page, "a trace with durations");
});

check("operations have percentiles beside their CPU time", async (page) => {
  const { service } = operation;
  await page.goto(`${server.url}/services?${query({ service })}`);
  await page.locator(".operations").waitFor();
  const [, item, outside, lookUp] = await cells(page, ".operations tbody tr").then((all) => [
    all[0],
    all.find(([name]) => name!.startsWith("GET /item")),
    all.find(([name]) => name === "In no span"),
    all.find(([name]) => name === "look up"),
  ]);
  assert.equal(item![0], "GET /item1 error");
  assert.deepEqual(item!.slice(3, 5), ["22", "373 ms"]);
  for (const [at, wanted] of [1100, 2100, 9000].entries()) {
    const [number, unit] = item![5 + at]!.split(" ");
    const got = Number(number) * (unit === "s" ? 1000 : 1);
    assert.ok(Math.abs(got - wanted) <= wanted / 50, `${item}`);
  }
  assert.deepEqual(outside!.slice(1, 4), ["500 ms", "5.7%", "–"]);
  assert.deepEqual([lookUp![3], lookUp![4]], ["1", "0 ms"]);
  await audit(page, "operations with durations");
});

check("an operation's spans are mapped by their duration", async (page) => {
  const { service, name, slow } = operation;
  await page.goto(`${server.url}/operation?${query({ service, name })}`);
  await page.locator(".heatmap").waitFor();
  await page.locator(".spans").waitFor();
  const list = await cells(page, ".spans tbody tr");
  assert.deepEqual(list[0]!.slice(2, 4), ["9 s", "2 s"], "the heaviest, with its duration");
  await page.getByRole("button", { name: "Duration", exact: true }).click();
  await page.getByRole("heading", { name: "Longest spans" }).waitFor();
  assert.equal(param(page, "by"), "duration");
  assert.equal((await cells(page, ".spans tbody tr"))[0]![0], `GET /item${slow.spanId} error`);
  const map = page.getByRole("application", { name: /^Spans over time/ });
  assert.match((await map.getAttribute("aria-label"))!, /^Spans over time by their duration/);
  // The slow one alone is in the topmost row.
  await map.focus();
  await page.keyboard.press("ArrowUp");
  for (let row = 0; row < 24; row++) await page.keyboard.press("ArrowUp");
  await page.keyboard.down("Shift");
  for (let column = 0; column < 60; column++) await page.keyboard.press("ArrowLeft");
  await page.keyboard.up("Shift");
  await page.keyboard.press("Enter");
  await eventually(async () => assert.equal(await page.getByTestId("span-count").textContent(), "1"));
  await canvas(page).waitFor();
  assert.match((await page.getByTestId("readout").textContent())!, /total 2 s/);
  await audit(page, "an operation by duration");
});

check("traces are readable in the dark, on a narrow window, and whatever they are called", async (page) => {
  const hostile = {
    service: "<img src=x onerror=pwned=1>",
    name: "<script>window.pwned=2</script>\u202e",
    spanId: newId(8),
    traceId: newId(16),
  };
  const attributes = { "<b>key</b>": `<script>window.pwned=3</script>${"x".repeat(500)}` };
  const startMillis = Date.now() - 1000;
  await sendTraces(server, [{ span: hostile, startMillis, nanos: 5e6, error: "<i>no</i>", attributes }]);
  const { service, name } = operation;
  await page.emulateMedia({ colorScheme: "dark" });
  for (const width of [1280, 360]) {
    await page.setViewportSize({ width, height: 760 });
    for (const [path, ready] of [
      ["traces", ".traces"],
      [`traces?from=${startMillis - 3_600_000}&until=${startMillis + 1000}`, ".traces"],
      [`trace/${hostile.traceId}?span=${hostile.spanId}`, ".waterfall"],
      [`services?${query({ service })}`, ".operations"],
      [`operation?${query({ service, name, by: "duration" })}`, ".heatmap"],
    ] as const) {
      await page.goto(`${server.url}/${path}`);
      await page.locator(ready).waitFor();
      if (ready === ".waterfall") await page.getByTestId("details").locator("summary").click();
      await audit(page, `${path} at ${width}`);
      assert.equal(await page.locator("main script, main img, main b.name *").count(), 0, path);
      const over = await overhang(page);
      assert.ok(over <= 0, `${path} at ${width}: ${over}`);
    }
  }
});
