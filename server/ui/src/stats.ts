// How far a sampled share can be trusted.

/** Bounds of the 95 % Wilson score interval of a share seen in `samples` samples; it holds for few samples too. */
export function shareInterval(share: number, samples: number): { low: number; high: number } {
  if (samples <= 0) return { low: 0, high: 1 };
  const z = 1.959964;
  const spread = (z * z) / samples;
  const centre = (share + spread / 2) / (1 + spread);
  const half = (z / (1 + spread)) * Math.sqrt((share * (1 - share)) / samples + spread / (4 * samples));
  return { low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}

/** Below this many samples a share of one half is uncertain by more than ten points either way. */
export const FEW_SAMPLES = 93;
