// How far sampled shares can be trusted, and whether two of them differ. Samples are taken for independent draws; those of
// one request are not quite, so that true intervals are somewhat wider.

const Z_95 = 1.959964;

/**
 * Bounds of the 95 % Wilson score interval of a share seen in `samples` samples; it holds for few samples too.
 * E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209–212:
 * (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n).
 */
export function shareInterval(share: number, samples: number): { low: number; high: number } {
  if (samples <= 0) return { low: 0, high: 1 };
  const spread = (Z_95 * Z_95) / samples;
  const centre = (share + spread / 2) / (1 + spread);
  const half = (Z_95 / (1 + spread)) * Math.sqrt((share * (1 - share)) / samples + spread / (4 * samples));
  return { low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}

/** Below this many samples a share of one half is uncertain by more than ten points either way. */
export const FEW_SAMPLES = 93;

/**
 * The two-sided p-value of the two-proportion z-test with pooled variance and continuity correction (J. L. Fleiss,
 * B. Levin, M. C. Paik, "Statistical Methods for Rates and Proportions", 3rd ed. 2003, section 3.2):
 * z = (|p₁−p₂| − (1/n₁+1/n₂)/2) / √(p(1−p)(1/n₁+1/n₂)), where p is the share of both together.
 */
export function proportionsPValue(seen1: number, of1: number, seen2: number, of2: number): number {
  if (of1 <= 0 || of2 <= 0) return 1;
  const pooled = (seen1 + seen2) / (of1 + of2);
  const size = 1 / of1 + 1 / of2;
  const deviation = Math.sqrt(pooled * (1 - pooled) * size);
  const distance = Math.abs(seen1 / of1 - seen2 / of2) - size / 2;
  return distance <= 0 || deviation === 0 ? 1 : Math.min(1, 2 * upperTail(distance / deviation));
}

/**
 * Which of many tests found something, when one in twenty findings may be false (Y. Benjamini, Y. Hochberg, "Controlling
 * the false discovery rate", J. R. Stat. Soc. B 57 (1995), 289–300): all up to the largest k with p₍ₖ₎ ≤ 0.05·k/m.
 */
export function discoveries(pValues: readonly number[], rate = 0.05): boolean[] {
  const sorted = [...pValues].sort((a, b) => a - b);
  let limit = -1;
  sorted.forEach((p, at) => {
    if (p <= (rate * (at + 1)) / sorted.length) limit = p;
  });
  return pValues.map((p) => p <= limit);
}

/** P(Z > z) of the standard normal distribution for z ≥ 0, to 1e-7 (Abramowitz and Stegun, 26.2.17). */
function upperTail(z: number): number {
  const t = 1 / (1 + 0.2316419 * z);
  const polynomial =
    t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)) * polynomial;
}
