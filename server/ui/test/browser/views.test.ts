// Services, operations, comparisons and the way from a function to its requests, against the real server.

import assert from "node:assert/strict";
import type { Page } from "playwright-core";
import { audit } from "../support/axe.ts";
import {
  hostileSpan,
  profileOf,
  pushOperation,
  SCRIPT_NAME,
  SLOW,
  type TestOperation,
  type TestSpan,
} from "../support/dataset.ts";
import { canvas } from "../support/graph.ts";
import { eventually } from "../support/poll.ts";
import { cells, overhang, param, scenario } from "../support/scenario.ts";
import { push } from "../support/server.ts";

let operation: TestOperation;
let hostile: TestSpan;

const { check, server } = scenario(async (server) => {
  operation = await pushOperation(server);
  hostile = hostileSpan();
  await push(server, hostile.service, profileOf(hostile));
});

const query = (params: Record<string, string>) => String(new URLSearchParams(params));
const open = (page: Page, path: string) => page.goto(`${server.url}/${path}`);
const openOperation = async (page: Page, more: Record<string, string> = {}) => {
  const { service, name } = operation;
  await open(page, `operation?${query({ service, name, ...more })}`);
  await canvas(page).waitFor();
};
const typical = () => {
  const { service, name, slow } = operation;
  return `compare?${query({ left: query({ service, name, typical: "1" }), right: query({ span: slow.spanId }) })}`;
};

check("services list their operations and what ran in no span", async (page) => {
  const { service } = operation;
  await open(page, "services");
  await page.getByRole("link", { name: service }).click();
  await page.locator("h1", { hasText: service }).waitFor();
  await page.locator(".operations").waitFor();
  assert.deepEqual(await cells(page, ".operations tbody tr"), [
    [service, "8.7 s", "100.0%", "22", "", "870"],
    ["GET /item", "8.2 s", "94.3%", "22", "373 ms", "820"],
    ["In no span", "500 ms", "5.7%", "–", "–", "50"],
  ]);
  assert.match((await page.locator("main").textContent())!, /Durations are not known here/);
  await page.getByRole("link", { name: "Flame graph of the service" }).click();
  await canvas(page).waitFor();
  assert.match((await page.getByTestId("readout").textContent())!, /^whole service.* total 8\.7 s/);
  await page.goBack();
  await page.getByRole("link", { name: "In no span" }).click();
  await canvas(page).waitFor();
  assert.ok((await page.locator(".functions").textContent())!.includes("app::background"));
  assert.match((await page.getByTestId("readout").textContent())!, /total 500 ms/);
  await page.goBack();
  await page.getByRole("link", { name: "GET /item" }).click();
  await page.locator(".heatmap").waitFor();
});

check("a time without profiles says so and offers another", async (page) => {
  const { service } = operation;
  await open(page, `services?${query({ service, from: "1000", until: "2000" })}`);
  const empty = page.getByTestId("empty");
  await empty.getByText("outside_window").waitFor();
  assert.match((await empty.textContent())!, /Ask for from=\d{4}-\d\d-\d\d/);
  await page.getByRole("link", { name: "Look at all that is kept" }).click();
  await page.locator(".operations").waitFor();
  await page.locator(".range select").selectOption("15m");
  await eventually(async () => assert.equal(param(page, "range"), "15m"));
  await open(page, `services?${query({ service: "nobody-has-this-name" })}`);
  await page.getByText("selector_mismatch").waitFor();
});

check("an operation shows its spans over time, the heaviest, and their code", async (page) => {
  await openOperation(page);
  assert.equal(await page.locator("h1").textContent(), "GET /item");
  assert.equal(await page.getByTestId("span-count").textContent(), "22");
  assert.equal(await page.getByTestId("cpu").textContent(), "8.2 s");
  await page.locator(".heatmap .cell").first().waitFor();
  await page.locator(".spans").waitFor();
  const drawn = await page.locator(".heatmap .cell").count();
  assert.ok(drawn >= 12 && drawn <= 22, `${drawn} cells`);
  const first = (await cells(page, ".spans tbody tr"))[0]!;
  assert.equal(first[0], `GET /item${operation.slow.spanId}`);
  assert.deepEqual(first.slice(2, 4), ["2 s", "200"]);
  assert.match((await page.getByTestId("readout").textContent())!, /100\.0% of operation · total 8\.2 s/);
});

check("dragging over the heat map selects spans, and the graph follows", async (page) => {
  await openOperation(page);
  const box = (await page.locator(".heatmap svg").boundingBox())!;
  // The upper half: only the slow span.
  await page.mouse.move(box.x + 4, box.y + 4);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width - 4, box.y + box.height / 2, { steps: 4 });
  await page.mouse.up();
  await page.getByTestId("brush").waitFor();
  await eventually(async () => assert.equal(await page.getByTestId("span-count").textContent(), "1"));
  await eventually(async () => assert.match((await page.getByTestId("readout").textContent())!, /total 2 s/));
  const brush = param(page, "brush")!;
  await page.getByRole("button", { name: "Zoom to this time" }).click();
  await eventually(async () => assert.ok(param(page, "from") && !param(page, "brush")));
  await page.locator(".heatmap").waitFor();
  await openOperation(page, { brush });
  assert.equal(await page.getByTestId("span-count").textContent(), "1", "a link holds the selection");
  await page.getByRole("button", { name: "Clear" }).click();
  await eventually(async () => assert.equal(await page.getByTestId("span-count").textContent(), "22"));
});

check("the heat map works by keyboard and is said aloud", async (page) => {
  await openOperation(page);
  const map = page.locator(".heatmap svg");
  const status = page.getByTestId("heatmap-status");
  await map.focus();
  await page.keyboard.press("ArrowUp");
  await eventually(async () => assert.match((await status.textContent())!, /: \d+ spans?$/));
  for (let i = 0; i < 59; i++) await page.keyboard.press("Shift+ArrowLeft");
  for (let i = 0; i < 19; i++) await page.keyboard.press("Shift+ArrowUp");
  await eventually(async () => assert.match((await status.textContent())!, /: 22 spans$/));
  await page.keyboard.press("Enter");
  await eventually(async () => assert.ok(param(page, "brush")));
  await eventually(async () => assert.equal(await page.getByTestId("span-count").textContent(), "22"));
  await map.focus();
  await page.keyboard.press("Escape");
  await eventually(async () => assert.equal(param(page, "brush"), null));
});

check("an operation's graph takes in the spans below on request", async (page) => {
  await openOperation(page);
  await page.getByRole("button", { name: "With children" }).click();
  await eventually(async () => assert.equal(param(page, "children"), "1"));
  await eventually(async () =>
    assert.match((await page.getByTestId("readout").textContent())!, /total 8\.2 s/),
  );
});

check("an operation's graph is exported as shown", async (page) => {
  await openOperation(page);
  await page.getByText("Export", { exact: true }).click();
  const download = page.waitForEvent("download");
  await page.getByRole("link", { name: "Folded stacks" }).click();
  const file = await download;
  assert.equal(file.suggestedFilename(), "profile.cpu.folded.txt");
  const chunks: Buffer[] = [];
  for await (const chunk of await file.createReadStream()) chunks.push(chunk as Buffer);
  assert.deepEqual(Buffer.concat(chunks).toString("utf8").trim().split("\n").sort(), [
    `app::item;${SLOW} 1600000000`,
    "app::item;app::query 3960000000",
    "app::item;app::render 2640000000",
  ]);
  assert.equal(await page.locator(".menu").getAttribute("open"), null, "the menu closes");
});

check("a span is compared with its operation's typical spans in one click", async (page) => {
  await open(page, `span/${operation.slow.spanId}`);
  await page.getByRole("link", { name: "Compare with typical spans" }).click();
  await page.locator(".changes").waitFor();
  assert.match(
    (await page.getByTestId("left").textContent())!,
    /typical GET \/item.*11 spans from the middle half/,
  );
  assert.match((await page.getByTestId("right").textContent())!, /GET \/item.*200 samples/);
  const rows = await cells(page, ".changes tbody tr");
  assert.deepEqual(rows[0], [SLOW, "0.0%", "80.0%", "+80.0 points", "beyond chance (p < 0.001)"]);
  assert.deepEqual(rows[1], ["app::query", "60.0%", "12.0%", "−48.0 points", "beyond chance (p < 0.001)"]);
  assert.match(
    (await page.getByTestId("signals").textContent())!,
    /^3 of 3 changed beyond chance \(two-proportion z-test/,
  );
  await page.getByRole("button", { name: "Total" }).click();
  await eventually(async () => {
    const item = (await cells(page, ".changes tbody tr")).find(([name]) => name === "app::item");
    assert.deepEqual(item, ["app::item", "100.0%", "100.0%", "±0.0 points", "within noise (p = 1.00)"]);
  });
  const box = (await canvas(page).boundingBox())!;
  await page.mouse.move(box.x + 10, box.y + 50);
  assert.match(
    (await page.locator(".tooltip").textContent())!,
    /Baseline.*0\.0%Compared.*80\.0%Change\+80\.0 points/,
  );
  await page.getByPlaceholder("Search functions").fill("render");
  await eventually(async () =>
    assert.equal(await page.getByTestId("found").textContent(), "40.0% → 8.0% in 1 functions"),
  );
});

check("the comparison's colours tell more from less", async (page) => {
  await open(page, typical());
  await canvas(page).waitFor();
  const pixel = (x: number, y: number) =>
    canvas(page).evaluate(
      (element, [x, y]) => [
        ...(element as HTMLCanvasElement)
          .getContext("2d")!
          .getImageData(x! * devicePixelRatio, y! * devicePixelRatio, 1, 1).data,
      ],
      [x, y],
    );
  const width = (await canvas(page).boundingBox())!.width;
  await eventually(async () => {
    const [more, less] = [await pixel(3, 42), await pixel(width - 6, 42)];
    assert.ok(more[0]! > more[2]! + 40, `orange, not ${more}`);
    assert.ok(less[2]! > less[0]! + 20, `blue, not ${less}`);
  });
});

check("any profile type is compared, and a comparison is exported", async (page) => {
  await open(page, typical());
  await page.locator(".changes").waitFor();
  await page.getByLabel("Profile type").selectOption({ label: "samples" });
  await eventually(async () => {
    assert.equal(param(page, "type"), "process_cpu:samples:count:cpu:nanoseconds");
    const [first] = await cells(page, ".changes tbody tr");
    assert.deepEqual(first, [SLOW, "0.0%", "80.0%", "+80.0 points", "beyond chance (p < 0.001)"]);
  });
  assert.match((await page.getByTestId("right").textContent())!, /200 samples/);
  const box = (await canvas(page).boundingBox())!;
  await page.mouse.move(box.x + 10, box.y + 50);
  assert.match((await page.locator(".tooltip").textContent())!, /Baseline0.*Compared160/);
  await page.mouse.move(0, 0);
  const save = async (name: string) => {
    await page.locator(".menu summary").click();
    const download = page.waitForEvent("download");
    await page.locator(".menu-items > *", { hasText: name }).click();
    const file = await download;
    const chunks: Buffer[] = [];
    for await (const chunk of await file.createReadStream()) chunks.push(chunk as Buffer);
    return { name: file.suggestedFilename(), text: Buffer.concat(chunks).toString("utf8") };
  };
  const diff = await save("Difference, folded");
  assert.match(diff.name, /^typical-GET-item-and-GET-item\.diff\.folded\.txt$/);
  assert.ok(diff.text.includes(`app::item;${SLOW} 0 160\n`), diff.text);
  assert.match(diff.text, /^app::item;app::query [1-9]\d* 24$/m);
  assert.match((await save("Compared, folded")).text, /^app::item;app::query 24$/m);
  assert.ok(!(await save("Baseline, folded")).text.includes(SLOW));
  for (const side of ["Baseline", "Compared"]) assert.match((await save(`${side}, pprof`)).name, /\.pb\.gz$/);
  const picture = await save("Picture");
  assert.match(picture.text, new RegExp(`<title>${SLOW}: Baseline 0 .*Compared 160 .*beyond chance`));
  const html = await save("Self-contained HTML");
  assert.match(html.text, /<th scope="col">Verdict<\/th>/);
  assert.ok(html.text.includes("<td>+80.0 points</td>"));
});

check("equal selections differ in nothing, and sides can be swapped and chosen", async (page) => {
  const { spans, slow } = operation;
  await open(page, `compare?${query({ right: query({ span: spans[0]!.spanId }) })}`);
  await page.getByLabel("Span id, trace id, or the address of a page here").fill("nonsense");
  await page.getByRole("button", { name: "Choose", exact: true }).click();
  await page.getByText("only the characters").waitFor();
  await page
    .getByLabel("Span id, trace id, or the address of a page here")
    .fill(`${server.url}/span/${spans[0]!.spanId}`);
  await page.getByRole("button", { name: "Choose", exact: true }).click();
  await page.getByTestId("signals").waitFor();
  assert.match((await page.getByTestId("signals").textContent())!, /^0 of/);
  await page.getByText("Few samples").waitFor();
  await open(page, typical());
  await page.locator(".changes").waitFor();
  await page.getByRole("button", { name: "Swap sides" }).click();
  await eventually(async () =>
    assert.match((await page.getByTestId("left").textContent())!, new RegExp(slow.spanId)),
  );
  assert.equal((await cells(page, ".changes tbody tr"))[0]![3], "−80.0 points");
});

check("what cannot be compared is said", async (page) => {
  await open(
    page,
    `compare?${query({ left: query({ service: "nobody" }), right: query({ span: operation.slow.spanId }) })}`,
  );
  await page.getByText("The baseline has no samples").waitFor();
  await open(
    page,
    `compare?${query({ left: query({ span: "ffffffffffffffff" }), right: query({ span: operation.slow.spanId }) })}`,
  );
  await page.getByRole("heading", { name: "These cannot be compared" }).waitFor();
});

check("from a frame to the requests that spent most time in it", async (page) => {
  await open(page, `span/${operation.slow.spanId}`);
  await canvas(page).waitFor();
  await page.getByRole("button", { name: `Callers and callees of ${SLOW}` }).click();
  await page.getByRole("link", { name: "Requests" }).click();
  await page.locator(".requests").waitFor();
  const rows = await cells(page, ".requests tbody tr");
  assert.equal(rows.length, 1);
  assert.equal(rows[0]![0], `GET /item${operation.slow.spanId}`);
  assert.deepEqual(rows[0]!.slice(2, 4), ["1.6 s", "80.0%"]);
  await open(page, `function?${query({ function: "app::render", service: operation.service })}`);
  await page.locator(".requests").waitFor();
  const values = (await cells(page, ".requests tbody tr")).map((row) => row[2]);
  assert.equal(values.length, 22);
  assert.deepEqual(values.slice(0, 2), ["160 ms", "160 ms"]);
  assert.match((await page.locator("main").textContent())!, /2\.64 s of CPU time in the function/);
  await open(page, `function?${query({ function: "no::such::function" })}`);
  await page.getByText("No sample of this function").waitFor();
  await page.getByRole("link", { name: "Functions" }).click();
  await page.getByLabel("Whole name of the function").fill(SLOW);
  await page.getByRole("button", { name: "Find" }).click();
  await page.locator(".requests").waitFor();
});

check("hostile names stay text in every view", async (page) => {
  const { service, name, spanId } = hostile;
  for (const [path, ready] of [
    [`services?${query({ service })}`, ".operations"],
    [`operation?${query({ service, name })}`, "canvas"],
    [`function?${query({ function: SCRIPT_NAME })}`, ".requests"],
    [`compare?${query({ left: query({ service, name }), right: query({ span: spanId }) })}`, ".changes"],
  ] as const) {
    await open(page, path);
    await page.locator(ready).waitFor();
    assert.equal(await page.locator("main script, main img, main b.name *").count(), 0, path);
    assert.ok((await overhang(page)) <= 0, path);
  }
});

for (const colorScheme of ["light", "dark"] as const) {
  check(
    `no accessibility violation in the views, ${colorScheme}`,
    async (page) => {
      const { service, name } = operation;
      for (const width of [1280, 360]) {
        await page.setViewportSize({ width, height: 760 });
        for (const [path, ready] of [
          ["services", ".operations"],
          [`services?${query({ service: "nobody" })}`, "[data-testid=empty] code"],
          [`operation?${query({ service, name })}`, "canvas"],
          [`function?${query({ function: "app::render" })}`, ".requests"],
          ["function", "form"],
          [typical(), ".changes"],
          ["compare", "form"],
        ] as const) {
          await open(page, path);
          await page.locator(ready).first().waitFor();
          await audit(page, `${path} at ${width}`);
          const sideways = await overhang(page);
          assert.ok(sideways <= 0, `${path} at ${width} scrolls ${sideways} sideways`);
        }
      }
    },
    { colorScheme },
  );
}
