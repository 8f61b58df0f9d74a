// The real server: started from its binary, or one that already runs.

import { spawn, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { withDist } from "./dist.ts";
import { encodeProfile, type ProfileInput } from "./pprof.ts";

export interface TestServer {
  /** Address without a trailing slash. */
  url: string;
  stop(): Promise<void>;
}

const START_MS = 30_000;

/** The server at `SPANFLAME_URL`, else one started from `SPANFLAME_BIN` with an empty data directory. */
export async function testServer(): Promise<TestServer> {
  const url = process.env["SPANFLAME_URL"];
  if (url) return withFreshPage({ url: url.replace(/\/+$/, ""), stop: async () => {} });
  const binary = process.env["SPANFLAME_BIN"];
  if (!binary)
    throw new Error("set SPANFLAME_URL to a running server, or SPANFLAME_BIN to the server's binary");
  return withFreshPage(await startServer(binary));
}

/** The server with the page in `SPANFLAME_DIST` before the one that was compiled into it. */
async function withFreshPage(server: TestServer): Promise<TestServer> {
  const dist = process.env["SPANFLAME_DIST"];
  if (!dist) return server;
  const front = await withDist(dist, server.url);
  return {
    url: front.url,
    stop: async () => {
      front.stop();
      await server.stop();
    },
  };
}

/** A server of this binary with an empty data directory, and with more arguments and variables. */
export async function startServer(
  binary: string,
  args: string[] = [],
  env: Record<string, string> = {},
): Promise<TestServer> {
  const data = await mkdtemp(join(tmpdir(), "spanflame-ui-"));
  const child = spawn(binary, ["serve", "--listen", "127.0.0.1:0", "--data-dir", data, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, SPANFLAME_LOG: "warn", ...env },
  });
  const stop = async () => {
    await ended(child);
    await rm(data, { recursive: true, force: true });
  };
  try {
    return { url: await announcedAddress(child), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Pushes a profile of a service as Pyroscope's clients do, in Connect's JSON form. */
export async function push(
  server: TestServer,
  service: string,
  profile: ProfileInput,
  headers: Record<string, string> = {},
): Promise<void> {
  const body = {
    series: [
      {
        labels: [
          { name: "__name__", value: "process_cpu" },
          { name: "service_name", value: service },
        ],
        samples: [{ rawProfile: Buffer.from(encodeProfile(profile)).toString("base64"), ID: randomUUID() }],
      },
    ],
  };
  const response = await fetch(`${server.url}/push.v1.PusherService/Push`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`push: ${response.status} ${await response.text()}`);
}

async function announcedAddress(child: ChildProcess): Promise<string> {
  const timer = setTimeout(() => child.kill("SIGKILL"), START_MS);
  try {
    for await (const line of createInterface({ input: child.stdout! })) {
      const address = /^listening on (http:\/\/\S+)$/.exec(line)?.[1];
      if (address) return address;
    }
  } finally {
    clearTimeout(timer);
  }
  throw new Error("the server ended before it listened");
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), START_MS);
  await exit;
  clearTimeout(timer);
}
