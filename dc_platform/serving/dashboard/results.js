// A query's result as a chart, chosen by the columns, and as a table.

import { fillBars } from "./bars.js";
import { TimeChart } from "./charts.js";
import { element } from "./dom.js";
import { compact, count, rate } from "./format.js";

const BARS = 30;
const LINES = 6;

const plain = (value) => (typeof value === "number" ? value : value === null ? null : Number(value));
const written = (value) => (Number.isInteger(value) ? count(value) : Math.abs(value) >= 1000 ? rate(value) : String(+value.toPrecision(6)));

/** Which columns make which chart: {kind: line|bars|none, …}. */
export function chooseChart(columns, wanted) {
  const of = (kind) => columns.flatMap((column, at) => (column.kind === kind ? [at] : []));
  const [times, numbers, texts] = [of("time"), of("number"), of("text")];
  if (wanted === "none" || numbers.length === 0) return { kind: "none" };
  if (wanted !== "bars" && times.length) {
    return { kind: "line", x: times[0], y: numbers.slice(0, LINES), by: texts[0] };
  }
  const names = texts[0] ?? times[0];
  if (wanted !== "line" && names !== undefined) return { kind: "bars", x: names, y: numbers.find((at) => at !== names) };
  return { kind: "none" };
}

/** What a chart that was asked for needs, when the columns do not have it. */
export const NEEDS = {
  line: "A line needs a column of times and one of numbers.",
  bars: "Bars need a column of texts and one of numbers.",
};

export function drawChart(host, { columns, rows }, wanted) {
  const chosen = chooseChart(columns, wanted);
  host.parentElement.dataset.chart = rows.length ? chosen.kind : "none";
  host.replaceChildren();
  if (rows.length === 0) return;
  if (chosen.kind === "none") {
    if (NEEDS[wanted]) host.append(element("p", { className: "muted" }, NEEDS[wanted]));
  } else if (chosen.kind === "bars") {
    drawBars(host, columns, rows, chosen);
  } else {
    drawLines(host, columns, rows, chosen);
  }
}

function drawBars(host, columns, rows, { x, y }) {
  const values = rows.slice(0, BARS).map((row) => ({ name: row[x] === null ? "null" : String(row[x]), value: plain(row[y]) ?? 0 }));
  const most = Math.max(...values.map(({ value }) => Math.abs(value))) || 1;
  const list = element("ol", { className: "bars free", tabIndex: 0, aria: { label: `${columns[y].name} by ${columns[x].name}` } });
  fillBars(list, values.map(({ name, value }) => ({ name, value: written(value), share: Math.abs(value) / most })), "");
  host.append(list);
  if (rows.length > BARS) host.append(element("p", { className: "muted" }, `The first ${BARS} rows.`));
}

function drawLines(host, columns, rows, { x, y, by }) {
  const at = (row) => Date.parse(row[x]);
  const dated = rows.filter((row) => Number.isFinite(at(row)));
  const times = [...new Set(dated.map(at))].sort((a, b) => a - b);
  const place = new Map(times.map((time, index) => [time, index]));
  const lines = new Map();
  for (const row of dated) {
    for (const column of by === undefined ? y : y.slice(0, 1)) {
      const label = by === undefined ? columns[column].name : String(row[by]);
      if (!lines.has(label)) lines.set(label, { label, total: 0, values: times.map(() => null) });
      const line = lines.get(label);
      line.values[place.get(at(row))] = plain(row[column]);
      line.total += Math.abs(plain(row[column]) ?? 0);
    }
  }
  const drawn = [...lines.values()].sort((a, b) => (by === undefined ? 0 : b.total - a.total)).slice(0, LINES);
  const chart = new TimeChart(host, { label: drawn.map(({ label }) => label).join(", "), format: written, axisFormat: compact });
  chart.update(times, drawn.map((line, index) => ({ ...line, color: index + 1, faint: drawn.length > 1 })), `${count(times.length)} times`);
  if (lines.size > LINES) host.append(element("p", { className: "muted" }, `The ${LINES} largest of ${count(lines.size)}.`));
}

export function drawTable(host, { columns, rows }) {
  const number = (at) => (columns[at].kind === "number" ? "number" : "");
  const head = element("tr", {}, ...columns.map((column, at) => element("th", { scope: "col", className: number(at) }, column.name)));
  const lines = rows.map((row) => element("tr", {}, ...row.map((value, at) => cell(value, number(at)))));
  host.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines)));
  host.hidden = columns.length === 0;
  host.scrollTo(0, 0);
}

function cell(value, className) {
  if (value === null) return element("td", { className: `${className} null` }, "null");
  const text = typeof value === "object" ? JSON.stringify(value) : typeof value === "number" ? grouped(value) : String(value);
  return element("td", { className, title: text.length > 60 ? text : "" }, className === "number" && typeof value === "string" ? grouped(value) : text);
}

/** Digits in groups of three; nothing is rounded. */
function grouped(value) {
  const text = String(value);
  if (!/^-?\d+(\.\d+)?$/.test(text)) return text;
  const [whole, fraction] = text.split(".");
  const groups = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? groups : `${groups}.${fraction}`;
}
