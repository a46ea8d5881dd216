// Lists of names with a bar for their share: HTML, so that it reads as a list and wraps like text.

import { element, fillList, setText } from "./dom.js";

function row() {
  return element("li", { className: "bar-row" },
    element("span", { className: "bar-name" }),
    element("span", { className: "bar-value" }),
    element("span", { className: "bar-track", aria: { hidden: "true" } }, element("i")),
    element("span", { className: "bar-note" }));
}

/** `items` are {name, title, value, share: 0…1 of the longest bar, note}. */
export function fillBars(list, items, emptyText) {
  list.classList.toggle("is-empty", items.length === 0);
  if (items.length === 0) {
    list.replaceChildren(element("li", { className: "empty" }, emptyText));
    return;
  }
  if (list.firstElementChild?.className === "empty") list.replaceChildren();
  fillList(list, items, row, (node, item) => {
    const [name, value, track, note] = node.children;
    setText(name, item.name);
    name.title = item.title ?? item.name;
    setText(value, item.value);
    track.firstElementChild.style.width = `${Math.max(item.share * 100, item.share > 0 ? 0.5 : 0)}%`;
    setText(note, item.note ?? "");
    note.hidden = !item.note;
  });
}
