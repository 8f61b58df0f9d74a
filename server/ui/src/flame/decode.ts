// Reads the server's flame graph message (the one SelectMergeStacktraces answers in Connect JSON) into a `FlameTree`.
// It checks everything it relies on: a graph that decodes here can be drawn without further checks.

import { buildTree, type FlameTree } from "./tree.ts";

/** The message as it travels: 64-bit integers are strings, absent lists are empty. */
export interface FlameGraphMessage {
  names?: string[];
  levels?: { values?: (string | number)[] }[];
  total?: string | number;
  maxSelf?: string | number;
}

/** A flame graph that breaks the encoding's rules; the message names the place. */
export class DecodeError extends Error {
  override name = "DecodeError";
}

/** Numbers per bar: gap to the previous bar of the level, total, self, index of the name. */
const BAR = 4;

/**
 * Decodes a flame graph. Bars without width are dropped (they have nothing to show). Returns undefined for a graph
 * without samples. Throws `DecodeError` when the message breaks the encoding.
 */
export function decodeFlameGraph(message: FlameGraphMessage): FlameTree | undefined {
  const names = message.names ?? [];
  const levels = message.levels ?? [];
  if (Number(levels[0]?.values?.[1] ?? 0) === 0) return undefined;
  if (names.length === 0) throw new DecodeError("the flame graph has levels but no names");

  let capacity = 0;
  for (const level of levels) capacity += (level.values ?? []).length / BAR;
  capacity = Math.ceil(capacity);
  const columns = {
    names,
    name: new Uint32Array(capacity),
    start: new Float64Array(capacity),
    total: new Float64Array(capacity),
    self: new Float64Array(capacity),
    parent: new Int32Array(capacity),
  };
  const levelStart: number[] = [0];
  let size = 0;

  levels.forEach((message, level) => {
    const values = message.values ?? [];
    if (values.length % BAR !== 0) {
      throw new DecodeError(`level ${level}: ${values.length} numbers, expected a multiple of ${BAR}`);
    }
    if (level === 0 && values.length !== BAR) throw new DecodeError("level 0: expected exactly one bar");
    let parent = level === 0 ? -1 : levelStart[level - 1]!;
    const parentsEnd = levelStart[level]!;
    let x = 0;
    for (let at = 0; at < values.length; at += BAR) {
      const gap = numberAt(values, at, level);
      const total = numberAt(values, at + 1, level);
      const self = numberAt(values, at + 2, level);
      const name = numberAt(values, at + 3, level);
      if (name >= names.length) {
        throw new DecodeError(`level ${level}: name index ${name}, but there are ${names.length} names`);
      }
      if (self > total) throw new DecodeError(`level ${level}: self ${self} exceeds total ${total}`);
      const start = x + gap;
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
  return buildTree({
    names,
    name: columns.name.slice(0, size),
    start: columns.start.slice(0, size),
    total: columns.total.slice(0, size),
    self: columns.self.slice(0, size),
    parent: columns.parent.slice(0, size),
    levelStart: Uint32Array.from(levelStart),
  });
}

function numberAt(values: readonly (string | number)[], at: number, level: number): number {
  const value = Number(values[at]);
  if (!Number.isInteger(value) || value < 0) {
    throw new DecodeError(`level ${level}: ${String(values[at]).slice(0, 40)} at ${at} is no whole number`);
  }
  return value;
}
