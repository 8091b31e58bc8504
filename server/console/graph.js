// The pipeline as a picture: sources to the left, sinks to the right, each node with what flows through it.
// Built once per pipeline; every second only its texts change.

import { svg } from "./chart.js";

const BOX = { width: 198, height: 84 };
const GAP = { across: 58, down: 16 };
const LANE = 10; // height of an edge's place between boxes
const PASSING = "passing ";
const PASSES = 4; // more change nothing in graphs of this size
const MOST_LETTERS = 22;

/** The column of each node: one further right than everything it reads; sinks all the way to the right. */
export function layers(nodes, edges) {
  const into = new Map(nodes.map((n) => [n.id, []]));
  edges.forEach((e) => into.get(e.to)?.push(e.from));
  const layer = new Map();
  const of = (id) => {
    if (!layer.has(id)) {
      layer.set(id, 0); // ends a cycle, which a plan cannot have
      layer.set(id, Math.max(-1, ...(into.get(id) ?? []).map(of)) + 1);
    }
    return layer.get(id);
  };
  nodes.forEach((n) => of(n.id));
  const last = Math.max(0, ...layer.values());
  nodes.filter((n) => n.kind === "sink").forEach((n) => layer.set(n.id, last));
  return layer;
}

/**
 * Columns of ids, ordered so that few edges cross. An edge that passes over columns has a place of its own
 * in each of them (an id of its own, listed in its `way`), so that it runs between boxes, not behind them.
 */
export function columns(nodes, edges) {
  const layer = layers(nodes, edges);
  const table = Array.from({ length: Math.max(0, ...layer.values()) + 1 }, () => []);
  nodes.forEach((n) => table[layer.get(n.id)].push(n.id));
  const known = edges.filter((e) => layer.has(e.from) && layer.has(e.to));
  const ways = known.map((edge, n) => {
    const way = [edge.from];
    // Edges from the upper half pass above, the others below: that crosses least.
    const column = table[layer.get(edge.from)];
    const above = column.indexOf(edge.from) + 0.5 < column.length / 2;
    for (let x = layer.get(edge.from) + 1; x < layer.get(edge.to); x++) {
      const place = `${PASSING}${n} ${x}`;
      way.push(place);
      if (above) table[x].unshift(place);
      else table[x].push(place);
    }
    way.push(edge.to);
    return { edge, way };
  });
  const steps = ways.flatMap(({ way }) => way.slice(1).map((to, n) => [way[n], to]));
  for (let pass = 0; pass < PASSES; pass++) {
    table.forEach((column) => arrange(table, column, steps, 1, 0));
    table.toReversed().forEach((column) => arrange(table, column, steps, 0, 1));
  }
  return { table, ways };
}

/** Sorts a column by the mean place of its neighbours; those without any stay where they are. */
function arrange(table, column, steps, self, other) {
  const place = new Map(table.flatMap((c) => c.map((id, n) => [id, (n + 0.5) / c.length])));
  const want = new Map(column.map((id) => {
    const places = steps.filter((s) => s[self] === id).map((s) => place.get(s[other]));
    return [id, places.length ? places.reduce((a, b) => a + b) / places.length : place.get(id)];
  }));
  column.sort((a, b) => want.get(a) - want.get(b));
}

export class Graph {
  constructor(root, format) {
    this.root = root;
    this.format = format;
    this.shape = "";
  }

  /** `graph` is the plan's, `nodes` each node's counts by id, `rates` its rows per second by id. */
  draw(graph, nodes, rates) {
    const shape = JSON.stringify(graph);
    if (shape !== this.shape) {
      this.shape = shape;
      this.build(graph);
    }
    for (const [id, parts] of this.parts) this.update(parts, nodes.get(id), rates.get(id));
    const moves = (id) => (rates.get(id) ?? 0) > 0;
    for (const { path, edge } of this.paths) path.classList.toggle("flows", moves(edge.from) && moves(edge.to));
  }

  build({ nodes, edges }) {
    const { table, ways } = columns(nodes, edges);
    const tall = (id) => (id.startsWith(PASSING) ? LANE : BOX.height);
    const height = Math.max(1, ...table.map((c) => c.reduce((sum, id) => sum + tall(id) + GAP.down, -GAP.down))) + 2;
    const width = table.length * BOX.width + (table.length - 1) * GAP.across + 2;
    const image = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "list", "aria-label": "Nodes of the pipeline" });
    const at = new Map();
    table.forEach((column, n) => {
      const used = column.reduce((sum, id) => sum + tall(id), 0);
      const space = column.length > 1 ? Math.min((height - 2 - used) / (column.length - 1), 2.5 * GAP.down) : 0;
      let y = (height - used - space * (column.length - 1)) / 2;
      for (const id of column) {
        at.set(id, { x: 1 + n * (BOX.width + GAP.across), y, middle: y + tall(id) / 2 });
        y += tall(id) + space;
      }
    });
    this.paths = ways.map(({ edge, way }) => {
      const path = image.appendChild(svg("path", { class: "edge", d: curve(way.map((id) => at.get(id))) }));
      path.append(svg("title", {}, edge.stream ?? ""));
      return { path, edge };
    });
    this.parts = new Map(nodes.map((node) => [node.id, this.box(image, node, at.get(node.id))]));
    this.root.replaceChildren(image);
  }

  box(image, node, { x, y }) {
    const group = image.appendChild(svg("g", { class: node.kind, transform: `translate(${x} ${y})`, role: "listitem" }));
    group.append(
      svg("rect", { class: "box", width: BOX.width, height: BOX.height, rx: 8 }),
      svg("rect", { class: "stripe", width: 4, height: BOX.height - 20, y: 10, rx: 2 }),
      svg("text", { x: 14, y: 20 }, node.title && node.title !== node.kind ? `${node.kind} · ${node.title}` : node.kind),
      svg("text", { class: "name", x: 14, y: 38 }, short(node.name)),
    );
    const title = group.appendChild(svg("title"));
    const text = (cls, x, y, anchor) => group.appendChild(svg("text", { class: cls, x, y, "text-anchor": anchor }));
    const right = BOX.width - 12;
    return {
      node, group, title,
      rate: text("rate-text", 14, 57, "start"),
      lag: text("lag", right, 57, "end"),
      late: text("count", 14, 74, "start"),
      invalid: text("count bad", right, 74, "end"),
    };
  }

  update({ node, group, title, rate, lag, late, invalid }, status, perSecond) {
    const { format } = this;
    const seconds = status?.watermark_lag_seconds;
    rate.textContent = perSecond === undefined ? "–" : `${format.rate(perSecond)} rows/s`;
    lag.textContent = Number.isFinite(seconds) ? `lag ${format.span(seconds)}` : "";
    count(late, node.kind === "window" || status?.rows_late > 0, status?.rows_late ?? 0, "late", format);
    const refused = node.kind === "sink";
    const wrong = (refused ? status?.rows_rejected : status?.rows_invalid) ?? 0;
    count(invalid, node.kind === "source" || wrong > 0, wrong, refused ? "rejected" : "invalid", format);
    const facts = [`${node.kind} ${node.name}`];
    for (const [key, value] of Object.entries(status ?? {})) {
      if (key === "counts") for (const [what, n] of Object.entries(value ?? {})) facts.push(`${what}: ${n}`);
      else if (value !== null && !["node", "kind"].includes(key)) facts.push(`${key.replaceAll("_", " ")}: ${value}`);
    }
    title.textContent = facts.join("\n");
    group.setAttribute("aria-label", [facts[0], rate.textContent, lag.textContent, late.textContent, invalid.textContent].filter(Boolean).join(", "));
  }
}

function count(text, shown, value, word, format) {
  text.textContent = shown ? `${format.count(value)} ${word}` : "";
  text.classList.toggle("some", value > 0);
}

/** From the right side of the first box, through its places, to the left side of the last box. */
function curve(places) {
  let path = `M${places[0].x + BOX.width} ${places[0].middle}`;
  places.slice(1).forEach((to, n) => {
    const x = places[n].x + BOX.width, bend = GAP.across / 2;
    path += `C${x + bend} ${places[n].middle} ${to.x - bend} ${to.middle} ${to.x} ${to.middle}`;
    if (n + 2 < places.length) path += `H${to.x + BOX.width}`;
  });
  return path;
}

function short(name) {
  return name.length <= MOST_LETTERS ? name : `${name.slice(0, MOST_LETTERS - 1)}…`;
}
