// The rest of the page against the real server: list, look-up, failures, hostile names, themes, accessibility, sub-path.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { answerOf } from "../support/answer.ts";
import { audit } from "../support/axe.ts";
import {
  hostileSpan,
  newId,
  newSpan,
  PERIOD,
  paySpan,
  profileOf,
  SCRIPT_NAME,
  SIGN,
  type TestSpan,
} from "../support/dataset.ts";
import { canvas } from "../support/graph.ts";
import { eventually } from "../support/poll.ts";
import { mountUnder } from "../support/proxy.ts";
import { scenario } from "../support/scenario.ts";
import { push, startServer } from "../support/server.ts";

let span: TestSpan;
let hostile: TestSpan;

const { check, server, visit } = scenario(async (server) => {
  span = paySpan();
  hostile = hostileSpan();
  for (const each of [span, hostile]) await push(server, each.service, profileOf(each));
});

const home = (page: Page, query = "") => page.goto(`${server.url}/${query}`);
const openSpan = async (page: Page, id: string) => {
  await page.goto(`${server.url}/span/${id}`);
  await canvas(page).waitFor();
};
const path = (page: Page) => new URL(page.url()).pathname;
const lookUp = async (page: Page, text: string) => {
  await page.getByLabel("Span id or trace id").fill(text);
  await page.getByRole("button", { name: "Open" }).click();
};

check("the home page lists the spans with their numbers", async (page) => {
  await home(page, `?trace=${span.traceId}`);
  const row = page.locator(".spans tbody tr");
  await row.waitFor();
  const cells = await row.locator("td").allTextContents();
  assert.equal(cells[0], `POST /pay${span.spanId}`);
  assert.deepEqual(cells.slice(1, 4), ["checkout", "1 s", "100"]);
  assert.ok(cells[4]!.startsWith(span.traceId.slice(0, 8)));
  assert.match(cells[5]!, /ago|just now/);
  await page.getByRole("link", { name: "POST /pay" }).click();
  await canvas(page).waitFor();
  assert.equal(path(page), `/span/${span.spanId}`);
  await page.goBack();
  await row.waitFor();
});

check("spans stand in the order of their CPU time, and a service narrows the list", async (page) => {
  const service = `ordered-${newId(4)}`;
  for (const samples of [2, 9, 5]) {
    const each = newSpan(service, `op ${samples}`, [{ frames: ["app::work"], value: samples * PERIOD }]);
    await push(server, service, profileOf(each));
  }
  await home(page, `?service=${service}`);
  await page.locator(".spans").waitFor();
  assert.deepEqual(await page.locator(".spans tbody .wide a").allTextContents(), ["op 9", "op 5", "op 2"]);
  await page.getByRole("link", { name: "Show all" }).click();
  await page.getByRole("link", { name: "POST /pay" }).first().waitFor();
  await home(page, "?service=nobody-has-this-name");
  await page.getByText("No span matches").waitFor();
});

check("the list is narrowed by service and name, and ordered", async (page) => {
  const service = `filtered-${newId(4)}`;
  for (const [name, samples] of [
    ["op a", 2],
    ["op b", 9],
  ] as const) {
    const each = newSpan(service, name, [{ frames: ["app::work"], value: samples * PERIOD }]);
    await push(server, service, profileOf(each));
  }
  const names = () => page.locator(".spans tbody .wide a").allTextContents();
  await home(page);
  await page.locator(".spans").waitFor();
  await page.getByPlaceholder("Service").fill(service);
  await page.keyboard.press("Enter");
  await eventually(async () => assert.deepEqual(await names(), ["op b", "op a"]));
  await eventually(async () =>
    assert.ok((await page.locator("datalist").first().locator("option").count()) > 0),
  );
  await page.getByPlaceholder("Span name").fill("op a");
  await page.keyboard.press("Enter");
  await eventually(async () => assert.deepEqual(await names(), ["op a"]));
  await home(page, `?service=${service}&sort=newest`);
  await page.locator(".spans").waitFor();
  assert.equal(await page.getByPlaceholder("Service").inputValue(), service);
  assert.deepEqual(await names(), ["op b", "op a"]);
});

check("a long list goes on at a press", async (page) => {
  const service = `long-${newId(4)}`;
  const spans = Array.from({ length: 120 }, (_, i) =>
    newSpan(service, `op ${i}`, [{ frames: ["app::work"], value: (i + 1) * PERIOD }]),
  );
  await push(server, service, profileOf(spans));
  await home(page, `?service=${service}`);
  const rows = page.locator(".spans tbody tr");
  await rows.first().waitFor();
  assert.equal(await rows.count(), 100);
  await page.getByRole("button", { name: "Show 100 more" }).click();
  await eventually(async () => assert.equal(await rows.count(), 120));
  assert.equal(await page.getByRole("button", { name: "Show 100 more" }).count(), 0);
});

check("the look-up takes an id as it is pasted", async (page) => {
  await home(page);
  await lookUp(page, `  ${span.spanId.toUpperCase().replace(/(.{8})/, "$1 ")} `);
  await canvas(page).waitFor();
  assert.equal(path(page), `/span/${span.spanId}`);
  await page.getByRole("link", { name: "Spanflame" }).click();
  await lookUp(page, span.traceId);
  await page.locator(".waterfall").waitFor();
  assert.equal(path(page), `/trace/${span.traceId}`);
});

check("the look-up says what is wrong with an id", async (page) => {
  await home(page);
  for (const [text, message] of [
    ["abc", /this has 3/],
    ["xyzxyzxyzxyzxyzx", /only the characters/],
    ["", /Enter a span id/],
    ['${__span.tags["pyroscope.profile.id"]}', /never filled in/],
  ] as const) {
    await lookUp(page, text);
    await eventually(async () => assert.match((await page.locator(".problem").textContent())!, message));
    assert.equal(path(page), "/");
  }
});

check("an empty server explains how to send the first profile", async (page) => {
  await page.route("**/api/v1/spans?*", (route) => route.fulfill({ json: { spans: [] } }));
  await home(page);
  await page.getByText("No span profiles yet").waitFor();
  assert.ok((await page.locator("main").textContent())!.includes(`PYROSCOPE_SERVER_ADDRESS=${server.url} `));
  await page.unroute("**/api/v1/spans?*");
  await page.getByRole("button", { name: "Look again" }).click();
  await page.locator(".spans").waitFor();
});

check("an unknown span says so and why, and appears once its profile is there", async (page) => {
  const late = newSpan("late", "GET /late", [{ frames: ["app::work"], value: 3 * PERIOD }]);
  await page.goto(`${server.url}/span/${late.spanId}`);
  await page.getByRole("heading", { name: `No profile for span ${late.spanId}` }).waitFor();
  const answer = (await (await fetch(`${server.url}/api/v1/spans/${late.spanId}`)).json()) as {
    message: string;
    reason: string;
    hints: string[];
  };
  const text = (await page.locator("main").textContent())!;
  assert.equal(answer.reason, "unknown_span");
  assert.ok(answer.hints.length > 0);
  for (const part of [answer.message, answer.reason, ...answer.hints])
    assert.ok(text.includes(part.slice(1)), part);
  assert.match(text, /The server holds \d[\d,]* profiles with \d[\d,]* spans, from \d{4}-/);
  await push(server, late.service, profileOf(late));
  await page.getByRole("button", { name: "Try again" }).click();
  await canvas(page).waitFor();
  assert.equal(await page.getByTestId("cpu").textContent(), "30 ms");
  assert.match((await page.getByTestId("uncertainty").textContent())!, /3 samples.*from 12\.5% to 87\.5%/);
});

check("an address that holds no span id says so", async (page) => {
  for (const [id, heading, message] of [
    ["abc", "This is no span id", /this has 3/],
    [encodeURIComponent('${__span.tags["pyroscope.profile.id"]}'), "This is no span id", /never filled in/],
    [encodeURIComponent("<script>window.pwned=1</script>"), "This is no span id", /only the characters/],
    [span.traceId, "This is a trace id", /32 of them name a trace/],
  ] as const) {
    await page.goto(`${server.url}/span/${id}`);
    await page.getByRole("heading", { name: heading }).waitFor();
    assert.match((await page.locator("main").textContent())!, message);
  }
  await page.getByRole("link", { name: "Spans of this trace" }).click();
  await page.locator(".waterfall").waitFor();
});

check("an id in upper case leads to the span", async (page) => {
  await openSpan(page, span.spanId.toUpperCase());
  await eventually(async () => assert.equal(path(page), `/span/${span.spanId}`));
});

check("a server that does not answer can be tried again", async (page) => {
  await page.route("**/api/**", (route) => route.abort());
  await page.goto(`${server.url}/span/${span.spanId}`);
  await page.getByRole("heading", { name: "No connection" }).waitFor();
  await page.unroute("**/api/**");
  await page.getByRole("button", { name: "Try again" }).click();
  await canvas(page).waitFor();
});

check("a token that is no longer good is asked for again", async (page) => {
  await page.route("**/api/**", (route) =>
    route.fulfill({ status: 401, json: { code: "unauthenticated", message: "this server wants a token" } }),
  );
  await page.goto(`${server.url}/span/${span.spanId}`);
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await page.getByText("This server wants a token.").waitFor();
  await page.unroute("**/api/**");
  await page.getByLabel("Token").fill("a-new-one");
  await page.getByRole("button", { name: "Sign in" }).click();
  await canvas(page).waitFor();
});

check("an answer that breaks the encoding is refused with the place", async (page) => {
  const broken = answerOf({ names: ["total"], levels: [{ values: [0, 1, 0, 0] }, { values: [0] }] });
  await page.route("**/SelectMergeStacktraces", (route) => route.fulfill({ body: Buffer.from(broken) }));
  await page.goto(`${server.url}/span/${span.spanId}`);
  await page.getByText("level 1: 1 numbers, expected a multiple of 4").waitFor();
});

check("hostile names stay text and break nothing", async (page) => {
  await openSpan(page, hostile.spanId);
  assert.equal(await page.locator("h1").textContent(), "<script>window.pwned=3</script> \ufffdمرحبا");
  assert.equal(await page.locator(".eyebrow").textContent(), "<b>shop</b>");
  const names = await page.locator(".functions .link").allTextContents();
  assert.ok(names.includes(SCRIPT_NAME));
  assert.ok(names.includes("دالة::حساب\ufffdgnirts"));
  assert.ok(names.some((name) => name.startsWith("long::x") && name.length <= 240));
  assert.equal(
    await page.locator("main script, main img, h1 *, .eyebrow a *, .functions .link *").count(),
    0,
  );
  const box = (await canvas(page).boundingBox())!;
  for (let y = 10; y < 100; y += 20) await page.mouse.move(box.x + box.width - 20, box.y + y);
  await page.mouse.move(box.x + 20, box.y + 30);
  await page.locator(".tooltip").waitFor();
  assert.ok((await page.locator(".tooltip").boundingBox())!.height < 500);
  const sizes = await page.evaluate(() => ({
    sideways: document.documentElement.scrollWidth - innerWidth,
    highest: Math.max(...[...document.querySelectorAll(".functions tr")].map((row) => row.clientHeight)),
  }));
  assert.ok(sizes.sideways <= 0 && sizes.highest < 80, JSON.stringify(sizes));
  // A name too long for an address is linked by an id.
  await page
    .locator(".functions tr", { hasText: "long::x" })
    .getByRole("button", { name: "Callers" })
    .click();
  await page.getByTestId("sandwich").waitFor();
  await page.reload();
  await page.getByTestId("sandwich").locator("canvas").first().waitFor();
  assert.ok(page.url().length < 400, page.url());
  await home(page, `?service=${encodeURIComponent(hostile.service)}`);
  await page.getByRole("link", { name: "<b>shop</b>" }).first().waitFor();
  await page.goto(`${server.url}/?service=${encodeURIComponent("<img src=x onerror=window.pwned=1>")}`);
  await page.getByText("No span matches").waitFor();
});

check("the theme follows the system until the reader chooses", async (page) => {
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const root = () =>
    canvas(page).evaluate((element) => [
      ...(element as HTMLCanvasElement).getContext("2d")!.getImageData(2, 2, 1, 1).data,
    ]);
  const dark = "rgb(16, 19, 23)";
  const light = "rgb(247, 248, 249)";
  await page.emulateMedia({ colorScheme: "dark" });
  await openSpan(page, span.spanId);
  assert.equal(await ground(), dark);
  await eventually(async () => assert.ok((await root())[0]! < 120));
  await page.emulateMedia({ colorScheme: "light" });
  assert.equal(await ground(), light);
  await eventually(async () => assert.ok((await root())[0]! > 180));
  await page.getByLabel("Theme").selectOption("dark");
  assert.equal(await ground(), dark);
  await page.reload();
  await canvas(page).waitFor();
  assert.equal(await ground(), dark, "the choice is kept");
  await page.getByLabel("Theme").selectOption("system");
  assert.equal(await ground(), light);
});

for (const colorScheme of ["light", "dark"] as const) {
  check(
    `no accessibility violation, ${colorScheme}`,
    async (page) => {
      await home(page);
      await page.locator(".spans").waitFor();
      await audit(page, "home");
      await lookUp(page, "abc");
      await audit(page, "home with a problem");
      await openSpan(page, span.spanId);
      await audit(page, "span");
      await page.getByPlaceholder("Search functions").fill("sha2");
      await page.getByLabel("Fold runtime frames").uncheck();
      await page.getByTestId("found").filter({ hasText: "40.0%" }).waitFor();
      await audit(page, "span, searched and unfolded");
      await openSpan(page, hostile.spanId);
      await audit(page, "span with hostile names and few samples");
      await page.goto(`${server.url}/span/${span.spanId}?fn=${encodeURIComponent(SIGN)}`);
      await page.getByTestId("sandwich").waitFor();
      await page.locator(".menu summary").click();
      await audit(page, "callers and callees, and the menu");
      await page.goto(`${server.url}/trace/${span.traceId}?span=${span.spanId}`);
      await canvas(page).waitFor();
      await audit(page, "trace");
      await page.goto(`${server.url}/span/${newId(8)}`);
      await page.getByRole("heading", { name: "No profile" }).waitFor();
      await audit(page, "unknown span");
      await page.setViewportSize({ width: 360, height: 700 });
      await openSpan(page, span.spanId);
      await audit(page, "narrow span");
    },
    { colorScheme },
  );
}

test("works under a sub-path", async () => {
  const mount = await mountUnder("/tools/profiles/", server.url);
  try {
    await visit(mount.url, async (page) => {
      await page.goto(`${mount.url}/span/${span.spanId}`);
      await canvas(page).waitFor();
      assert.equal(await page.getByTestId("cpu").textContent(), "1 s");
      await page.getByRole("link", { name: "Spanflame" }).click();
      assert.equal(path(page), "/tools/profiles/");
      await lookUp(page, span.spanId);
      await canvas(page).waitFor();
      assert.equal(path(page), `/tools/profiles/span/${span.spanId}`);
      await page.reload();
      await canvas(page).waitFor();
      await page.goto(`${mount.url}/trace/${span.traceId}`);
      await page.locator(".waterfall").waitFor();
      await page.getByRole("button", { name: "POST /pay" }).click();
      await page.getByRole("link", { name: "Open the span" }).click();
      await canvas(page).waitFor();
      assert.equal(path(page), `/tools/profiles/span/${span.spanId}`);
      await page.getByRole("link", { name: "Services" }).click();
      await page.locator(".operations").waitFor();
      assert.equal(path(page), "/tools/profiles/services");
      await page.reload();
      await page.getByRole("link", { name: "POST /pay" }).first().click();
      await canvas(page).waitFor();
      await page.reload();
      await canvas(page).waitFor();
    });
    assert.deepEqual(
      mount.strays.filter((stray) => stray !== "/favicon.ico"),
      [],
    );
  } finally {
    mount.stop();
  }
});

const binary = process.env["SPANFLAME_BIN"];
test("asks for a token, and works below the server's own prefix", { skip: !binary }, async () => {
  const token = "a-token-for-the-browser";
  const locked = await startServer(binary!, ["--base-path", "/profiles"], {
    SPANFLAME_TOKENS: `browser = { token = "${token}", admin = true }`,
  });
  const { origin } = new URL(locked.url);
  try {
    await push(locked, span.service, profileOf(span), { authorization: `Bearer ${token}` });
    assert.equal((await fetch(`${locked.url}/api/v1/spans`)).status, 401);
    await visit(origin, async (page) => {
      await page.goto(locked.url);
      assert.equal(path(page), "/profiles/");
      await page.getByLabel("Token").fill(token);
      await page.keyboard.press("Enter");
      await page.getByRole("link", { name: "POST /pay" }).click();
      await canvas(page).waitFor();
      assert.equal(path(page), `/profiles/span/${span.spanId}`);
      await page.reload();
      await canvas(page).waitFor();
    });
  } finally {
    await locked.stop();
  }
});

test("the page asks for a token itself, keeps it for the tab and forgets it", { skip: !binary }, async () => {
  const token = "a-token-for-the-page";
  const writer = "a-token-that-only-writes";
  const locked = await startServer(binary!, [], {
    SPANFLAME_TOKENS: `page = { token = "${token}", admin = true }\nagent = { token = "${writer}", write = true }`,
  });
  try {
    await push(locked, span.service, profileOf(span), { authorization: `Bearer ${token}` });
    await visit(locked.url, async (page) => {
      const enter = async (text: string) => {
        await page.getByLabel("Token").fill(text);
        await page.keyboard.press("Enter");
      };
      await page.goto(`${locked.url}/span/${span.spanId}?view=flame`);
      await page.getByRole("heading", { name: "Sign in" }).waitFor();
      await audit(page, "sign in");
      await enter("two words");
      await page.getByText("A token is one word").waitFor();
      await enter("not-the-right-token");
      await page.getByText("The server does not know this token.").waitFor();
      await audit(page, "sign in with a wrong token");
      await enter(writer);
      await page.getByText("lacks the right read").waitFor();
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.getByText("You have signed out.").waitFor();
      await enter(` ${token} `);
      await canvas(page).waitFor();
      assert.equal(path(page), `/span/${span.spanId}`, "the address is the one that was opened");
      await page.reload();
      await canvas(page).waitFor();
      await page.locator(".menu summary").click();
      const download = page.waitForEvent("download");
      await page.getByRole("link", { name: "pprof" }).click();
      assert.equal((await download).suggestedFilename(), `span-${span.spanId}.cpu.pb.gz`);
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.getByRole("heading", { name: "Sign in" }).waitFor();
      assert.equal(await canvas(page).count(), 0);
      await page.reload();
      await page.getByRole("heading", { name: "Sign in" }).waitFor();
      assert.equal(await page.evaluate(() => JSON.stringify([sessionStorage, localStorage])), "[{},{}]");
    });
  } finally {
    await locked.stop();
  }
});

test("pages are checked for changes, assets are kept for good, and the policy is strict", async () => {
  const html = await fetch(`${server.url}/span/${span.spanId}`);
  assert.equal(html.headers.get("cache-control"), "no-cache");
  const policy = html.headers.get("content-security-policy")!;
  for (const rule of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'"])
    assert.ok(policy.includes(rule), rule);
  assert.ok(!policy.includes("unsafe"));
  const script = /src="(\.\.\/assets\/[^"]+\.js)"/.exec(await html.text())![1]!;
  const asset = await fetch(new URL(script, html.url));
  assert.equal(asset.status, 200);
  assert.match(asset.headers.get("cache-control")!, /immutable/);
  assert.match(asset.headers.get("content-type")!, /^text\/javascript/);
});
