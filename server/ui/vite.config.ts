import { defineConfig, type Plugin } from "vite";

/**
 * First path segments of the pages that live one level below the root (`/span/{id}`, `/trace/{id}`). Each gets its own copy of the
 * HTML whose asset links start with `../`, so that every link is relative and the page works under any sub-path
 * without a `<base>` element, an inline script or a server that rewrites HTML.
 */
const NESTED_PAGES = ["span", "trace"];

function nestedPages(): Plugin {
  return {
    name: "spanflame-nested-pages",
    apply: "build",
    enforce: "post",
    generateBundle(_options, bundle) {
      const index = bundle["index.html"];
      if (index?.type !== "asset") throw new Error("the build made no index.html");
      const html = String(index.source);
      if (!html.includes('"./assets/')) throw new Error("index.html links no relative asset");
      for (const page of NESTED_PAGES) {
        this.emitFile({
          type: "asset",
          fileName: `${page}/index.html`,
          source: html.replaceAll('"./', '"../'),
        });
      }
    },
  };
}

/** The same links while developing, where one HTML serves every address and is always mounted at the root. */
function rootedPage(): Plugin {
  return {
    name: "spanflame-rooted-page",
    apply: "serve",
    transformIndexHtml: { order: "pre", handler: (html) => html.replaceAll('"./', '"/') },
  };
}

/** Where `npm run dev` finds the server. */
const SERVER = process.env["SPANFLAME_URL"] ?? "http://127.0.0.1:4040";

export default defineConfig({
  base: "./",
  plugins: [nestedPages(), rootedPage()],
  build: {
    target: "es2022",
    outDir: "dist",
    emptyOutDir: true,
    // The polyfill would be an inline script in all but name; every browser we target preloads modules itself.
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: {
    // `SPANFLAME_URL=http://127.0.0.1:4040 npm run dev` develops the page against a running server.
    proxy: { "/api": SERVER, "/querier.v1.QuerierService": SERVER },
  },
});
