// The names of a graph as they came: UTF-8 in one piece. A name becomes a string when somebody asks for it, since most of a
// large graph is never read; and the bytes change threads without being copied.

/** Texts in one buffer. */
export interface Texts {
  bytes: Uint8Array<ArrayBuffer>;
  /** Where each of them begins and ends. */
  start: Uint32Array<ArrayBuffer>;
  end: Uint32Array<ArrayBuffer>;
}

const UTF_8 = new TextDecoder();
/** Cutting names out of one text of all bytes is much faster than decoding each, and the same for ASCII. */
const SINGLE_BYTES = new TextDecoder("latin1");

export class Names {
  readonly length: number;
  readonly texts: Texts;
  readonly #known: (string | undefined)[] = [];
  readonly #more: readonly string[];

  constructor(texts: Texts, more: readonly string[] = []) {
    this.texts = texts;
    this.length = texts.start.length + more.length;
    this.#more = more;
  }

  /** A name; "" beyond the last. */
  at(index: number): string {
    return (this.#known[index] ??= this.#read(index));
  }

  /** All names, by their index. */
  all(): string[] {
    const { bytes, start, end } = this.texts;
    const first = start[0] ?? 0;
    const whole = SINGLE_BYTES.decode(bytes.subarray(first, end.at(-1) ?? 0));
    for (let index = 0; index < start.length; index++) {
      const [from, until] = [start[index]!, end[index]!];
      this.#known[index] ??= isAscii(bytes, from, until)
        ? whole.slice(from - first, until - first)
        : UTF_8.decode(bytes.subarray(from, until));
    }
    for (let index = start.length; index < this.length; index++) this.at(index);
    return this.#known as string[];
  }

  /** These names and one more. */
  and(name: string): Names {
    return new Names(this.texts, [...this.#more, name]);
  }

  /** A small number that differs between most names, found without reading them. */
  fingerprint(index: number): number {
    const { bytes, start, end } = this.texts;
    if (index >= start.length) return 0;
    const [from, until] = [start[index]!, end[index]!];
    const back = (steps: number) => (until - steps >= from ? bytes[until - steps]! : 0);
    return until - from + back(1) + 3 * back(4);
  }

  #read(index: number): string {
    const { bytes, start, end } = this.texts;
    if (index >= start.length) return this.#more[index - start.length] ?? "";
    return UTF_8.decode(bytes.subarray(start[index]!, end[index]!));
  }
}

function isAscii(bytes: Uint8Array, from: number, until: number): boolean {
  for (let at = from; at < until; at++) if (bytes[at]! >= 0x80) return false;
  return true;
}
