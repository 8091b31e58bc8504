// The console page: asks the admin API once a second and shows the answer. It keeps nothing but the last
// minute of counts, from which it makes rates; after a lost connection it goes on by itself.

import { Chart, MOST_SLOTS } from "./chart.js";
import { $, element, fill, options, text } from "./dom.js";
import * as format from "./format.js";
import { Graph } from "./graph.js";

const EVERY = 1000;
const PATIENCE = 5000;
// Rates are taken over this long: short enough to be now, long enough to stand still.
const RATE_OVER = 8000;
const RUNNING_OVER = 60000;
const ROWS = 25;
// A stream with several rows per window needs more of them for the same number of windows.
const MOST_ROWS = 1000;
const NUMBERS = ["bigint", "int", "double"];

const view = {
  pipeline: null, // its name
  detail: null,
  process: null,
  chartStream: null,
  rowsStream: null,
  perWindow: false, // one row per window?
  paused: false,
  windows: [],
  samples: [],
  lastAnswer: null,
};
const chart = new Chart($("chart"), $("readout"), format);
const graph = new Graph($("graph"), format);

// ---- asking

async function get(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE), headers: { accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ?? answer.statusText);
  return body;
}

const streamPath = (name, limit) =>
  `/api/v1/pipelines/${encodeURIComponent(view.pipeline)}/streams/${encodeURIComponent(name)}?limit=${limit}`;

async function tick() {
  try {
    view.process = await get("/api/v1/pipelines");
    choosePipeline(view.process.pipelines);
    if (view.pipeline) await askPipeline();
    view.lastAnswer = Date.now();
    showBanner(trouble());
  } catch (error) {
    lost(error);
  }
  setTimeout(tick, document.hidden ? 5 * EVERY : EVERY);
}

async function askPipeline() {
  const detail = await get(`/api/v1/pipelines/${encodeURIComponent(view.pipeline)}`);
  const fresh = view.detail?.name !== detail.name;
  view.detail = detail;
  if (fresh) startOver();
  sample(detail);
  showState();
  const spec = chartSpec();
  const [results, rows] = await Promise.all([
    spec ? get(streamPath(spec.stream.name, view.perWindow ? MOST_ROWS : MOST_SLOTS)) : [],
    view.paused || !view.rowsStream ? null : get(streamPath(view.rowsStream, ROWS)),
  ]);
  view.windows = spec ? windowsOf(spec, results) : [];
  showChart(spec);
  showTiles(spec);
  showGraph();
  if (rows) showRows(rows);
}

// ---- what there is

function choosePipeline(pipelines) {
  const names = pipelines.map((p) => p.name);
  if (!names.includes(view.pipeline)) view.pipeline = names.includes(hash()) ? hash() : (names[0] ?? null);
  options($("pipeline"), names, view.pipeline);
  $("pipeline-pick").hidden = names.length < 2;
}

const hash = () => decodeURIComponent(location.hash.slice(1));

function startOver() {
  const { streams } = view.detail;
  Object.assign(view, { samples: [], windows: [], perWindow: false });
  const drawn = charted();
  view.chartStream = (drawn.find(isClickthrough) ?? drawn[0])?.name ?? null;
  view.rowsStream = view.chartStream ?? streams[0]?.name ?? null;
  options($("chart-stream"), drawn.map((s) => s.name), view.chartStream);
  $("chart-pick").hidden = drawn.length < 2;
  options($("rows-stream"), streams.map((s) => s.name), view.rowsStream);
}

const charted = () => view.detail.streams.filter((s) => s.window && timeColumn(s) && numbers(s).length > 0);
const column = (stream, name) => stream.columns.find((c) => c.name === name);
const isClickthrough = (s) => ["impressions", "clicks", "clickthrough"].every((name) => column(s, name));
const numbers = (s) => s.columns.filter((c) => NUMBERS.includes(c.type)).map((c) => c.name);

function timeColumn(stream) {
  const named = ["at", "window_start", stream.event_time].filter(Boolean).map((name) => column(stream, name));
  return named.find((c) => c?.type === "timestamp")?.name;
}

/** What is drawn of the chosen stream: up to two counts as bars, a share between 0 and 1 as a line. */
function chartSpec() {
  const stream = view.detail.streams.find((s) => s.name === view.chartStream);
  if (!stream) return null;
  const share = numbers(stream).find((n) => /^clickthrough|(_|^)(rate|ratio|share)$/.test(n));
  const counts = isClickthrough(stream) ? ["impressions", "clicks"] : numbers(stream).filter((n) => n !== share).slice(0, 2);
  const series = (name) => ({ key: name, label: name.replaceAll("_", " ") });
  return {
    stream, time: timeColumn(stream), every: stream.window.every_seconds * 1000,
    bars: counts.map(series), rate: share ? series(share) : null,
  };
}

/** Rows by window: counts of several rows add up, a share of several rows is not one. */
function windowsOf(spec, rows) {
  const keys = [...spec.bars, ...(spec.rate ? [spec.rate] : [])].map((s) => s.key);
  const found = new Map();
  for (const row of rows) {
    const at = Date.parse(row[spec.time]);
    const same = found.get(at);
    if (!same) found.set(at, { at, values: Object.fromEntries(keys.map((k) => [k, row[k]])) });
    else {
      spec.bars.forEach(({ key }) => (same.values[key] = (same.values[key] ?? 0) + (row[key] ?? 0)));
      if (spec.rate) same.values[spec.rate.key] = null;
    }
  }
  view.perWindow ||= found.size < rows.length;
  return [...found.values()].sort((a, b) => a.at - b.at).slice(-MOST_SLOTS);
}

// ---- rates

function sample({ nodes }) {
  const counts = new Map(nodes.map((n) => [n.node, n.kind === "source" ? n.rows_out : n.rows_in]));
  const before = view.samples[view.samples.length - 1];
  // Counts that fall are those of another process.
  if (before && [...counts].some(([name, n]) => n < (before.counts.get(name) ?? 0))) view.samples = [];
  view.samples.push({ at: performance.now(), counts });
  while (view.samples.length && performance.now() - view.samples[0].at > RUNNING_OVER) view.samples.shift();
}

/** Rows of a node within the last `over` milliseconds, and how long that was in seconds. */
function lately(node, over) {
  const last = view.samples[view.samples.length - 1];
  const first = view.samples.find((s) => last.at - s.at <= over);
  if (!first || first === last || !last.counts.has(node)) return null;
  return { rows: last.counts.get(node) - (first.counts.get(node) ?? 0), seconds: (last.at - first.at) / 1000 };
}

function perSecond(node) {
  const found = lately(node, RATE_OVER);
  return found ? found.rows / found.seconds : undefined;
}

// ---- showing

function trouble() {
  const status = view.detail?.status;
  if (!status?.error || !["failed", "restarting"].includes(status.state)) return "";
  const again = status.next_restart_at ? ` It starts again at ${format.time(Date.parse(status.next_restart_at))}.` : "";
  return `The pipeline ${status.state === "failed" ? "failed" : "stopped"}: ${status.error}.${again}`;
}

function lost(error) {
  const since = view.lastAnswer ? ` since ${format.time(view.lastAnswer)}` : "";
  $("state").dataset.state = "away";
  text($("state-text"), "no answer");
  showBanner(`No answer from Millstream${since} (${error.message}). Trying again every second.`);
}

function showBanner(message) {
  $("banner").hidden = !message;
  text($("banner"), message);
}

function showState() {
  const { name, description, status, now } = view.detail;
  text($("pipeline-name"), name);
  text($("pipeline-description"), description ?? "");
  document.title = `${name} · Millstream`;
  $("state").dataset.state = status.state;
  const restarts = status.restarts ? ` · ${status.restarts} restart${status.restarts > 1 ? "s" : ""}` : "";
  text($("state-text"), status.state + restarts);
  text($("clock"), format.time(Date.parse(now)));
  $("clock").dateTime = now;
  text($("version"), `millstream ${view.process.version}`);
  const took = Number.isFinite(status.checkpoint_ms) ? ` · last took ${Math.round(status.checkpoint_ms)} ms` : "";
  text($("checkpoint"), status.epoch ? `checkpoint ${status.epoch}${took}` : "");
}

function showChart(spec) {
  const named = spec && isClickthrough(spec.stream) ? "Clickthrough" : (spec?.stream.name ?? "Results").replaceAll("_", " ");
  text($("chart-title"), spec ? `${named} per ${format.word(spec.every)}` : "Results");
  text($("data-caption"), `The numbers of the chart “${$("chart-title").textContent}”, oldest window first`);
  chart.draw(spec && { ...spec, windows: view.windows });
  legend(spec);
  dataTable(spec);
  const due = spec ? nextClose(spec) : "no stream of this pipeline is windowed";
  $("chart-empty").hidden = view.windows.length > 0;
  text($("chart-empty"), due);
  text($("closes"), view.windows.length ? due : "");
}

/** When the open window's result is due. */
function nextClose({ stream, every }) {
  const { nodes, now } = view.detail;
  const marks = nodes.filter((n) => n.kind === "source" && n.watermark).map((n) => Date.parse(n.watermark));
  if (!marks.length) {
    const to = view.process.ingest ? ` at ${view.process.ingest}` : "";
    return `waiting for the first rows${to}`;
  }
  const { offset_seconds: offset, closes_after_seconds: wait } = stream.window;
  const open = Math.floor((Math.min(...marks) - offset * 1000) / every) * every + offset * 1000;
  const due = open + every + wait * 1000;
  const which = view.windows.length ? `${format.time(open, every)}` : `the first ${format.word(every)}`;
  return Date.parse(now) > due + 2000 ? `${which} is closing` : `${which} closes at ${format.time(due)}`;
}

function legend(spec) {
  const items = (spec?.bars ?? []).map((b, n) => [`bar-${n + 1}`, b.label]);
  if (spec?.rate) items.push(["rate", `${spec.rate.label} (right axis)`]);
  fill($("legend"), items, ([kind, label]) => element("li", {}, element("span", { className: `key ${kind}` }), label));
}

function dataTable(spec) {
  const table = $("clickthrough-data");
  const keys = spec ? [...spec.bars, ...(spec.rate ? [spec.rate] : [])].map((s) => s.key) : [];
  const head = spec ? [spec.time, ...keys] : [];
  fill(table.tHead, [head], (names) => element("tr", {}, ...names.map((n, i) => th(n, i > 0))));
  fill(table.tBodies[0], view.windows, ({ at, values }) => {
    const iso = new Date(at).toISOString().replace(".000Z", "Z");
    return element("tr", {}, element("td", {}, element("time", { dateTime: iso }, iso)), ...keys.map((k) => td(values[k], true)));
  });
}

function showTiles(spec) {
  const tiles = spec && isClickthrough(spec.stream) ? clickthroughTiles(spec) : sourceTiles();
  fill($("tiles"), tiles, ({ kind, name, value, unit, about }) =>
    element("dl", { className: "tile" },
      element("dt", {}, kind ? element("span", { className: `key ${kind}` }) : "", name),
      element("dd", { className: "number" }, value, unit ? element("small", {}, unit) : ""),
      element("dd", { className: "about" }, about)));
}

function clickthroughTiles({ every }) {
  const last = view.windows[view.windows.length - 1];
  const word = format.word(every);
  const tiles = [{
    kind: "rate", name: `Clickthrough, last ${word}`, value: format.share(last?.values.clickthrough),
    about: last ? `${format.time(last.at, every)}: ${format.exact(last.values.clicks)} clicks of ${format.exact(last.values.impressions)}` : `no ${word} is over yet`,
  }];
  const [seen, clicked] = ["source.impressions", "source.clicks"].map((node) => lately(node, RUNNING_OVER));
  if (seen && clicked) {
    const rate = seen.rows > 0 ? clicked.rows / seen.rows : null;
    tiles.push({ kind: "rate", name: "Clickthrough, running", value: format.share(rate), about: `rows that came in the last ${Math.round(seen.seconds)} s` });
  }
  const flow = (name, node, kind) => view.detail.nodes.some((n) => n.node === node)
    && tiles.push({ kind, name, value: format.rate(perSecond(node)), unit: "/s", about: total(node) });
  flow("Impressions", "source.impressions", "bar-1");
  flow("Clicks", "source.clicks", "bar-2");
  return tiles;
}

function sourceTiles() {
  const sources = view.detail.nodes.filter((n) => n.kind === "source").slice(0, 4);
  return sources.map(({ node }) => ({ name: node.replace(/^source\./, ""), value: format.rate(perSecond(node)), unit: "rows/s", about: total(node) }));
}

const total = (node) => `${format.exact(view.detail.nodes.find((n) => n.node === node)?.rows_out)} since the start`;

function showGraph() {
  const nodes = new Map(view.detail.nodes.map((n) => [n.node, n]));
  const rates = new Map([...nodes].map(([key, n]) => [key, perSecond(n.node)]));
  graph.draw(view.detail.graph, nodes, rates);
}

function showRows(rows) {
  const stream = view.detail.streams.find((s) => s.name === view.rowsStream);
  if (!stream) return;
  const right = (c) => NUMBERS.includes(c.type);
  const table = $("rows");
  fill(table.tHead, [stream.columns], (all) => element("tr", {}, ...all.map((c) => th(c.name, right(c)))));
  fill(table.tBodies[0], [...rows].reverse(), (row) => element("tr", {}, ...stream.columns.map((c) => td(row[c.name], right(c)))));
  text($("rows-note"), rows.length ? `newest first, as of ${format.time(Date.parse(view.detail.now))}` : "no rows yet");
}

// ---- the page's parts

const th = (name, number) => element("th", { scope: "col", className: number ? "number" : "" }, name);

function td(value, number) {
  if (value === null || value === undefined) return element("td", { className: number ? "null number" : "null" }, "null");
  const full = typeof value === "object" ? JSON.stringify(value) : String(value);
  return element("td", { className: number ? "number" : "", title: full }, full);
}

function toggle(button, change) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    change(on);
  });
}

$("pipeline").addEventListener("change", (e) => {
  view.pipeline = e.target.value;
  location.hash = encodeURIComponent(view.pipeline);
});
$("chart-stream").addEventListener("change", (e) => Object.assign(view, { chartStream: e.target.value, perWindow: false, windows: [] }));
$("rows-stream").addEventListener("change", (e) => (view.rowsStream = e.target.value));
toggle($("pause"), (on) => (view.paused = on));
toggle($("as-table"), (on) => {
  $("data-wrap").classList.toggle("visually-hidden", !on);
  $("chart").hidden = on;
});
tick();
