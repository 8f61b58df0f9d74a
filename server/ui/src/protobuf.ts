// Protobuf's wire format, as little of it as the page needs: reading any message field by field, writing small requests.

/** A field of a message. */
export interface Field {
  number: number;
  value: number;
  /** Set for what has a length: texts, messages, packed numbers. */
  bytes: Uint8Array | undefined;
}

/** The fields of a message, up to where it breaks off. */
export function* fields(bytes: Uint8Array): Generator<Field> {
  const at = { offset: 0 };
  while (at.offset < bytes.length) {
    const tag = varint(bytes, at);
    const number = Math.floor(tag / 8);
    const kind = tag % 8;
    if (kind === 0) yield { number, value: varint(bytes, at), bytes: undefined };
    else if (kind === 1) at.offset += 8;
    else if (kind === 5) at.offset += 4;
    else if (kind === 2) {
      const length = varint(bytes, at);
      yield { number, value: 0, bytes: bytes.subarray(at.offset, at.offset + length) };
      at.offset += length;
    } else return;
  }
}

/** Reads a varint; what exceeds 53 bits loses its lowest ones, which no line, index or value needs. */
export function varint(bytes: Uint8Array, at: { offset: number }): number {
  let value = 0;
  let scale = 1;
  while (at.offset < bytes.length) {
    const byte = bytes[at.offset++]!;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) break;
    scale *= 128;
  }
  return value;
}

/** The varints of a packed field. */
export function packed(bytes: Uint8Array): Float64Array {
  let count = 0;
  for (let i = 0; i < bytes.length; i++) if (bytes[i]! < 0x80) count++;
  const values = new Float64Array(count);
  const at = { offset: 0 };
  for (let i = 0; i < count; i++) values[i] = varint(bytes, at);
  return values;
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
