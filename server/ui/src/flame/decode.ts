// Reads the server's flame graph message (the one that SelectMergeStacktraces and Diff answer) into a `FlameTree`.
// It checks everything it relies on: a graph that decodes here can be drawn without further checks.

import { fields, packed } from "../protobuf.ts";
import { buildTree, type FlameTree } from "./tree.ts";

/** The message: 64-bit integers may be texts, as in JSON; absent lists are empty. */
export interface FlameGraphMessage {
  names?: string[];
  levels?: { values?: (string | number)[] | Float64Array }[];
  total?: string | number;
  maxSelf?: string | number;
}

/** The graph in an answer in protobuf, its field 1: names are field 1 of that, levels field 2. */
export function readFlameGraph(answer: Uint8Array): FlameGraphMessage {
  const text = new TextDecoder();
  // Most names are ASCII: cutting them out of one text of all bytes is much faster than decoding each.
  const single = new TextDecoder("latin1").decode(answer);
  const names: string[] = [];
  const levels: { values: Float64Array }[] = [];
  for (const graph of fields(answer)) {
    if (graph.number !== 1 || graph.bytes === undefined) continue;
    for (const { number, bytes } of fields(graph.bytes)) {
      if (bytes === undefined) continue;
      const start = bytes.byteOffset - answer.byteOffset;
      if (number === 1)
        names.push(isAscii(bytes) ? single.slice(start, start + bytes.length) : text.decode(bytes));
      if (number === 2) levels.push({ values: valuesOf(bytes) });
    }
  }
  return { names, levels };
}

function valuesOf(level: Uint8Array): Float64Array {
  for (const { number, bytes } of fields(level))
    if (number === 1 && bytes !== undefined) return packed(bytes);
  return new Float64Array();
}

function isAscii(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i]! >= 0x80) return false;
  return true;
}

/** A flame graph that breaks the encoding's rules; the message names the place. */
export class DecodeError extends Error {
  override name = "DecodeError";
}

/** Reads of one bar, whatever the encoding: where it begins, what it is worth. */
interface Columns {
  name: Uint32Array;
  start: Float64Array;
  total: Float64Array;
  self: Float64Array;
  parent: Int32Array;
}

/** A comparison: a tree of both sides' values together, and each side's own by bar. */
export interface DiffTree {
  tree: FlameTree;
  /** Self values on the left and on the right. */
  leftSelf: Float64Array;
  rightSelf: Float64Array;
}

/**
 * Decodes a flame graph. Bars without width are dropped (they have nothing to show). Returns undefined for a graph
 * without samples. Throws `DecodeError` when the message breaks the encoding.
 */
export function decodeFlameGraph(message: FlameGraphMessage, root = "whole span"): FlameTree | undefined {
  return decode(message, root, 1)?.tree;
}

/** Decodes a comparison; the tree's values are the sums of both sides. */
export function decodeDiff(message: FlameGraphMessage, root = "both sides"): DiffTree | undefined {
  const decoded = decode(message, root, 2);
  return decoded && { tree: decoded.tree, leftSelf: decoded.selves[0]!, rightSelf: decoded.selves[1]! };
}

/**
 * A bar is, for each side, the gap to the previous bar of the level, total and self, and then the index of its name. Bars
 * of both sides lie in the same order, so that the sums of their places nest as each side's do.
 */
function decode(
  message: FlameGraphMessage,
  root: string,
  sides: 1 | 2,
): { tree: FlameTree; selves: Float64Array[] } | undefined {
  const stride = 3 * sides + 1;
  const names = message.names ?? [];
  const levels = message.levels ?? [];
  const top = levels[0]?.values ?? [];
  if (Number(top[1] ?? 0) + (sides === 2 ? Number(top[4] ?? 0) : 0) === 0) return undefined;
  if (names.length === 0) throw new DecodeError("the flame graph has levels but no names");

  let capacity = 0;
  for (const level of levels) capacity += (level.values ?? []).length / stride;
  capacity = Math.ceil(capacity);
  const columns: Columns = {
    name: new Uint32Array(capacity),
    start: new Float64Array(capacity),
    total: new Float64Array(capacity),
    self: new Float64Array(capacity),
    parent: new Int32Array(capacity),
  };
  const selves = Array.from({ length: sides }, () => new Float64Array(capacity));
  const levelStart: number[] = [0];
  let size = 0;

  levels.forEach((message, level) => {
    const values = message.values ?? [];
    if (values.length % stride !== 0) {
      throw new DecodeError(`level ${level}: ${values.length} numbers, expected a multiple of ${stride}`);
    }
    if (level === 0 && values.length !== stride) throw new DecodeError("level 0: expected exactly one bar");
    let parent = level === 0 ? -1 : levelStart[level - 1]!;
    const parentsEnd = levelStart[level]!;
    let x = 0;
    for (let at = 0; at < values.length; at += stride) {
      const name = numberAt(values, at + stride - 1, level);
      if (name >= names.length) {
        throw new DecodeError(`level ${level}: name index ${name}, but there are ${names.length} names`);
      }
      let start = x;
      let total = 0;
      let self = 0;
      for (let side = 0; side < sides; side++) {
        const sideTotal = numberAt(values, at + 3 * side + 1, level);
        const sideSelf = numberAt(values, at + 3 * side + 2, level);
        if (sideSelf > sideTotal) {
          throw new DecodeError(`level ${level}: self ${sideSelf} exceeds total ${sideTotal}`);
        }
        start += numberAt(values, at + 3 * side, level);
        total += sideTotal;
        self += sideSelf;
        selves[side]![size] = sideSelf;
      }
      x = start + total;
      if (total === 0) continue;
      if (level > 0) {
        while (parent < parentsEnd && x > columns.start[parent]! + columns.total[parent]!) parent++;
        if (parent === parentsEnd || start < columns.start[parent]!) {
          throw new DecodeError(`level ${level}: a bar at ${start} lies under no bar of the level above`);
        }
      }
      columns.name[size] = name;
      columns.start[size] = start;
      columns.total[size] = total;
      columns.self[size] = self;
      columns.parent[size] = parent;
      size++;
    }
    levelStart.push(size);
  });

  // Levels that hold no bar can only be at the bottom: a bar needs one above it.
  while (levelStart.length > 2 && levelStart.at(-1) === levelStart.at(-2)) levelStart.pop();
  const tree = buildTree({
    root,
    names,
    name: columns.name.slice(0, size),
    start: columns.start.slice(0, size),
    total: columns.total.slice(0, size),
    self: columns.self.slice(0, size),
    parent: columns.parent.slice(0, size),
    levelStart: Uint32Array.from(levelStart),
  });
  return { tree, selves: selves.map((self) => self.slice(0, size)) };
}

function numberAt(values: ArrayLike<string | number>, at: number, level: number): number {
  const value = Number(values[at]);
  if (!Number.isInteger(value) || value < 0 || value >= 2 ** 63) {
    throw new DecodeError(`level ${level}: ${String(values[at]).slice(0, 40)} at ${at} is no whole number`);
  }
  return value;
}
