// Starts the page.

import { render } from "preact";
import { App } from "./app.tsx";
import { startWorker } from "./flame/background.ts";
import "./theme.css";
import "./pages/pages.css";
import "./flame/flame.css";
import { applyTheme, storedTheme } from "./theme.ts";

startWorker();
applyTheme(storedTheme());
// The browser reads a relative icon address anew whenever the page's own address changes; an absolute one stays right.
const icon = document.querySelector<HTMLLinkElement>('link[rel="icon"]');
if (icon) icon.href = icon.href;
const root = document.getElementById("app");
if (!root) throw new Error("index.html has no #app");
render(<App />, root);
