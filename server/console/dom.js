// The parts pages are made of. Nothing is made anew that has not changed, so that focus, a selection, a hover
// and what is being typed survive an update.

export const $ = (id) => document.getElementById(id);

export function element(name, properties, ...children) {
  const { data, attributes, ...rest } = properties ?? {};
  const made = Object.assign(document.createElement(name), rest);
  Object.assign(made.dataset, data);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Makes the children anew only where something changed. */
export function fill(parent, items, make) {
  const shape = JSON.stringify(items);
  if (parent.shape === shape) return;
  parent.shape = shape;
  parent.replaceChildren(...items.map(make));
}

/**
 * Keeps one child for each item, by its key: known ones are updated in place, and only those are moved that are out of
 * order. When the child with the focus goes, the focus goes to the one that takes its place, or to `parent.fallback`.
 */
export function keyed(parent, items, key, make, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const child = known.get(key(item)) ?? make(item);
    child.dataset.key = key(item);
    update(child, item);
    return child;
  });
  const stay = new Set(wanted);
  let orphan = -1;
  [...parent.children].forEach((child, n) => {
    if (stay.has(child)) return;
    if (child.contains(document.activeElement)) orphan = n;
    child.remove();
  });
  let at = parent.firstElementChild;
  for (const child of wanted) {
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  if (orphan >= 0) {
    const heir = parent.children[Math.min(orphan, parent.children.length - 1)];
    (heir?.querySelector("a, button:not([hidden])") ?? parent.fallback)?.focus();
  }
}

export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/** The options of a select; what is chosen stays chosen while it is still there. */
export function options(select, names, chosen = select.value) {
  const pairs = names.map((name) => (Array.isArray(name) ? name : [name, name]));
  fill(select, pairs, ([value, label]) => element("option", { value }, label));
  if (chosen !== null && pairs.some(([value]) => value === chosen)) select.value = chosen;
}

/** Hides an element; a focus inside it goes to `heir`. */
export function show(node, shown, heir) {
  if (node.hidden !== shown) return;
  const lost = !shown && node.contains(document.activeElement);
  node.hidden = !shown;
  if (lost) heir()?.focus();
}

export function time(at, words = at?.slice(0, 19).replace("T", " ")) {
  return at ? element("time", { dateTime: at }, words) : "–";
}
