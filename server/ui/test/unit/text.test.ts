import assert from "node:assert/strict";
import { test } from "node:test";
import {
  formatAge,
  formatBytes,
  formatCount,
  formatInterval,
  formatNanos,
  formatShare,
  formatValue,
} from "../../src/format.ts";
import { crateOf, displayName, isRuntime, shortName } from "../../src/flame/names.ts";
import { parseId } from "../../src/ids.ts";
import { routeOf } from "../../src/router.ts";
import { FEW_SAMPLES, shareInterval } from "../../src/stats.ts";

test("durations have three significant digits and a fitting unit", () => {
  const cases: [number, string][] = [
    [0, "0 ms"],
    [1, "1 ns"],
    [999, "999 ns"],
    [1_000, "1 µs"],
    [12_340, "12.3 µs"],
    [999_999, "1 ms"],
    [30_000_000, "30 ms"],
    [1_254_000_000, "1.25 s"],
    [59_940_000_000, "59.9 s"],
    [59_990_000_000, "1 min 0 s"],
    [125_000_000_000, "2 min 5 s"],
    [3_600_000_000_000, "1 h 0 min"],
    [9_000_000_000_000_000, "2,500 h 0 min"],
  ];
  for (const [nanos, text] of cases) assert.equal(formatNanos(nanos), text);
});

test("values follow their unit", () => {
  assert.equal(formatValue(30_000_000, "nanoseconds"), "30 ms");
  assert.equal(formatValue(12_345, "count"), "12,345");
  assert.equal(formatValue(1536, "bytes"), "1.5 KiB");
  assert.equal(formatValue(3, "widgets"), "3 widgets");
  assert.equal(formatBytes(999), "999 B");
  assert.equal(formatCount(1_000_000), "1,000,000");
});

test("a tiny share is not none and a large one not all", () => {
  assert.deepEqual([0, 0.0001, 0.0005, 0.3333, 0.9999, 1].map(formatShare), [
    "0.0%",
    "<0.1%",
    "0.1%",
    "33.3%",
    ">99.9%",
    "100.0%",
  ]);
});

test("intervals name the day once, ages are rough", () => {
  const at = new Date(2026, 0, 31, 14, 5, 9).getTime();
  assert.equal(formatInterval(at, at + 10_000), "2026-01-31 14:05:09 – 14:05:19");
  assert.equal(formatInterval(at, at + 86_400_000), "2026-01-31 14:05:09 – 2026-02-01 14:05:09");
  assert.deepEqual(
    [0, 30, 60, 3000, 7200, 200_000].map((seconds) => formatAge(at - seconds * 1000, at)),
    ["just now", "just now", "1 min ago", "50 min ago", "2 h ago", "2 d ago"],
  );
  assert.equal(formatAge(at + 5000, at), "just now", "clocks differ");
});

test("the interval of a share holds the share and narrows with samples", () => {
  let before = 1;
  for (const samples of [1, 3, 10, 30, 100, 1000, 100_000]) {
    const { low, high } = shareInterval(0.5, samples);
    assert.ok(low < 0.5 && high > 0.5 && high - low < before, `${samples}`);
    before = high - low;
  }
  // 3 of 10: the Wilson interval as tabulated.
  const { low, high } = shareInterval(0.3, 10);
  assert.ok(Math.abs(low - 0.1078) < 1e-4 && Math.abs(high - 0.6032) < 1e-4);
  assert.deepEqual(shareInterval(0.5, 0), { low: 0, high: 1 });
  const atLimit = shareInterval(0.5, FEW_SAMPLES);
  assert.ok(atLimit.high - 0.5 <= 0.1 && shareInterval(0.5, FEW_SAMPLES - 1).high - 0.5 > 0.1);
});

test("a function's crate is that of the code, not of the types it mentions", () => {
  const cases: [string, string][] = [
    ["app::handler::{{closure}}", "app"],
    ["tokio::runtime::task::Harness<T,S>::poll", "tokio"],
    ["<app::Order as serde::ser::Serialize>::serialize", "app"],
    ["<alloc::vec::Vec<T,A> as core::ops::drop::Drop>::drop", "alloc"],
    ["<T as core::convert::Into<U>>::into", "core"],
    ["<&mut W as core::fmt::Write>::write_str", "core"],
    ["<&app::Key as core::fmt::Debug>::fmt", "app"],
    ["<dyn app::Plugin as core::any::Any>::type_id", "app"],
    ["<<app::A as app::B>::C as core::iter::Iterator>::next", "app"],
    ["<[T] as core::slice::Sort>::sort", "core"],
    ["core::ptr::drop_in_place<app::State>", "core"],
    ["app[3f2504e04f8911d3]::main", "app"],
    ["<fn(app::A) -> app::B as core::ops::FnOnce<()>>::call_once", "core"],
    ["main", ""],
    ["__libc_start_main", ""],
    ["[unknown]", ""],
    ["", ""],
  ];
  for (const [name, crate] of cases) assert.equal(crateOf(name), crate, name);
});

test("runtime frames are those of the runtime's crates and of process start", () => {
  for (const name of [
    "std::rt::lang_start",
    "<tower::Service as tower_service::Service<R>>::call",
    "start_thread",
    "__rust_begin_short_backtrace",
  ])
    assert.ok(isRuntime(name), name);
  for (const name of [
    "app::tokio::run",
    "tokiox::run",
    "memcpy",
    "serde_json::to_vec",
    "<app::A as core::clone::Clone>::clone",
  ])
    assert.ok(!isRuntime(name), name);
});

test("short names keep the last two segments", () => {
  const cases: [string, string][] = [
    ["app::orders::total", "orders::total"],
    ["<alloc::vec::Vec<T> as core::iter::FromIterator<T>>::from_iter", "Vec::from_iter"],
    ["app::handlers::pay::{{closure}}", "handlers::pay::{{closure}}"],
    ["app::run::h0123456789abcdef", "app::run"],
    ["<fn(A) -> B as core::ops::FnOnce<()>>::call_once", "fn(A) -> B::call_once"],
    ["memcpy", "memcpy"],
    ["<broken", "<broken"],
    ["<>", "<>"],
    ['"><img src=x>', '"><img src=x>'],
  ];
  for (const [name, short] of cases) assert.equal(shortName(name), short, name);
});

test("names are shown inert and bounded", () => {
  assert.equal(
    displayName("<script>alert(1)</script>"),
    "<script>alert(1)</script>",
    "escaping is the DOM's task",
  );
  assert.equal(displayName("a\u202eb\u0000c\u2028d\u200be"), "a\ufffdb\ufffdc\ufffdd\ufffde");
  assert.equal(displayName("דוגמה::قراءة"), "דוגמה::قراءة");
  const long = `start${"x".repeat(65_536)}end`;
  const shown = displayName(long, 100);
  assert.equal(shown.length, 100);
  assert.match(shown, /^start.*….*end$/s);
  const began = [
    crateOf(long),
    shortName(`<${"<".repeat(65_536)}`),
    shortName(long),
    isRuntime(`<${"&".repeat(65_536)}`),
  ];
  assert.equal(began[0], "");
});

test("ids are read as people paste them", () => {
  const id = "00f067aa0ba902b7";
  for (const text of [id, ` ${id}\n`, id.toUpperCase(), `"${id}"`, "00f067aa 0ba902b7", `0x${id}`]) {
    assert.deepEqual(parseId(text), { kind: "span", id }, text);
  }
  assert.deepEqual(parseId("4BF92F3577B34DA6A3CE929D0E0E4736"), {
    kind: "trace",
    id: "4bf92f3577b34da6a3ce929d0e0e4736",
  });
  const refused: [string, RegExp][] = [
    ["", /16 hexadecimal/],
    ["abc", /this has 3/],
    ["zzf067aa0ba902b7", /only the characters/],
    ["0".repeat(16), /zeros/],
    ['${__span.tags["pyroscope.profile.id"]}', /never filled in/],
  ];
  for (const [text, message] of refused) {
    const parsed = parseId(text);
    assert.ok(parsed.kind === "invalid" && message.test(parsed.message), text);
  }
});

test("paths name pages", () => {
  assert.deepEqual(routeOf(""), { page: "home" });
  assert.deepEqual(routeOf("span/00f067aa0ba902b7"), { page: "span", id: "00f067aa0ba902b7" });
  assert.deepEqual(routeOf("span/%24%7Bx%7D"), { page: "span", id: "${x}" });
  assert.deepEqual(routeOf("span/%zz"), { page: "span", id: "%zz" });
  assert.deepEqual(routeOf("span/a/b"), { page: "missing" });
  assert.deepEqual(routeOf("trace/4bf92f3577b34da6a3ce929d0e0e4736"), {
    page: "trace",
    id: "4bf92f3577b34da6a3ce929d0e0e4736",
  });
  for (const page of ["services", "operation", "function", "compare"])
    assert.deepEqual(routeOf(page), { page });
  for (const path of ["service", "services/x", "trace"]) assert.deepEqual(routeOf(path), { page: "missing" });
});
