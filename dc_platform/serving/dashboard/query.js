// The query box: SQL in, a chart and a table out; what is wrong stands below the text.

import { sqlCsv, sqlTable } from "./api.js";
import { byId, element, setText } from "./dom.js";
import { count, duration } from "./format.js";
import { drawHistory, forgetAll, remember } from "./history.js";
import { drawChart, drawTable } from "./results.js";

const LIMIT = 1000;
const EXAMPLES = {
  "events by type": "select event_type, count(*) as events\nfrom events\ngroup by all\norder by events desc",
  "events per minute": "select date_trunc('minute', received_at) as minute, event_type, count(*) as events\nfrom events\nwhere received_at > now() - interval '1 hour'\ngroup by all\norder by minute",
  "newest events": "select received_at, event_type, source_id, payload\nfrom events\norder by received_at desc\nlimit 50",
  "why rejected": "select reason, count(*) as events, any_value(message) as example\nfrom silver.quarantine\ngroup by all\norder by events desc",
};

let running = null;
let result = null;
let onRefused = () => {};

export function setUpQuery(refused) {
  onRefused = refused;
  byId("sql").value = EXAMPLES["events by type"];
  byId("query-form").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  byId("sql").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
  });
  byId("cancel").addEventListener("click", () => running?.abort());
  byId("csv").addEventListener("click", download);
  byId("chart-kind").addEventListener("change", () => result && drawChart(byId("result-chart"), result, byId("chart-kind").value));
  byId("history-clear").addEventListener("click", () => { forgetAll(); drawHistory(choose); byId("history-box").querySelector("summary").focus(); });
  for (const [name, sql] of Object.entries(EXAMPLES)) {
    const button = element("button", { type: "button", className: "chip" }, name);
    button.addEventListener("click", () => choose(sql));
    byId("examples").append(button);
  }
  drawHistory(choose);
}

/** Put a query into the box and run it. */
export function choose(sql) {
  byId("sql").value = sql;
  byId("query").scrollIntoView({ block: "start" });
  byId("sql").focus({ preventScroll: true });
  run();
}

function busy(controller) {
  running = controller;
  byId("run").disabled = byId("csv").disabled = controller !== null;
  byId("cancel").hidden = controller === null;
  byId("query").setAttribute("aria-busy", String(controller !== null));
  if (controller === null) byId("csv").disabled = result === null;
}

function fail(error) {
  setText(byId("result-summary"), "");
  if (error.name === "AbortError") {
    setText(byId("result-summary"), "Cancelled.");
    return;
  }
  if (error.status === 401) onRefused(error);
  setText(byId("sql-error"), error.message);
  byId("sql").setAttribute("aria-invalid", "true");
}

async function attempt(saying, work) {
  if (running) return;
  busy(new AbortController());
  setText(byId("sql-error"), "");
  byId("sql").removeAttribute("aria-invalid");
  setText(byId("result-summary"), saying);
  try {
    await work(running.signal);
  } catch (error) {
    fail(error);
  } finally {
    busy(null);
  }
}

function run() {
  const sql = byId("sql").value.trim();
  if (!sql) {
    setText(byId("sql-error"), "Write a SELECT first, or take an example.");
    byId("sql").focus();
    return;
  }
  attempt("Running…", async (signal) => {
    const begun = performance.now();
    try {
      result = { ...(await sqlTable(sql, LIMIT, signal)), sql };
    } catch (error) {
      if (error.name !== "AbortError") {
        result = null;
        show({ columns: [], rows: [] });
        remember(sql, { failed: true });
        drawHistory(choose);
      }
      throw error;
    }
    show(result);
    setText(byId("result-summary"), summary(result, performance.now() - begun));
    remember(sql, { rows: result.rows.length });
    drawHistory(choose);
  });
}

function show(content) {
  drawChart(byId("result-chart"), content, byId("chart-kind").value);
  drawTable(byId("result-table"), content);
}

function summary({ rows, more, complete }, ms) {
  const size = more ? `The first ${count(rows.length)} rows; the CSV has all` : `${count(rows.length)} row${rows.length === 1 ? "" : "s"}`;
  return `${size}, in ${duration(ms)}.${complete ? "" : " Serving has not caught up with Kafka: newer events are missing."}`;
}

function download() {
  attempt("Downloading…", async (signal) => {
    const file = await sqlCsv(result.sql, signal);
    const link = element("a", { href: URL.createObjectURL(file), download: "result.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    setText(byId("result-summary"), `result.csv, ${count(file.size)} bytes.`);
  });
}
