import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

/** Bytes that the page may have, gzipped, all files together. */
const MOST = 200_000;

test("the built page is small", async (context) => {
  const dist = join(import.meta.dirname, "../../dist");
  const names = (await readdir(dist, { recursive: true, withFileTypes: true })).filter((entry) =>
    entry.isFile(),
  );
  const sizes = await Promise.all(
    names.map(async ({ parentPath, name }) => gzipSync(await readFile(join(parentPath, name))).length),
  );
  const total = sizes.reduce((sum, size) => sum + size, 0);
  context.diagnostic(`${total} bytes gzipped in ${names.length} files`);
  assert.ok(names.length > 3 && total < MOST, `${total} bytes`);
});
