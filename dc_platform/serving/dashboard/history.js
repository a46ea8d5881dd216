// The queries that were run, in this browser alone.

import { byId, element } from "./dom.js";
import { clock, count } from "./format.js";

const KEY = "dcp.history";
const KEPT = 50;

function load() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

function store(entries) {
  try { localStorage.setItem(KEY, JSON.stringify(entries)); } catch { /* full, or a browser that stores nothing */ }
}

/** Note a query; the same text is kept once, where it was run last. */
export function remember(sql, outcome) {
  store([{ sql, at: Date.now(), ...outcome }, ...load().filter((entry) => entry.sql !== sql)].slice(0, KEPT));
}

export function forgetAll() {
  store([]);
}

export function drawHistory(choose) {
  const entries = load();
  const items = entries.map(({ sql, at, rows, failed }) => {
    const said = failed ? "failed" : `${count(rows)} row${rows === 1 ? "" : "s"}`;
    const button = element("button", { type: "button", className: "plain" }, element("code", {}, sql));
    button.addEventListener("click", () => choose(sql));
    return element("li", {}, button, element("span", { className: "muted" }, `${said}, ${new Date(at).toLocaleDateString("en-CA")} ${clock(at)}`));
  });
  byId("history").replaceChildren(...(items.length ? items : [element("li", { className: "muted" }, "No query yet.")]));
  byId("history-clear").hidden = entries.length === 0;
}
