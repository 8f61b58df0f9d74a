// Reads the server's flame graph message (the one that SelectMergeStacktraces and Diff answer, in protobuf) into a
// `FlameTree`. It checks everything it relies on: a graph that decodes here can be drawn without further checks. A graph of
// 50,000 bars is read once, on cold code: loops over typed arrays, no object for a bar or a name.

import { countVarints, Cursor, fields } from "../protobuf.ts";
import { Names, type Texts } from "./texts.ts";
import { buildTree, type FlameTree } from "./tree.ts";

/** A flame graph that breaks the encoding's rules; the message names the place. */
export class DecodeError extends Error {
  override name = "DecodeError";
}

/** A comparison: a tree of both sides' values together, and each side's own by bar. */
export interface DiffTree {
  tree: FlameTree;
  /** Self values on the left and on the right. */
  leftSelf: Float64Array<ArrayBuffer>;
  rightSelf: Float64Array<ArrayBuffer>;
}

/**
 * Decodes an answer of one flame graph. Bars without width are dropped (they have nothing to show). Returns undefined for a
 * graph without samples. Throws `DecodeError` when the message breaks the encoding.
 */
export function decodeFlameGraph(
  answer: Uint8Array<ArrayBuffer>,
  root = "whole span",
): FlameTree | undefined {
  return decode(answer, root, 1)?.tree;
}

/** Decodes a comparison; the tree's values are the sums of both sides. */
export function decodeDiff(answer: Uint8Array<ArrayBuffer>, root = "both sides"): DiffTree | undefined {
  const decoded = decode(answer, root, 2);
  return decoded && { tree: decoded.tree, leftSelf: decoded.left, rightSelf: decoded.right };
}

/** A stretch of the answer. */
interface Stretch {
  from: number;
  until: number;
}

/** Where the answer has its graph's names and levels: the graph is field 1 of it, names are field 1 of that, levels field 2. */
function partsOf(answer: Uint8Array<ArrayBuffer>): { names: Texts; levels: Stretch[] } {
  const starts = new Offsets();
  const ends = new Offsets();
  const levels: Stretch[] = [];
  for (const { number, bytes: graph } of fields(answer)) {
    if (number !== 1 || graph === undefined) continue;
    const from = graph.byteOffset - answer.byteOffset;
    const cursor = new Cursor(answer, from, from + graph.length);
    while (cursor.at < cursor.end) {
      const tag = cursor.varint();
      const kind = tag & 7;
      const length = kind === 2 ? cursor.varint() : kind === 1 ? 8 : kind === 5 ? 4 : 0;
      if (kind === 0) cursor.varint();
      else if (length === 0 && kind !== 2) break;
      const until = Math.min(cursor.at + length, cursor.end);
      if (tag === 0x0a) {
        starts.push(cursor.at);
        ends.push(until);
      } else if (tag === 0x12) levels.push(valuesOf(answer, cursor.at, until));
      cursor.at = until;
    }
  }
  return { names: { bytes: answer, start: starts.taken(), end: ends.taken() }, levels };
}

/** The packed values of a level, its field 1. */
function valuesOf(answer: Uint8Array, from: number, until: number): Stretch {
  for (const { number, bytes } of fields(answer.subarray(from, until))) {
    if (number !== 1 || bytes === undefined) continue;
    const at = bytes.byteOffset - answer.byteOffset;
    return { from: at, until: at + bytes.length };
  }
  return { from, until: from };
}

/** A growing list of offsets. */
class Offsets {
  #list = new Uint32Array(1024);
  #size = 0;

  push(offset: number): void {
    if (this.#size === this.#list.length) {
      const larger = new Uint32Array(this.#size * 2);
      larger.set(this.#list);
      this.#list = larger;
    }
    this.#list[this.#size++] = offset;
  }

  taken(): Uint32Array<ArrayBuffer> {
    return this.#list.slice(0, this.#size);
  }
}

/**
 * A bar is, for each side, the gap to the previous bar of the level, total and self, and then the index of its name. Bars
 * of both sides lie in the same order, so that the sums of their places nest as each side's do.
 */
function decode(
  answer: Uint8Array<ArrayBuffer>,
  root: string,
  sides: 1 | 2,
): { tree: FlameTree; left: Float64Array<ArrayBuffer>; right: Float64Array<ArrayBuffer> } | undefined {
  const stride = 3 * sides + 1;
  const { names: texts, levels } = partsOf(answer);
  const counts = levels.map(({ from, until }) => countVarints(answer, from, until));
  if (rootTotal(answer, levels[0], sides) === 0) return undefined;
  const names = new Names(texts);
  if (names.length === 0) throw new DecodeError("the flame graph has levels but no names");

  const capacity = counts.reduce((sum, count) => sum + Math.floor(count / stride), 0);
  const nameIndex = new Uint32Array(capacity);
  const starts = new Float64Array(capacity);
  const totals = new Float64Array(capacity);
  const selves = new Float64Array(capacity);
  const parents = new Int32Array(capacity);
  /** Self values on either side, where there are two. */
  const left = new Float64Array(sides === 2 ? capacity : 0);
  const right = new Float64Array(sides === 2 ? capacity : 0);
  const levelStart: number[] = [0];
  let size = 0;

  for (let level = 0; level < levels.length; level++) {
    const count = counts[level]!;
    if (count % stride !== 0) {
      throw new DecodeError(`level ${level}: ${count} numbers, expected a multiple of ${stride}`);
    }
    if (level === 0 && count !== stride) throw new DecodeError("level 0: expected exactly one bar");
    const { from, until } = levels[level]!;
    const cursor = new Cursor(answer, from, until);
    const bars = count / stride;
    const parentsEnd = levelStart[level]!;
    let parent = level === 0 ? -1 : levelStart[level - 1]!;
    let x = 0;
    for (let bar = 0; bar < bars; bar++) {
      let start = x + cursor.varint();
      let total = cursor.varint();
      let self = cursor.varint();
      checkSelf(level, self, total);
      if (sides === 2) {
        left[size] = self;
        start += cursor.varint();
        const rightTotal = cursor.varint();
        const rightSelf = cursor.varint();
        checkSelf(level, rightSelf, rightTotal);
        right[size] = rightSelf;
        total += rightTotal;
        self += rightSelf;
      }
      const name = cursor.varint();
      if (name >= names.length) {
        throw new DecodeError(`level ${level}: name index ${name}, but there are ${names.length} names`);
      }
      x = start + total;
      // Numbers below zero come as the largest that there are.
      if (x >= 2 ** 63) throw new DecodeError(`level ${level}: bar ${bar} has a number out of range`);
      if (total === 0) continue;
      if (level > 0) {
        while (parent < parentsEnd && x > starts[parent]! + totals[parent]!) parent++;
        if (parent === parentsEnd || start < starts[parent]!) {
          throw new DecodeError(`level ${level}: a bar at ${start} lies under no bar of the level above`);
        }
      }
      nameIndex[size] = name;
      starts[size] = start;
      totals[size] = total;
      selves[size] = self;
      parents[size] = parent;
      size++;
    }
    levelStart.push(size);
  }

  // Levels that hold no bar can only be at the bottom: a bar needs one above it.
  while (levelStart.length > 2 && levelStart.at(-1) === levelStart.at(-2)) levelStart.pop();
  const tree = buildTree({
    root,
    names,
    name: nameIndex.slice(0, size),
    start: starts.slice(0, size),
    total: totals.slice(0, size),
    self: selves.slice(0, size),
    parent: parents.slice(0, size),
    levelStart: Uint32Array.from(levelStart),
  });
  return { tree, left: left.slice(0, size), right: right.slice(0, size) };
}

function checkSelf(level: number, self: number, total: number): void {
  if (self > total) throw new DecodeError(`level ${level}: self ${self} exceeds total ${total}`);
}

/** What the root is worth on all sides. */
function rootTotal(answer: Uint8Array, level: Stretch | undefined, sides: 1 | 2): number {
  if (!level) return 0;
  const cursor = new Cursor(answer, level.from, level.until);
  let sum = 0;
  for (let side = 0; side < sides; side++) {
    cursor.varint();
    sum += cursor.varint();
    cursor.varint();
  }
  return sum;
}
