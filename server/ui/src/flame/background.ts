// The worker as the page sees it: a task goes out, a promise comes back.

import { DecodeError } from "./decode.ts";
import { unpack, type Packed, type Results, type Task } from "./tasks.ts";

interface Waiting {
  done: (result: Results[Task["what"]]) => void;
  failed: (error: Error) => void;
}

type Answer = { id: number; result: Packed } | { id: number; error: string };

const waiting = new Map<number, Waiting>();
let worker: Worker | undefined;
let asked = 0;

/** Starts the worker, so that it is there once there is something to do. */
export function startWorker(): Worker {
  if (worker) return worker;
  const started = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  started.onmessage = ({ data }: MessageEvent<Answer>) => {
    const waits = waiting.get(data.id);
    waiting.delete(data.id);
    if ("error" in data) waits?.failed(new DecodeError(data.error));
    else waits?.done(unpack(data.result));
  };
  started.onerror = () => {
    // It did not load. The next task tries again, with a new one.
    worker = undefined;
    for (const { failed } of waiting.values()) failed(new Error("The page could not be loaded in full."));
    waiting.clear();
  };
  return (worker = started);
}

/** Does a task in the worker, which takes hold of the bytes. */
export function inBackground<What extends Task["what"]>(
  task: Task & { what: What },
): Promise<Results[What] | undefined> {
  return new Promise((done, failed) => {
    const id = asked++;
    waiting.set(id, { done: done as Waiting["done"], failed });
    startWorker().postMessage({ id, task }, [task.bytes]);
  });
}
