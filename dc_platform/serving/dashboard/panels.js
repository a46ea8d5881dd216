// The panels: one answer of /monitoring/overview, drawn.

import { fillBars } from "./bars.js";
import { TimeChart } from "./charts.js";
import { byId, element, fillList, setText } from "./dom.js";
import { bytes, clock, count, duration, percent, rate } from "./format.js";

const OTHERS = 6;

let charts = null;
let shown = null;

export function setUpPanels() {
  charts = {
    rate: new TimeChart(byId("chart-rate"), {
      label: "Events received per second", format: rate, stacked: true,
      empty: "No event was received in this time. README, “Your own events”, shows how to send one.",
    }),
    lag: new TimeChart(byId("chart-lag"), { label: "Events waiting to land", format: count }),
    latency: new TimeChart(byId("chart-latency"), {
      label: "Time from receipt to landing", format: duration, axisFormat: duration,
      empty: "Nothing landed in this time.",
    }),
  };
  for (const choice of document.getElementsByName("rate-by")) {
    choice.addEventListener("change", () => shown && drawRate(shown));
  }
}

export function showOverview(content) {
  shown = content;
  drawTiles(content);
  drawRate(content);
  drawLag(content);
  drawLatency(content);
  drawLists(content);
  drawHealth(content);
}

function tile(id, big, sub, level = "") {
  const [, value, note] = byId(id).children;
  setText(value, big);
  setText(note, sub);
  byId(id).dataset.level = level;
}

function drawTiles({ at, received, lag, latency, rejected, silverVersion }) {
  tile("tile-rate", rate(received.current), `average ${rate(received.avg)}, peak ${rate(received.max)}`);
  tile("tile-lag", count(lag.current), `average ${count(lag.avg)}, peak ${count(lag.max)}`);
  const age = lag.newestLanded === null ? null : Math.max(0, at - lag.newestLanded);
  tile("tile-fresh", age === null ? "none" : `${duration(age)} old`,
    age === null ? "nothing landed within a day" : `silver is at version ${count(silverVersion)}`);
  tile("tile-latency", duration(latency.p99), latency.p50 === null ? "nothing landed in this time" : `half within ${duration(latency.p50)}`);
  const all = received.events + rejected.events;
  tile("tile-rejected", all ? percent(rejected.events / all) : "0 %",
    `${count(rejected.events)} rejected, ${count(received.events)} accepted`, rejected.events ? "warn" : "");
}

const sourceName = ({ name, sourceId }) => name ?? sourceId;

function drawRate({ timestamps, received }) {
  const bySource = document.querySelector("[name=rate-by]:checked").value === "source";
  let lines = [{ label: "all sources", color: 1, values: received.series }];
  if (bySource) {
    lines = received.bySource.map((line, index) => ({ label: sourceName(line), color: index + 1, values: line.values }));
    if (received.others) lines.push({ label: "others", color: OTHERS, values: received.others });
  }
  const summary = `now ${rate(received.current)}, on average ${rate(received.avg)}, at most ${rate(received.max)}`;
  charts.rate.update(timestamps, lines, summary);
}

function drawLag({ timestamps, lag, silverVersion }) {
  charts.lag.update(timestamps, [{ label: "waiting", color: 2, values: lag.series }],
    `now ${count(lag.current)}, on average ${count(lag.avg)}, at most ${count(lag.max)}`);
  setText(byId("border"), lag.landedAt === null ? "" : `version ${count(silverVersion)}, landed ${clock(lag.landedAt)}`);
  fillList(byId("partitions"), lag.partitions,
    () => element("li", {}, element("span"), element("b")),
    (node, { partition, events }) => {
      setText(node.children[0], `partition ${partition}`);
      setText(node.children[1], count(events));
    });
}

function drawLatency({ timestamps, latency }) {
  const lines = [
    { label: "p99", color: 3, values: latency.seriesP99 },
    { label: "p50", color: 4, values: latency.seriesP50, faint: true },
  ];
  charts.latency.update(timestamps, lines, `half within ${duration(latency.p50)}, 99 of 100 within ${duration(latency.p99)}`);
  setText(byId("latency-sub"), latency.p99 === null ? "" : `p50 ${duration(latency.p50)}, p99 ${duration(latency.p99)}`);
}

function drawLists({ eventTypes, sources, rejected }) {
  const bars = (rows, name, title) => rows.map((row) => ({
    name: name(row), title: title(row), share: row.events / rows[0].events,
    value: `${row.exact === false ? "≥ " : ""}${count(row.events)}`, note: percent(row.share),
  }));
  fillBars(byId("types"), bars(eventTypes, (row) => row.eventType, (row) => row.eventType), "No event in this time.");
  fillBars(byId("sources"), bars(sources, sourceName, (row) => row.sourceId), "No event in this time.");
  const reasons = rejected.byReason.map((row) => ({
    name: row.reason, share: row.events / rejected.byReason[0].events, value: count(row.events), note: row.remedy,
  }));
  fillBars(byId("reasons"), reasons, "Nothing was rejected in this time.");
}

const COMPONENTS = {
  ingestion: ["Ingestion", ({ throughput }) => `${count(throughput)} events/s arrive`],
  processing: ["Processing", ({ lag }) => `${count(lag)} events wait`],
  storage: ["Storage", ({ used }) => `${used} used`],
};

function drawHealth({ health, alerts, ledgerMade }) {
  fillList(byId("components"), Object.entries(health.components),
    () => element("li", {}, element("span", { className: "badge" }), element("span"), element("span", { className: "muted" })),
    (node, [name, component]) => {
      const [title, figure] = COMPONENTS[name] ?? [name, () => ""];
      node.dataset.state = component.status;
      setText(node.children[0], component.status);
      setText(node.children[1], title);
      setText(node.children[2], figure(component));
    });
  const items = alerts.length ? alerts : [null];
  fillList(byId("alerts"), items, () => element("li", {}, element("b"), element("span")), (node, alert) => {
    node.className = alert ? "alert" : "calm";
    node.dataset.severity = alert?.severity ?? "";
    setText(node.children[0], alert?.name ?? "No alert");
    setText(node.children[1], alert?.message ?? calm(ledgerMade));
  });
}

function calm(ledgerMade) {
  if (ledgerMade === null) return "No component is unwell. There is no ledger yet: the job `checks` makes it every five minutes.";
  return `No component is unwell, and the ledger of ${clock(ledgerMade)} balances: every acknowledged event is accounted for.`;
}

/** A text in which what stands between backticks is code. */
const described = (text) => text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part));

export function showTables({ tables }, look) {
  const rows = tables.map((table) => {
    const button = element("button", { type: "button", className: "plain" }, "look");
    button.setAttribute("aria-label", `Look at ${table.table}`);
    button.addEventListener("click", () => look(`select * from ${table.table} limit 100`));
    const cell = (text) => element("td", { className: "number" }, text);
    return element("tr", {},
      element("th", { scope: "row" }, element("code", {}, table.table), element("span", { className: "muted" }, ...described(table.description))),
      cell(`${table.counting ? "≥ " : ""}${count(table.rows)}`), cell(bytes(table.bytes)), cell(count(table.files)), cell(count(table.version)),
      element("td", {}, button));
  });
  const body = byId("tables").tBodies[0];
  // A focused button would lose its focus.
  const focused = [...body.rows].findIndex((row) => row.contains(document.activeElement));
  body.replaceChildren(...rows);
  if (focused >= 0) body.rows[focused]?.querySelector("button").focus();
  const sum = (name) => tables.reduce((total, table) => total + table[name], 0);
  setText(byId("tables-sub"), `${bytes(sum("bytes"))} in ${count(sum("files"))} files`);
}
