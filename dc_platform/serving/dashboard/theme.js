// Before the first paint, so that nothing flashes: the theme that was chosen here, else the system's.
(() => {
  const KEY = "dcp.theme";
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem(KEY) || "auto"; } catch { return "auto"; } };
  const apply = (theme) => { root.dataset.theme = theme; };
  apply(stored());
  addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = stored();
    select.addEventListener("change", () => {
      try { localStorage.setItem(KEY, select.value); } catch { /* a browser that stores nothing */ }
      apply(select.value);
      dispatchEvent(new Event("themechange"));
    });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));
})();
