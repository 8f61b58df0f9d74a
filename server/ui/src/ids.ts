// Span and trace ids as people paste them.

export type ParsedId =
  { kind: "span"; id: string } | { kind: "trace"; id: string } | { kind: "invalid"; message: string };

/** Reads a pasted id: white space, quotes, a `0x` and upper case are no obstacle. */
export function parseId(text: string): ParsedId {
  const id = text
    .replace(/[\s"'`]/g, "")
    .replace(/^0x/i, "")
    .toLowerCase();
  if (id === "") return { kind: "invalid", message: "Enter a span id: 16 hexadecimal characters." };
  if (id.includes("${")) {
    return {
      kind: "invalid",
      message:
        "This is a template that was never filled in. The span carries no pyroscope.profile.id: it was not sampled, or the service does not run the bridge.",
    };
  }
  if (!/^[0-9a-f]+$/.test(id)) {
    return { kind: "invalid", message: "A span id has only the characters 0–9 and a–f, 16 of them." };
  }
  if (/^0+$/.test(id)) return { kind: "invalid", message: "An id of zeros stands for “no span”." };
  if (id.length === 16) return { kind: "span", id };
  if (id.length === 32) return { kind: "trace", id };
  return {
    kind: "invalid",
    message: `A span id has 16 hexadecimal characters (a trace id 32); this has ${id.length}.`,
  };
}
