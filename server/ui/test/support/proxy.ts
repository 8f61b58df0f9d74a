// A reverse proxy that mounts a server under a path prefix and passes requests on without it.

import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** Mounts `target` at `prefix`, such as "/profiles/"; every other path is a plain 404. */
export async function mountUnder(
  prefix: string,
  target: string,
): Promise<{ url: string; strays: string[]; stop: () => void }> {
  const strays: string[] = [];
  const server: Server = createServer((incoming, outgoing) => {
    const path = incoming.url ?? "";
    if (!path.startsWith(prefix)) {
      strays.push(path);
      outgoing.writeHead(404).end();
      return;
    }
    const upstream = request(
      new URL(path.slice(prefix.length - 1), target),
      { method: incoming.method, headers: incoming.headers },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      },
    );
    upstream.on("error", () => outgoing.destroy());
    incoming.pipe(upstream);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}${prefix.replace(/\/$/, "")}`,
    strays,
    stop: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
