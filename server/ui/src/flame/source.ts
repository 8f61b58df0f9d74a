// Where functions are written: reads file, line and inlining out of a pprof, of which the flame graph's own encoding has
// nothing. It skips every field that it does not need and trusts no number: what points nowhere has no source.

import { fields, packed as varints } from "../protobuf.ts";

/** Where a function is, as far as its samples tell. */
export interface Source {
  file: string;
  /** The line that most samples passed through, the function's own first line where none is told; 0 if unknown. */
  line: number;
  /** Share of the function's value in places where the compiler inlined it into its caller. */
  inlined: number;
}

/** Sources of a graph's functions, by the index of their name. */
export interface Sources {
  files: readonly string[];
  /** Index into the files; the first is "". */
  file: Uint32Array;
  line: Uint32Array;
  inlined: Float64Array;
}

/** Where the function of that name is; undefined where nothing is known of it. */
export function sourceOf({ files, file, line, inlined }: Sources, name: number): Source | undefined {
  const known = file[name] || inlined[name];
  return known ? { file: files[file[name]!]!, line: line[name]!, inlined: inlined[name]! } : undefined;
}

/** Reads a gzipped pprof of one sample type. */
export async function readSources(pprof: ArrayBuffer): Promise<Map<string, Source>> {
  const plain = new Blob([pprof]).stream().pipeThrough(new DecompressionStream("gzip"));
  return sourcesOf(new Uint8Array(await new Response(plain).arrayBuffer()));
}

interface Line {
  function: number;
  line: number;
}

/** Reads `perftools.profiles.Profile`. */
export function sourcesOf(bytes: Uint8Array): Map<string, Source> {
  const text = new TextDecoder();
  const strings: string[] = [];
  const functions = new Map<number, { name: number; file: number; line: number }>();
  const locations = new Map<number, Line[]>();
  const samples: { locations: number[]; value: number }[] = [];
  for (const field of fields(bytes)) {
    if (field.bytes === undefined) continue;
    if (field.number === 6) strings.push(text.decode(field.bytes));
    else if (field.number === 5) {
      const of = numbers(field.bytes);
      functions.set(of[1] ?? 0, { name: of[2] ?? 0, file: of[4] ?? 0, line: of[5] ?? 0 });
    } else if (field.number === 4) {
      const lines: Line[] = [];
      for (const { number, bytes: line } of fields(field.bytes)) {
        if (number !== 4 || line === undefined) continue;
        const of = numbers(line);
        lines.push({ function: of[1] ?? 0, line: of[2] ?? 0 });
      }
      locations.set(numbers(field.bytes)[1] ?? 0, lines);
    } else if (field.number === 2) samples.push(sampleOf(field.bytes));
  }

  const byLine = new Map<number, Map<number, number>>();
  const values = new Map<number, { all: number; inlined: number }>();
  for (const { locations: stack, value } of samples) {
    for (const id of stack) {
      const lines = locations.get(id) ?? [];
      // A location lists the innermost function first; only the last of them is a real call.
      lines.forEach((at, depth) => {
        const counted = values.get(at.function) ?? { all: 0, inlined: 0 };
        counted.all += value;
        if (depth < lines.length - 1) counted.inlined += value;
        values.set(at.function, counted);
        const known = byLine.get(at.function) ?? new Map<number, number>();
        known.set(at.line, (known.get(at.line) ?? 0) + value);
        byLine.set(at.function, known);
      });
    }
  }

  const sources = new Map<string, Source>();
  for (const [id, { name, file, line }] of functions) {
    const text = strings[name];
    const path = strings[file];
    const { all, inlined } = values.get(id) ?? { all: 0, inlined: 0 };
    if (!text || (!path && inlined === 0)) continue;
    const heaviest = [...(byLine.get(id) ?? [])].filter(([at]) => at > 0).sort((a, b) => b[1] - a[1])[0];
    sources.set(text, {
      file: path ?? "",
      line: heaviest?.[0] ?? line,
      inlined: all === 0 ? 0 : inlined / all,
    });
  }
  return sources;
}

function sampleOf(bytes: Uint8Array): { locations: number[]; value: number } {
  const locations: number[] = [];
  const values: number[] = [];
  for (const { number, value, bytes: packed } of fields(bytes)) {
    const into = number === 1 ? locations : number === 2 ? values : undefined;
    if (!into) continue;
    if (packed === undefined) into.push(value);
    else for (const each of varints(packed)) into.push(each);
  }
  return { locations, value: values[0] ?? 0 };
}

/** The numbers of a message by field; of a repeated one the last. */
function numbers(bytes: Uint8Array): number[] {
  const found: number[] = [];
  for (const { number, value, bytes: text } of fields(bytes)) {
    if (text === undefined && number < 16) found[number] = value;
  }
  return found;
}
