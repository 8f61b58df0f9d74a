// The page as it was built last, in front of a server that has an older one compiled in: for work on the page alone.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Serves the files of `dist` and passes everything else on to `target`. */
export async function withDist(dist: string, target: string): Promise<{ url: string; stop: () => void }> {
  // The headers, the security policy above all, are those that the server sends with its own page.
  const policy = (await fetch(`${target}/`)).headers.get("content-security-policy") ?? "default-src 'none'";
  const server = createServer((incoming, outgoing) => {
    void answer(incoming, outgoing, dist, target, policy);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    stop: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function answer(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  dist: string,
  target: string,
  policy: string,
): Promise<void> {
  const { pathname } = new URL(incoming.url ?? "/", target);
  const file = await fileOf(dist, pathname);
  if (file !== undefined) {
    outgoing.writeHead(200, {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      "cache-control": pathname.startsWith("/assets/") ? "public, max-age=31536000, immutable" : "no-cache",
      "content-security-policy": policy,
      "x-content-type-options": "nosniff",
    });
    createReadStream(file).pipe(outgoing);
    return;
  }
  const { method, headers } = incoming;
  const upstream = request(new URL(incoming.url ?? "/", target), { method, headers }, (answer) => {
    const { "www-authenticate": challenge, ...told } = answer.headers;
    // The page asks for a token itself; with this header the browser would, too.
    const isAsked = challenge === undefined || headers["x-requested-with"] !== undefined;
    outgoing.writeHead(answer.statusCode ?? 502, isAsked ? told : answer.headers);
    answer.pipe(outgoing);
  });
  upstream.on("error", () => outgoing.destroy());
  incoming.pipe(upstream);
}

/** The file for a path: an asset, or the HTML of the page of that depth. */
async function fileOf(dist: string, pathname: string): Promise<string | undefined> {
  const [, first = "", second] = pathname.split("/");
  const name =
    first === "assets"
      ? normalize(pathname).slice(1)
      : second === undefined
        ? /^[a-z]*$/.test(first) && !["ingest", "ready", "metrics"].includes(first)
          ? "index.html"
          : ""
        : `${first}/index.html`;
  if (name === "" || name.startsWith("..")) return undefined;
  const file = join(dist, name);
  const isFile = await stat(file).then(
    (found) => found.isFile(),
    () => false,
  );
  return isFile ? file : undefined;
}
