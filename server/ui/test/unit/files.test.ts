import assert from "node:assert/strict";
import { test } from "node:test";
import { foldedText, htmlText, svgText, type Shown } from "../../src/flame/export.ts";
import { paletteFor } from "../../src/flame/palette.ts";
import { sourcesOf } from "../../src/flame/source.ts";
import { readRange, stepsOf } from "../../src/range.ts";
import { labelSelector, parseSelection, pathOf, selectionText, type Selection } from "../../src/selection.ts";
import { treeOf } from "../support/answer.ts";
import { encodeProfile } from "../support/pprof.ts";
import { below, randomFrom } from "../support/random.ts";

function shownOf(...frames: string[][]): Shown {
  const stacks = frames.map((each, i) => ({ frames: each, value: 10 * (i + 1) }));
  const tree = treeOf(stacks);
  return { title: 'GET "/" <b>', tree, palette: paletteFor(tree, false), unit: "count", flipped: false };
}

test("files escape whatever could be markup", () => {
  const names = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "a&b;c",
    "\u202eevil\u0000\ud800",
  ];
  const shown = shownOf(names);
  for (const text of [svgText(shown), htmlText(shown, [["<i>", "</dd>"]], true)]) {
    assert.ok(!/<script|<img|<b>|<i>|onerror=alert\(2\)>[^&]*</.test(text), text);
    assert.ok(!/[\u202e\u0000]/.test(text));
    assert.doesNotThrow(() => encodeURIComponent(text), "no half of a character");
    assert.ok(text.includes("&lt;script&gt;alert(1)&lt;/script&gt;"));
  }
  assert.equal(foldedText(shownOf(["a;b", "c\nd"])), "a:b;c d 10\n");
});

test("folded text holds every stack and its value", () => {
  assert.equal(foldedText(shownOf(["a", "b"], ["a"], ["c"])), "a 20\nc 30\na;b 10\n");
});

test("sources tell file, heaviest line and inlining", () => {
  const profile = encodeProfile({
    stacks: [{ frames: ["main", "outer", "inner"], value: 30, labels: { span_id: "x" } }],
    period: 10,
    startMillis: 1,
    durationMillis: 1,
    places: {
      outer: { file: "src/outer.rs", line: 7 },
      inner: { file: "src/inner.rs", line: 300, inlined: true },
    },
  });
  const sources = sourcesOf(profile);
  assert.deepEqual(sources.get("outer"), { file: "src/outer.rs", line: 7, inlined: 0 });
  assert.deepEqual(sources.get("inner"), { file: "src/inner.rs", line: 300, inlined: 1 });
  assert.equal(sources.get("main"), undefined, "nothing is known of it");
  // Whatever is broken off or changed is read as far as it goes.
  const random = randomFrom(3);
  for (let run = 0; run < 300; run++) {
    const broken = profile.slice(0, below(random, profile.length + 1));
    if (broken.length > 0) broken[below(random, broken.length)] = below(random, 256);
    sourcesOf(broken);
  }
});

test("a selection survives its text form, hostile names included", () => {
  const selections: Selection[] = [
    { span: "00f067aa0ba902b7" },
    { trace: "4bf92f3577b34da6a3ce929d0e0e4736" },
    { service: 'a&b="c"', name: "GET /?x=1#\u202e", from: 1, until: 2 },
    { service: "a", name: "" },
    { service: "a", name: "b", typical: true },
  ];
  for (const selection of selections) {
    assert.deepEqual(parseSelection(selectionText(selection)), selection);
  }
  assert.equal(parseSelection("from=1&x=2"), undefined);
  assert.equal(parseSelection(null), undefined);
  assert.equal(labelSelector({ service: 'a"\\\n', name: "" }), '{service_name="a\\"\\\\\\n",span_name=""}');
  assert.equal(pathOf({ service: "a b", name: "" }), "operation?service=a+b&name=");
});

test("ranges are read from addresses and cut into steps that cover them", () => {
  assert.deepEqual(readRange(new URLSearchParams("range=7d")), { preset: "7d" });
  assert.deepEqual(readRange(new URLSearchParams("range=x&from=9&until=5")), { preset: "1h" });
  assert.deepEqual(readRange(new URLSearchParams("from=5&until=9")), {
    preset: undefined,
    range: { from: 5, until: 9 },
  });
  for (const steps of [1, 7, 60]) {
    const range = { from: 1_000_000, until: 1_003_601 };
    const { start, end, step } = stepsOf(range, steps);
    assert.equal(start - step * 1000, range.from - 1, "the first step begins with the range");
    assert.ok(start + (steps - 1) * step * 1000 >= range.until && start < end);
  }
});
