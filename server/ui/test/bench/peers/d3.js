// Draws `data.json` with d3-flame-graph, as its own example does.

import flamegraph from "d3-flame-graph";
import { select } from "d3-selection";

const data = await (await fetch("/data.json")).json();
const chart = flamegraph().width(1200).cellHeight(18).minFrameSize(0.5).inverted(true);
select("#chart").datum(data).call(chart);
window.resetZoom = () => chart.resetZoom();
