// The worker: does one task after the other, each as it comes.

import { buffersOf, perform, type Task } from "./tasks.ts";

addEventListener("message", async ({ data: { id, task } }: MessageEvent<{ id: number; task: Task }>) => {
  try {
    const result = await perform(task);
    postMessage({ id, result }, { transfer: [...buffersOf(result)] });
  } catch (error) {
    postMessage({ id, error: error instanceof Error ? error.message : String(error) });
  }
});
