// Starts the page.

import { render } from "preact";
import { App } from "./app.tsx";
import "./theme.css";
import { applyTheme, storedTheme } from "./theme.ts";

applyTheme(storedTheme());
const root = document.getElementById("app");
if (!root) throw new Error("index.html has no #app");
render(<App />, root);
