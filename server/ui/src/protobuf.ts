// Protobuf's wire format, as little of it as the page needs: reading any message field by field, writing small requests.

/** A field of a message. */
export interface Field {
  number: number;
  value: number;
  /** Set for what has a length: texts, messages, packed numbers. */
  bytes: Uint8Array | undefined;
}

/** Where reading stands in a message. */
export class Cursor {
  at: number;
  readonly bytes: Uint8Array;
  readonly end: number;

  constructor(bytes: Uint8Array, at = 0, end = bytes.length) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
  }

  /** Reads a varint; what exceeds 53 bits loses its lowest ones, which no line, index or value needs. */
  varint(): number {
    const { bytes, end } = this;
    let { at } = this;
    let value = 0;
    // Four bytes as a small integer, the rest as a large number.
    let shift = 0;
    for (; at < end && shift < 28; shift += 7) {
      const byte = bytes[at++]!;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        this.at = at;
        return value;
      }
    }
    for (let scale = 2 ** shift; at < end; scale *= 128) {
      const byte = bytes[at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) break;
    }
    this.at = at;
    return value;
  }
}

/** The fields of a message, up to where it breaks off. */
export function* fields(bytes: Uint8Array): Generator<Field> {
  const cursor = new Cursor(bytes);
  while (cursor.at < bytes.length) {
    const tag = cursor.varint();
    const number = Math.floor(tag / 8);
    const kind = tag % 8;
    if (kind === 0) yield { number, value: cursor.varint(), bytes: undefined };
    else if (kind === 1) cursor.at += 8;
    else if (kind === 5) cursor.at += 4;
    else if (kind === 2) {
      const length = cursor.varint();
      yield { number, value: 0, bytes: bytes.subarray(cursor.at, cursor.at + length) };
      cursor.at += length;
    } else return;
  }
}

/** The varints of a packed field. */
export function packed(bytes: Uint8Array): Float64Array {
  const values = new Float64Array(countVarints(bytes, 0, bytes.length));
  const cursor = new Cursor(bytes);
  for (let i = 0; i < values.length; i++) values[i] = cursor.varint();
  return values;
}

/** How many varints end in a stretch of bytes. */
export function countVarints(bytes: Uint8Array, from: number, until: number): number {
  let count = 0;
  for (let at = from; at < until; at++) if (bytes[at]! < 0x80) count++;
  return count;
}

/** Writes a message: fields in the order they are given, numbers not below zero. Empty texts and zeros are left out. */
export function message(
  fields: readonly (readonly [number, string | number | Uint8Array])[],
): Uint8Array<ArrayBuffer> {
  const bytes: number[] = [];
  const number = (value: number) => {
    for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push((value % 0x80) | 0x80);
    bytes.push(value);
  };
  for (const [field, value] of fields) {
    if (value === "" || value === 0) continue;
    number(field * 8 + (typeof value === "number" ? 0 : 2));
    if (typeof value === "number") {
      number(value);
      continue;
    }
    const content = typeof value === "string" ? new TextEncoder().encode(value) : value;
    number(content.length);
    for (const byte of content) bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
