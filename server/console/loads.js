// The list of loads.

import { get } from "./api.js";
import { $, element, keyed, options, show, text, time } from "./dom.js";
import { live } from "./page.js";
import { STATES, actions, counts, jobLook, jobName, pill, request, tellChanges } from "./states.js";

const form = $("filters");
const body = $("loads").tBodies[0];
const before = new Map();
let jobs = null;

body.fallback = $("main");

const refresh = live(async () => {
  jobs = (await get("/v1/jobs")).jobs.reverse();
  tellChanges(before, jobs);
  draw();
});

// ---- filters; they stand in the address, so that a view can be kept and sent

function readAddress() {
  const asked = new URLSearchParams(location.search);
  for (const field of form.elements) {
    if (!field.name) continue;
    const value = asked.get(field.name) ?? "";
    if (field.tagName === "SELECT" && value) options(field, [["", "all"], value], value);
    else field.value = value;
  }
}

function writeAddress() {
  const asked = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  history.replaceState(null, "", asked.size ? `?${asked}` : location.pathname);
}

function fits(job) {
  const wanted = Object.fromEntries(new FormData(form));
  const has = [jobName(job), job.redshift_id, job.s3_path, job.uuid, job.error, ...job.contact_emails].join("\n").toLowerCase();
  return (!wanted.log || job.log_name === wanted.log)
    && (!wanted.version || job.log_schema_version === wanted.version)
    && (!wanted.status || job.status === wanted.status)
    && wanted.text.toLowerCase().split(/\s+/).every((word) => has.includes(word));
}

function choices() {
  const sorted = (values) => [...new Set(values.filter(Boolean))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const all = (field, values) => options(field, [["", "all"], ...new Set([...values, ...(field.value ? [field.value] : [])])]);
  const log = $("f-log").value;
  all($("f-log"), sorted(jobs.map((job) => job.log_name)));
  all($("f-version"), sorted(jobs.filter((job) => !log || job.log_name === log).map((job) => job.log_schema_version)));
  options($("f-status"), [["", "all"], ...STATES.map((state) => [state, jobLook(state)[1]])]);
}

// ---- the table

function draw() {
  if (!jobs) return;
  choices();
  const shown = jobs.filter(fits);
  keyed(body, shown, (job) => job.uuid, makeRow, updateRow);
  show($("loads"), shown.length > 0, () => $("main"));
  $("nothing").hidden = shown.length > 0;
  text($("nothing"), jobs.length ? "No load fits. “Show all” takes the filters away." : "No loads yet: “New load” makes one.");
  text($("found"), shown.length === jobs.length ? `${jobs.length} loads` : `${shown.length} of ${jobs.length} loads`);
}

function makeRow() {
  const cell = (label, ...children) => element("td", { data: { label }, attributes: { role: "cell" } }, ...children);
  const row = element("tr", { attributes: { role: "row" } });
  const parts = {
    name: element("a", {}), about: element("span", { className: "small" }), error: element("span", { className: "small bad-text clamp" }),
    state: element("span", { className: "stack" }), range: element("span", { className: "stack" }), counts: element("span", {}),
    actions: actions(() => refresh()),
  };
  row.append(
    element("th", { scope: "row", attributes: { role: "rowheader" } }, parts.name, parts.about, parts.error),
    cell("Status", parts.state), cell("From – to", parts.range), cell("Dates", parts.counts), cell("What to do", parts.actions),
  );
  row.parts = parts;
  return row;
}

function updateRow({ parts }, job) {
  parts.name.href = `/loads/${encodeURIComponent(job.uuid)}`;
  text(parts.name, jobName(job));
  text(parts.about, job.kind === "pipeline" ? "a pipeline with a schedule" : `${job.s3_path} → ${job.redshift_id}`);
  text(parts.error, job.error ?? "");
  counts(parts.counts, job.dates);
  parts.actions.update(job);
  const shape = [job.status, job.status_since, request(job), job.start_date, job.end_date].join();
  if (parts.shape === shape) return;
  parts.shape = shape;
  const [look, word, meaning] = jobLook(job.status);
  parts.state.replaceChildren(pill(look, word, meaning), element("span", { className: "small" }, "since ", time(job.status_since, job.status_since.slice(0, 16).replace("T", " "))));
  if (request(job)) parts.state.append(element("span", { className: "small warn-text" }, request(job)));
  parts.range.replaceChildren(time(job.start_date), element("span", { className: "small" }, job.end_date ? "to " : "for ever", job.end_date ? time(job.end_date) : ""));
}

form.addEventListener("input", () => {
  writeAddress();
  draw();
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => {
  [...form.elements].forEach((field) => field.name && (field.value = ""));
  writeAddress();
  draw();
}));
readAddress();
