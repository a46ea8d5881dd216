// The page's life: sign in, ask every two seconds while somebody looks, say what is wrong and what to do.

import { ApiError, get } from "./api.js";
import { announce, byId, setText } from "./dom.js";
import { clock, duration } from "./format.js";
import { setUpPanels, showOverview, showTables } from "./panels.js";
import { choose, setUpQuery } from "./query.js";
import { begin, currentToken, forget, keep } from "./session.js";

const EVERY_MS = 2_000;
const TABLES_EVERY_MS = 10_000;
const LONGEST_MS = 15_000;

let timer = null;
let failures = 0;
let paused = false;
let tablesAt = 0;
let asked = 0;

function state(name, text) {
  const changed = byId("state").dataset.state !== name;
  byId("state").dataset.state = name;
  setText(byId("state-text"), text);
  if (changed) announce(text);
}

function notice(text) {
  setText(byId("notice"), text);
  byId("notice").hidden = !text;
}

function showSignIn(message = "") {
  clearTimeout(timer);
  forget();
  document.body.classList.remove("signed-in");
  byId("board").hidden = true;
  byId("sign-in").hidden = false;
  setText(byId("sign-in-error"), message);
  byId("token").setAttribute("aria-invalid", String(Boolean(message)));
  state("out", "Signed out");
  byId("token").focus();
}

function showBoard() {
  document.body.classList.add("signed-in");
  byId("sign-in").hidden = true;
  byId("board").hidden = false;
}

const windowOf = () => document.querySelector("[name=window]:checked").value;

async function refresh() {
  clearTimeout(timer);
  const mine = (asked += 1);
  try {
    const content = await get(`../api/v1/monitoring/overview?window=${windowOf()}`);
    // Meanwhile another window was chosen, or the person left.
    if (mine !== asked || !currentToken()) return;
    succeeded(content);
    if (Date.now() - tablesAt >= TABLES_EVERY_MS) {
      tablesAt = Date.now();
      showTables(await get("../api/v1/monitoring/tables"), choose);
    }
  } catch (error) {
    if (mine !== asked) return;
    failed(error);
  }
  schedule();
}

function succeeded(content) {
  failures = 0;
  showBoard();
  showOverview(content);
  const { status } = content.health;
  const when = paused ? "Paused at" : "Live,";
  state(paused ? "paused" : status, `${status === "healthy" ? "" : `${status[0].toUpperCase()}${status.slice(1)}. `}${when} ${clock(content.at)}`);
  notice(doubts(content));
}

function doubts({ complete, completeUpTo, countedSince, at }) {
  if (!complete) {
    const until = completeUpTo ? ` The figures hold up to ${clock(completeUpTo)}.` : "";
    return `Serving has not caught up with Kafka.${until}`;
  }
  if (countedSince) return `Older files are still being counted: the figures hold for the last ${duration(at - countedSince)}.`;
  return "";
}

function failed(error) {
  if (!(error instanceof ApiError)) {
    // Ours, not the server's: seen in the console, and by whoever looks at the page.
    console.error(error);
  }
  if (error.status === 401 || error.status === 403) {
    tablesAt = 0;
    showSignIn(`${error.message} Sign in with another token.`);
    return;
  }
  failures += 1;
  const starting = error.status === 503;
  state(starting ? "starting" : "away", starting ? "Starting" : "No answer");
  showBoard();
  notice(starting ? `${error.message} It reads where silver stands, which takes seconds; this page goes on by itself.`
    : `${error.message} This page tries again by itself; the figures are those of before.`);
}

function schedule() {
  clearTimeout(timer);
  if (paused || document.hidden || !currentToken()) return;
  timer = setTimeout(refresh, Math.min(EVERY_MS * 2 ** failures, LONGEST_MS));
}

function setUpControls() {
  byId("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = byId("token").value.trim();
    keep(token, byId("remember").checked);
    byId("token").value = "";
    setText(byId("sign-in-error"), "");
    refresh().then(() => currentToken() && byId("main").focus());
  });
  byId("sign-out").addEventListener("click", () => showSignIn());
  byId("window").addEventListener("change", refresh);
  byId("pause").addEventListener("click", () => {
    paused = !paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    setText(byId("pause"), paused ? "Go on" : "Pause");
    refresh();
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : schedule()));
}

setUpPanels();
setUpQuery((error) => showSignIn(`${error.message} Sign in with another token.`));
setUpControls();
if (begin()) refresh();
else showSignIn();
