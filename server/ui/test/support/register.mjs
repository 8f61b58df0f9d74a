// Lets Node run the TypeScript of the page and its tests: `node --import ./test/support/register.mjs …`.

import { register } from "node:module";

register("./hooks.mjs", import.meta.url);
