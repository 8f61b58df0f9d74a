// Stacks with values, merged into a tree and encoded as the server does it: the oracle for decoding, tables and search.

import { below, type Random } from "./random.ts";

/** A graph as the server's messages have it: 64-bit integers may be texts, as in JSON; absent lists are empty. */
export interface FlameGraphMessage {
  names?: string[];
  levels?: { values?: (string | number)[] }[];
  total?: string | number;
  maxSelf?: string | number;
}

/** A call stack from the outermost function inwards, and its value. */
export interface Stack {
  frames: string[];
  value: number;
}

/** A node of the merged tree; children stand in the order of their names. */
export interface CallNode {
  name: string;
  self: number;
  total: number;
  children: Map<string, CallNode>;
}

/** Merges stacks into a tree under `total`. */
export function mergeStacks(stacks: Stack[]): CallNode {
  const root: CallNode = { name: "total", self: 0, total: 0, children: new Map() };
  for (const { frames, value } of stacks) {
    let node = root;
    node.total += value;
    for (const name of frames) {
      let child = node.children.get(name);
      if (!child) node.children.set(name, (child = { name, self: 0, total: 0, children: new Map() }));
      child.total += value;
      node = child;
    }
    node.self += value;
  }
  return root;
}

/** Encodes a tree: per bar the gap to the previous one, total, self and name; children follow the caller's self part. */
export function encode(root: CallNode): FlameGraphMessage {
  const names: string[] = [];
  const indexOf = new Map<string, number>();
  const levels: { values: string[] }[] = [];
  let maxSelf = 0;
  let level = [{ node: root, start: 0 }];
  while (level.length > 0) {
    const values: number[] = [];
    const next: typeof level = [];
    let end = 0;
    for (const { node, start } of level) {
      let index = indexOf.get(node.name);
      if (index === undefined) indexOf.set(node.name, (index = names.push(node.name) - 1));
      values.push(start - end, node.total, node.self, index);
      end = start + node.total;
      maxSelf = Math.max(maxSelf, node.self);
      let at = start + node.self;
      for (const child of sortedChildren(node)) {
        next.push({ node: child, start: at });
        at += child.total;
      }
    }
    levels.push({ values: values.map(String) });
    level = next;
  }
  return { names, levels, total: String(root.total), maxSelf: String(maxSelf) };
}

/** Children by name. */
export function sortedChildren(node: CallNode): CallNode[] {
  return [...node.children.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

const FUNCTIONS = [
  "app::handler",
  "app::hash",
  "app::parse::{{closure}}",
  "<app::Order as serde::ser::Serialize>::serialize",
  "serde_json::to_vec",
  "tokio::runtime::task::poll",
  "std::thread::spawn",
  "core::iter::fold",
  "hyper::proto::h1::poll",
  "memcpy",
  "other",
];

/** Random stacks over few functions, so that recursion and shared prefixes are common. */
export function randomStacks(random: Random): Stack[] {
  const count = 1 + below(random, 60);
  return Array.from({ length: count }, () => ({
    frames: Array.from({ length: 1 + below(random, 14) }, () => FUNCTIONS[below(random, FUNCTIONS.length)]!),
    value: 1 + below(random, random() < 0.1 ? 1_000_000_000 : 50),
  }));
}
