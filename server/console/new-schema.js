// A new schema: typed, pasted, read from a file or made of a sample; checked, and posted.

import { ApiError, get, post } from "./api.js";
import { $, element, fill, text } from "./dom.js";
import { clearProblems, live, say, showProblems } from "./page.js";
import { allSchemas, nextVersion } from "./schema-list.js";
import { check, placed, tableOf } from "./schema-tables.js";

const form = $("schema");
const editor = $("y-yaml");
const log = $("y-log");
const version = $("y-version");
let schemas = [];
let problems = [];

live(async () => {
  schemas = await allSchemas();
  proposeVersion();
}, () => false);

/** The next version, until someone types one. */
function proposeVersion() {
  if (!version.touched && log.value) version.value = nextVersion(schemas, log.value.trim());
}

// ---- the text, with its line numbers and what is wrong beside it

function drawLines() {
  const many = editor.value.split("\n").length;
  const wrong = new Set(problems.map((problem) => problem.line));
  fill($("lines"), Array.from({ length: many }, (_, n) => [n + 1, wrong.has(n + 1)]), ([n, bad]) =>
    element("span", { className: bad ? "bad" : "" }, String(n)));
  $("lines").scrollTop = editor.scrollTop;
}

function drawProblems(title, look = "") {
  text($("problems-title"), title);
  $("problems").className = `problems ${look}`;
  fill($("problem-list"), problems, ({ line, column, words }) => {
    if (!line) return element("li", {}, words);
    const place = element("button", { type: "button", className: "place" }, `${line}:${column}`);
    place.setAttribute("aria-label", `Go to line ${line}, column ${column}`);
    place.addEventListener("click", () => goTo(line, column));
    return element("li", {}, place, ` ${words}`);
  });
  drawLines();
}

function goTo(line, column) {
  const before = editor.value.split("\n").slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  const at = before + Math.max(column - 1, 0);
  const end = editor.value.indexOf("\n", at);
  editor.focus();
  editor.setSelectionRange(at, end < 0 ? editor.value.length : end);
  const height = parseFloat(getComputedStyle(editor).lineHeight);
  editor.scrollTop = Math.max(0, (line - 5) * height);
}

function setText(yaml) {
  editor.value = yaml;
  changed();
}

function changed() {
  problems = [];
  fill($("tables"), [], tableOf);
  drawProblems("Not checked yet");
}

/** Whether it is right; shows its tables, or what is wrong. */
async function checkText() {
  const found = await check(editor.value);
  const many = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  const wrong = found.problems.length > 0;
  problems = wrong ? found.problems : found.warnings;
  const good = `No problems: ${many(found.tables.length, "table")}${problems.length ? `, ${many(problems.length, "warning")}` : ""}`;
  drawProblems(wrong ? many(problems.length, "problem") : good, wrong ? "bad" : "good");
  fill($("tables"), found.tables, tableOf);
  return !wrong;
}

editor.addEventListener("input", changed);
editor.addEventListener("scroll", () => ($("lines").scrollTop = editor.scrollTop));
log.addEventListener("input", proposeVersion);
version.addEventListener("input", () => (version.touched = version.value !== ""));
$("y-file").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  if (!file) return;
  setText(await file.text());
  await attempt(form, checkText);
  // Last, as every attempt takes away what was said before.
  say(`${file.name} is read.`);
});
$("check").addEventListener("click", () => attempt(form, checkText));

form.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(form, async () => {
    const missing = [["log", log], ["version", version]].filter(([, field]) => !field.value.trim()).map(([name]) => `${name}: is needed`);
    if (missing.length) return showProblems(form, missing);
    if (!(await checkText())) return $("problem-list").querySelector("button")?.focus();
    const path = `${encodeURIComponent(log.value.trim())}/${encodeURIComponent(version.value.trim())}`;
    try {
      await post(`/v1/schema/${path}`, editor.value);
    } catch (error) {
      // What the check does not know: a version that is taken, a name that is none.
      const found = placed(error.problems ?? []);
      if (!found.some((problem) => problem.line)) throw error;
      problems = found;
      return drawProblems("Not posted", "bad");
    }
    location.assign(`/schemas/${path}`);
  });
});

async function attempt(form, act) {
  clearProblems(form);
  say("");
  try {
    return await act();
  } catch (error) {
    showProblems(form, error instanceof ApiError ? error.problems : [`no answer (${error.message}); try again`]);
  }
}

// ---- a sample

$("sample").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt($("sample"), async () => {
    const { lines, ...options } = Object.fromEntries(new FormData($("sample")));
    if (!lines.trim()) return showProblems($("sample"), ["lines: paste some lines of the log"]);
    const filled = Object.entries(options).filter(([, value]) => value.trim());
    const answer = await post(`/v1/schema/infer?${new URLSearchParams(filled)}`, lines);
    setText(typeof answer === "string" ? answer : answer.yaml);
    const conflicts = answer.conflicts ?? [];
    say(conflicts.length ? `The schema is made; look at: ${conflicts.join("; ")}` : "The schema is made of the sample. Look it over, give it a log and post it.");
    if (!log.value && options.table) {
      log.value = options.table.trim();
      proposeVersion();
    }
    await checkText();
    editor.focus();
    editor.setSelectionRange(0, 0);
  });
});

// ---- from another page: the log, and the version to go on from

const asked = new URLSearchParams(location.search);
if (asked.has("log")) log.value = asked.get("log");
if (asked.has("from")) {
  get(`/v1/schema/${encodeURIComponent(asked.get("log"))}/${encodeURIComponent(asked.get("from"))}`)
    .then(({ yaml }) => setText(yaml))
    .catch((error) => say(error.message, false));
}
drawLines();
