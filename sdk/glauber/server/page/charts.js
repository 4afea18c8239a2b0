"use strict";
/* Two pictures in SVG: energies along the chains, and how often each energy came. */

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 420, HEIGHT = 210, LEFT = 58, BOTTOM = 30, TOP = 8, RIGHT = 8;
const COLOURS = ["#1f77b4", "#d1700f", "#2c8c3c", "#c23b3b", "#7f5fb0", "#8c564b", "#c0529e", "#7b7b7b"];

function shape(kind, attributes, text) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

function frame(label, x, y, xLabel, yLabel) {
  const picture = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  const right = WIDTH - RIGHT, low = HEIGHT - BOTTOM;
  picture.append(shape("path", { class: "axis", d: `M${LEFT} ${TOP}V${low}H${right}` }));
  picture.append(shape("text", { x: LEFT, y: low + 13 }, short(x[0])));
  picture.append(shape("text", { x: right, y: low + 13, "text-anchor": "end" }, short(x[1])));
  picture.append(shape("text", { x: (LEFT + right) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, xLabel));
  picture.append(shape("text", { x: LEFT - 5, y: low, "text-anchor": "end" }, short(y[0])));
  picture.append(shape("text", { x: LEFT - 5, y: TOP + 9, "text-anchor": "end" }, short(y[1])));
  const middle = (TOP + low) / 2;
  picture.append(shape("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, yLabel));
  const across = x[1] > x[0] ? (right - LEFT) / (x[1] - x[0]) : 0;
  const up = y[1] > y[0] ? (low - TOP) / (y[1] - y[0]) : 0;
  return { picture, toX: (value) => LEFT + (value - x[0]) * across, toY: (value) => low - (value - y[0]) * up };
}

function traceChart(summary) {
  const numbers = summary.sample_numbers;
  let low = Infinity, high = -Infinity;
  for (const trace of summary.traces) for (const value of trace) { low = Math.min(low, value); high = Math.max(high, value); }
  if (low === high) { low -= 1; high += 1; }
  const label = `Energy along ${summary.traces.length} of ${summary.n_chains} chains, from ${short(low)} to ${short(high)}`;
  const { picture, toX, toY } = frame(label, [numbers[0], numbers[numbers.length - 1]], [low, high], "sample", "energy");
  summary.traces.forEach((trace, k) => {
    const points = trace.map((value, i) => `${toX(numbers[i]).toFixed(1)},${toY(value).toFixed(1)}`).join(" ");
    picture.append(shape("polyline", { class: "trace", points, stroke: COLOURS[k % COLOURS.length] }));
    if (trace.length === 1) picture.append(shape("circle", { cx: toX(numbers[0]), cy: toY(trace[0]), r: 3, fill: COLOURS[k % 8] }));
  });
  return picture;
}

function histogramChart(summary) {
  const { bin_edges: edges, counts } = summary;
  const most = Math.max(...counts, 1);
  const label = `Histogram of the energies from ${short(edges[0])} to ${short(edges[edges.length - 1])}`;
  const { picture, toX, toY } = frame(label, [edges[0], edges[edges.length - 1]], [0, most], "energy", "samples");
  counts.forEach((count, k) => {
    const x = toX(edges[k]), width = Math.max(0.5, toX(edges[k + 1]) - x - 0.7);
    picture.append(shape("rect", { class: "bar", x, width, y: toY(count), height: toY(0) - toY(count) }));
  });
  return picture;
}
