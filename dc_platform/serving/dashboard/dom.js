// Elements from texts: what comes from events only ever becomes text.

export const byId = (id) => document.getElementById(id);

/** An element; `properties` are its own (class is `className`), `aria` and `data` attributes included. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "aria" || name === "data") {
      for (const [key, text] of Object.entries(value)) made.setAttribute(`${name}-${key}`, text);
    } else {
      made[name] = value;
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Set a text only when it is another: nothing is painted or read out for what stayed. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Tell those who cannot see the page; the same text is not said twice. */
export function announce(text) {
  setText(byId("announce"), text);
}

/** A list whose items stay the same nodes, so that focus and scrolling survive an update. */
export function fillList(list, items, make, update) {
  while (list.children.length > items.length) list.lastElementChild.remove();
  items.forEach((item, index) => {
    if (!list.children[index]) list.append(make());
    update(list.children[index], item);
  });
}
