// Waiting for what is about to be true.

const DEADLINE_MS = 10_000;
const PAUSE_MS = 25;

/** Repeats `assertion` until it passes; past the deadline its last error stands. */
export async function eventually(assertion: () => Promise<void>): Promise<void> {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    try {
      return await assertion();
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
