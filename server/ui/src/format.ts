// Numbers and times as text. Digits are aligned by the style sheet (tabular figures), not here.

const TIME_UNITS: [number, string][] = [
  [1e9, "s"],
  [1e6, "ms"],
  [1e3, "µs"],
  [1, "ns"],
];

/** Nanoseconds with three significant digits: `30 ms`, `1.25 s`, `2 min 5 s`. */
export function formatNanos(nanos: number): string {
  if (nanos === 0) return "0 ms";
  if (nanos >= 59.95e9) {
    const seconds = Math.round(nanos / 1e9);
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
    return `${formatCount(Math.floor(minutes / 60))} h ${minutes % 60} min`;
  }
  for (const [size, unit] of TIME_UNITS) {
    if (nanos >= size * 0.9995 || unit === "ns") return `${significant(nanos / size)} ${unit}`;
  }
  return "";
}

/** A whole number with thousands separated: `12,345`. */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString("en-US");
}

/** Samples a second, in hertz: `100 Hz`. */
export function formatRate(perSecond: number): string {
  return `${perSecond >= 999.5 ? formatCount(perSecond) : significant(perSecond)} Hz`;
}

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Bytes with binary units: `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  let unit = 0;
  let value = bytes;
  while (value >= 1000 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? formatCount(value) : significant(value)} ${BYTE_UNITS[unit]}`;
}

/** A value of a profile type in its unit. */
export function formatValue(value: number, unit: string): string {
  if (unit === "nanoseconds") return formatNanos(value);
  if (unit === "bytes") return formatBytes(value);
  return unit === "count" ? formatCount(value) : `${formatCount(value)} ${unit}`;
}

/** A share between 0 and 1 as a percentage with one decimal; a present but tiny one is not rounded to nothing. */
export function formatShare(share: number): string {
  if (share > 0 && share < 0.0005) return "<0.1%";
  if (share < 1 && share > 0.9995) return ">99.9%";
  return `${(share * 100).toFixed(1)}%`;
}

/** A difference of shares in percentage points, with its sign: `+12.3 points`. */
export function formatPoints(difference: number): string {
  const points = difference * 100;
  const sign = points >= 0.05 ? "+" : points <= -0.05 ? "−" : "±";
  return `${sign}${Math.abs(points).toFixed(1)} points`;
}

/** Date and time to the second in the reader's zone: `2026-01-31 14:05:09`. */
export function formatTime(unixMillis: number): string {
  const at = new Date(unixMillis);
  return `${formatDate(at)} ${formatClock(at)}`;
}

/** An interval; the day is not repeated when both ends share it. */
export function formatInterval(from: number, until: number): string {
  const [a, b] = [new Date(from), new Date(until)];
  const end = formatDate(a) === formatDate(b) ? formatClock(b) : formatTime(until);
  return `${formatTime(from)} – ${end}`;
}

/** How long ago, roughly: `just now`, `5 min ago`, `3 h ago`, `2 d ago`. */
export function formatAge(unixMillis: number, now: number): string {
  const seconds = Math.max(0, (now - unixMillis) / 1000);
  if (seconds < 45) return "just now";
  if (seconds < 3570) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 84600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} d ago`;
}

function formatDate(at: Date): string {
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

function formatClock(at: Date): string {
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}

function significant(value: number): string {
  return value >= 999.5 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
