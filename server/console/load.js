// One load: what it is, how it stands, and each of its dates.

import { get, post } from "./api.js";
import { calendar, monthsOf } from "./calendar.js";
import { $, element, fill, keyed, text, time } from "./dom.js";
import * as format from "./format.js";
import { announce, ask, clearProblems, live, say, showProblems } from "./page.js";
import { actions, counts, jobLook, jobName, pill, request, runLook, tellChanges } from "./states.js";

const uuid = decodeURIComponent(location.pathname.split("/")[2]);
const base = `/v1/runs/${encodeURIComponent(uuid)}`;
// A load of ten years has 3,650 dates; more than these at once are asked for.
const DATES = 62;
const MONTHS = 6;

const body = $("runs").tBodies[0];
const view = { job: null, runs: [], dates: DATES, months: MONTHS };
const before = new Map();
const runsBefore = new Map();
const buttons = actions((what) => (what === "delete" ? (view.leaving = true) : null, refresh()));

$("actions").append(buttons);
body.fallback = $("runs-title");

const refresh = live(async () => {
  try {
    const [job, { runs }] = await Promise.all([get(`/v1/jobs/job/${encodeURIComponent(uuid)}`), get(base)]);
    Object.assign(view, { job, runs: runs.reverse() });
  } catch (error) {
    if (error.status === 404 && view.leaving) return location.assign("/loads");
    if (error.status === 404) document.title = "No such load · Millstream";
    throw error;
  }
  tellChanges(before, [view.job]);
  tellRuns();
  draw();
}, (event) => event.job === null || event.job === uuid || event.job === view.job?.uuid);

function tellRuns() {
  const changed = view.runs.filter((run) => runsBefore.has(run.date) && runsBefore.get(run.date) !== run.status);
  // When many change at once, the page's counts say it better.
  if (changed.length <= 3) changed.forEach((run) => announce(`${run.date}: ${runLook(run.status)[1]}`));
  view.runs.forEach((run) => runsBefore.set(run.date, run.status));
}

// ---- the load

function draw() {
  const { job } = view;
  const [look, word, meaning] = jobLook(job.status);
  document.title = `${jobName(job)}: ${word} · Millstream`;
  text($("name"), jobName(job));
  fill($("status"), [[look, word, meaning]], (parts) => pill(...parts));
  text($("since"), [`since ${job.status_since.slice(0, 16).replace("T", " ")}`, request(job)].filter(Boolean).join(" · "));
  buttons.update(job);
  $("trouble").hidden = !job.error;
  text($("error"), job.error ?? "");
  counts($("counts"), job.dates);
  fill($("facts"), facts(job), ([name, value, href]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, href ? element("a", { href }, value) : value)));
  drawCalendar();
  drawRuns();
}

function facts(job) {
  const load = job.kind !== "pipeline";
  const of = (value) => encodeURIComponent(value);
  const facts = [
    load && ["Cluster", job.redshift_id, "/clusters"],
    load && ["Schema", `${job.log_name} version ${job.log_schema_version}`, `/schemas/${of(job.log_name)}/${of(job.log_schema_version)}`],
    load && ["Path", job.s3_path],
    ["Dates", job.end_date ? `${job.start_date} to ${job.end_date}` : `${job.start_date}, for ever`],
    job.contact_emails.length > 0 && ["Told", job.contact_emails.join(", ")],
    ...Object.entries(job.additional_arguments).map(([name, value]) => [name.replaceAll("_", " "), typeof value === "string" ? value : JSON.stringify(value)]),
    ["Made", job.created_at.slice(0, 16).replace("T", " ")],
    ["Id", job.uuid],
  ];
  return facts.filter(Boolean);
}

// ---- its dates

function drawCalendar() {
  const months = monthsOf(view.job, view.runs);
  $("older").hidden = months.length <= view.months;
  $("no-dates").hidden = months.length > 0;
  calendar($("months"), months.slice(0, view.months), goTo);
}

/** From a day of the calendar to its row. */
function goTo(date) {
  $("which").value = "";
  view.dates = Math.max(view.dates, view.runs.findIndex((run) => run.date === date) + 1);
  drawRuns();
  const row = document.getElementById(`date-${date}`);
  row?.scrollIntoView({ block: "center" });
  row?.focus({ preventScroll: true });
}

function drawRuns() {
  const kind = $("which").value;
  const found = view.runs.filter((run) => !kind || runLook(run.status)[0] === kind);
  const runs = found.slice(0, view.dates);
  const lines = runs.flatMap((run) => [{ key: run.date, run }, ...(run.error ? [{ key: `${run.date} error`, run, error: true }] : [])]);
  keyed(body, lines, (line) => line.key, makeLine, updateLine);
  $("more").hidden = found.length <= runs.length;
  text($("shown"), runs.length < found.length ? `the newest ${runs.length} of ${found.length}` : `${found.length} of ${view.runs.length} dates`);
}

function makeLine({ run, error }) {
  if (error) {
    const words = element("pre", {});
    const row = element("tr", { className: "error-row" }, element("td", { colSpan: 9 }, words));
    row.words = words;
    return row;
  }
  const cells = Array.from({ length: 7 }, (_, n) => element("td", { className: [1, 4, 5].includes(n) ? "number" : "" }));
  const retry = element("button", { type: "button", hidden: true }, "Retry");
  const start = element("button", { type: "button", hidden: true }, "Start now");
  retry.setAttribute("aria-label", `Retry ${run.date}`);
  start.setAttribute("aria-label", `Start ${run.date} now`);
  retry.addEventListener("click", () => again(run.date));
  start.addEventListener("click", () => force(run.date));
  const row = element("tr", { id: `date-${run.date}`, tabIndex: -1 }, element("th", { scope: "row" }, time(run.date)), cells[0],
    element("td", {}, element("div", { className: "actions" }, retry, start)), ...cells.slice(1));
  return Object.assign(row, { cells_: cells, retry, start });
}

function updateLine(row, { run, error }) {
  if (error) return text(row.words, run.error);
  const shape = JSON.stringify(run);
  if (row.shape === shape) return;
  row.shape = shape;
  const [look, word] = runLook(run.status);
  const took = (at, seconds) => (at ? [time(at, at.slice(0, 16).replace("T", " ")), seconds === null ? "" : element("span", { className: "small" }, `took ${format.span(seconds)}`)] : ["–"]);
  const sum = Object.values(run.rows).reduce((all, n) => all + n, 0);
  const perSink = Object.entries(run.rows).map(([sink, n]) => `${sink} ${format.exact(n)}`);
  const contents = [
    [pill(look, run.given_up ? `${word}, given up` : word), run.next_try_at ? element("span", { className: "small" }, "next try ", time(run.next_try_at)) : ""],
    [run.attempt || "–"],
    took(run.et_started_at, run.et_seconds),
    took(run.load_started_at, run.load_seconds),
    perSink.length ? [format.exact(sum), ...perSink.map((words) => element("span", { className: "small" }, words))] : ["–"],
    [format.exact(run.invalid)],
    [run.worker ?? "–"],
  ];
  contents.forEach((parts, n) => row.cells_[n].replaceChildren(...parts));
  const open = view.job.status !== "cancelled" && !view.job.cancel_requested;
  const had = [row.retry, row.start].includes(document.activeElement);
  row.retry.hidden = !(open && ["et_error", "load_error", "et_unknown", "load_unknown", "et_cancelled", "load_cancelled"].includes(run.status));
  row.start.hidden = !(open && run.status === "waiting");
  if (had && document.activeElement.hidden) row.focus();
}

async function again(date) {
  await asked(() => post(`${base}/backfill`, { from: date, to: date, retry_errors: true }), `${date} is tried again.`);
}

async function force(date) {
  const words = "It runs at once, with the objects that are there now, although its marker is missing.";
  if (!(await ask({ title: `Start ${date} without its marker?`, words, yes: "Start it" }))) return;
  await asked(() => post(`${base}/start`, { date, force: true }), `${date} is started without its marker.`);
}

async function asked(request, done) {
  try {
    await request();
    say(done);
  } catch (error) {
    say(error.message, false);
  }
  refresh();
}

// ---- backfill

function backfill(dry) {
  const form = $("backfill");
  const { phase, parallelism, ...fields } = Object.fromEntries(new FormData(form));
  return {
    from: fields.from, to: fields.to, dry_run: dry,
    retry_errors: form.elements.retry_errors.checked, force: form.elements.force.checked,
    transform_only: phase === "transform_only", load_only: phase === "load_only",
    ...(parallelism ? { parallelism: Number(parallelism) } : {}),
  };
}

async function sendBackfill(dry) {
  const form = $("backfill");
  const missing = ["from", "to"].filter((name) => !form.elements[name].value).map((name) => `${name}: a date is needed`);
  text($("answer"), "");
  if (missing.length) return showProblems(form, missing);
  clearProblems(form);
  try {
    const { dates } = await post(`${base}/backfill`, backfill(dry));
    const many = `${dates.length} date${dates.length === 1 ? "" : "s"}`;
    const list = dates.length ? `: ${dates.join(", ")}` : "";
    text($("answer"), dry ? `It would make ${many}${list}. Nothing has been changed.` : `To be made again: ${many}${list}.`);
  } catch (error) {
    showProblems(form, error.problems ?? [error.message]);
  }
  refresh();
}

$("backfill").addEventListener("submit", (event) => {
  event.preventDefault();
  sendBackfill(false);
});
$("dry").addEventListener("click", () => sendBackfill(true));
$("which").addEventListener("change", drawRuns);
$("more").addEventListener("click", () => {
  const first = view.dates;
  view.dates += 4 * DATES;
  drawRuns();
  // On to the first of those that came.
  $(`date-${view.runs[first]?.date}`)?.focus();
});
$("older").addEventListener("click", () => {
  view.months += 12;
  drawCalendar();
});
