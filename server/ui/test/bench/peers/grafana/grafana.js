// Draws `data.json`, a nested set as Grafana's data sources send it, with @grafana/flamegraph: the graph alone, and every
// frame of it. Outside of Grafana's own build its table and menus do not load, and with them goes the zoom.

import { createTheme, FieldType, MutableDataFrame } from "@grafana/data";
import { FlameGraph } from "@grafana/flamegraph";
import { createElement } from "react";
import { createRoot } from "react-dom/client";

const { level, value, self, label } = await (await fetch("/grafana/data.json")).json();
const data = new MutableDataFrame({
  fields: [
    { name: "level", values: level, type: FieldType.number },
    { name: "value", values: value, type: FieldType.number, config: { unit: "ns" } },
    { name: "self", values: self, type: FieldType.number, config: { unit: "ns" } },
    { name: "label", values: label, type: FieldType.string },
  ],
});
const theme = createTheme({ colors: { mode: "light" } });
createRoot(document.getElementById("chart")).render(
  createElement(FlameGraph, {
    data,
    getTheme: () => theme,
    showFlameGraphOnly: true,
    disableCollapsing: true,
    showAnalyzeWithAssistant: false,
  }),
);
