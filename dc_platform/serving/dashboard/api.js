// Requests to serving, and its refusals in words.

import { currentToken } from "./session.js";

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

const AWAY = "Serving does not answer. See whether the stack is up: dcp status.";
const BROKEN = "The answer broke off in the middle. Run it again; serving’s log says why.";

async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      ...options,
      cache: "no-store",
      credentials: "omit",
      headers: { ...options.headers, Authorization: `Bearer ${currentToken()}` },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, AWAY);
  }
  if (!answer.ok) throw new ApiError(answer.status, await detailOf(answer));
  return answer;
}

async function detailOf(answer) {
  try {
    return String((await answer.json()).detail);
  } catch {
    return `Serving failed (${answer.status}); its log says why.`;
  }
}

export async function get(path) {
  return (await request(path)).json();
}

/** The bytes of a SQL answer. It comes in frames (docs/api.md), so an error after the first rows has words. */
async function sqlBytes(body, signal) {
  const answer = await request("../api/v1/sql", {
    method: "POST",
    signal,
    headers: { "Content-Type": "application/json", "X-Framed": "true" },
    body: JSON.stringify(body),
  });
  const complete = answer.headers.get("X-Complete") !== "false";
  let buffer;
  try {
    buffer = await answer.arrayBuffer();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, BROKEN);
  }
  return { parts: unframed(buffer), complete };
}

function unframed(buffer) {
  const view = new DataView(buffer);
  const parts = [];
  let at = 0;
  while (at + 4 <= buffer.byteLength) {
    const size = view.getUint32(at);
    at += 4;
    if (size === 0) {
      const end = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, at)));
      if (end.detail) throw new ApiError(end.status, end.detail);
      return parts;
    }
    if (at + size > buffer.byteLength) break;
    parts.push(new Uint8Array(buffer, at, size));
    at += size;
  }
  throw new ApiError(0, BROKEN);
}

/** Columns and the first `limit` rows. */
export async function sqlTable(sql, limit, signal) {
  const { parts, complete } = await sqlBytes({ sql, format: "table", limit }, signal);
  const text = await new Blob(parts).text();
  return { ...JSON.parse(text, exactly), complete };
}

/** All rows, as a file. */
export async function sqlCsv(sql, signal) {
  const { parts } = await sqlBytes({ sql, format: "csv" }, signal);
  return new Blob(parts, { type: "text/csv" });
}

/** Integers that a double does not hold stay as they were written, where the browser tells. */
function exactly(_key, value, context) {
  const inexact = typeof value === "number" && !Number.isSafeInteger(value);
  return inexact && context && /^-?\d+$/.test(context.source) ? context.source : value;
}
