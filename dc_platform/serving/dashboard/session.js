// The token: kept for this tab, or for this browser where the person said so. It comes from the form, or
// from the fragment of a link that `dcp dashboard` printed, which no browser sends to a server.

const KEY = "dcp.token";

function stores() {
  const found = [];
  for (const name of ["sessionStorage", "localStorage"]) {
    try { found.push(window[name]); } catch { /* a browser that stores nothing */ }
  }
  return found;
}

let token = null;

export const currentToken = () => token;

/** Take the token of the link, else the stored one. */
export function begin() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    // Out of the address bar, the history and screenshots.
    history.replaceState(null, "", location.pathname);
    keep(given, false);
  } else {
    token = stores().map((store) => store.getItem(KEY)).find(Boolean) ?? null;
  }
  return token;
}

export function keep(value, remember) {
  forget();
  token = value;
  const [tab, browser] = stores();
  (remember ? browser : tab)?.setItem(KEY, value);
}

export function forget() {
  token = null;
  for (const store of stores()) store.removeItem(KEY);
}
