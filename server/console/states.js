// The states of loads and of their dates in people's words, and what can be asked of a load in each.

import { put } from "./api.js";
import { element, show, text } from "./dom.js";
import { announce, ask, say } from "./page.js";

/** state of a job → [look, word, what it means] */
const JOBS = {
  null: ["quiet", "idle", "Nothing is to be done now"],
  scheduled: ["quiet", "scheduled", "About to run"],
  running: ["busy", "running", "Dates run, or will be tried again"],
  success: ["good", "success", "All that could be loaded is loaded; more will come"],
  error: ["bad", "error", "A date was given up; it and later dates wait for a retry"],
  complete: ["good", "complete", "The last date is loaded"],
  paused: ["warn", "paused", "Starts no dates until it is resumed"],
  cancelled: ["quiet", "cancelled", "It is over"],
};

/** state of a run → [look, words, the word in a calendar] */
const RUNS = {
  null: ["quiet", "not begun", "due"],
  waiting: ["warn", "waits for its marker", "waits"],
  et_started: ["busy", "transforming", "runs"],
  et_success: ["busy", "transformed, to be loaded", "next"],
  et_error: ["bad", "transform failed", "failed"],
  et_cancelled: ["quiet", "transform cancelled", "cancelled"],
  et_unknown: ["bad", "transform lost", "lost"],
  load_started: ["busy", "loading", "loads"],
  load_success: ["good", "loaded", "loaded"],
  load_error: ["bad", "load failed", "failed"],
  load_cancelled: ["quiet", "load cancelled", "cancelled"],
  load_unknown: ["bad", "load lost", "lost"],
};

export const STATES = Object.keys(JOBS);
export const jobLook = (status) => JOBS[status] ?? ["quiet", String(status), ""];
export const runLook = (status) => RUNS[status] ?? ["quiet", String(status), String(status)];
export const jobName = (job) => (job.kind === "pipeline" ? `pipeline ${job.log_name}` : `${job.log_name} version ${job.log_schema_version}`);

/** Two loads of one log may go to two clusters. */
const longName = (job) => (job.kind === "pipeline" ? jobName(job) : `${jobName(job)} to ${job.redshift_id}`);

/** What has been asked for and is not done yet. */
export function request(job) {
  if (job.delete_requested) return "to be deleted";
  if (job.cancel_requested && job.status !== "cancelled") return "to be cancelled";
  if (job.pause_requested && job.status !== "paused") return "to be paused";
  return "";
}

export function pill(look, words, title = "") {
  return element("span", { className: `pill ${look}`, title }, words);
}

const OVER = ["cancelled", "complete"];
const ACTIONS = [
  {
    id: "pause", label: "Pause", change: { pause_requested: true },
    possible: (job) => ![...OVER, "paused", "error"].includes(job.status) && !job.pause_requested && !job.cancel_requested,
  },
  {
    id: "resume", label: "Resume", change: { pause_requested: false },
    possible: (job) => (job.status === "paused" || job.pause_requested) && !OVER.includes(job.status) && !job.cancel_requested,
  },
  {
    id: "cancel", label: "Cancel", change: { cancel_requested: true }, danger: true,
    words: "Dates that run now are stopped, and no more are started. What is loaded stays.", yes: "Cancel the load",
    possible: (job) => !OVER.includes(job.status) && !job.cancel_requested,
  },
  {
    id: "restart", label: "Take up again", change: { cancel_requested: false },
    possible: (job) => job.status === "cancelled" && !job.delete_requested,
  },
  {
    id: "delete", label: "Delete", change: { delete_requested: true }, danger: true,
    words: "The load and what is known of its dates are forgotten. What is in the warehouse stays.", yes: "Delete the load",
    possible: (job) => OVER.includes(job.status) && !job.delete_requested,
  },
];

/** Buttons for what can be done with a job; `update(job)` shows those that are possible. */
export function actions(done) {
  const box = element("div", { className: "actions" });
  const buttons = ACTIONS.map((action) => {
    const button = element("button", { type: "button", className: action.danger ? "danger-quiet" : "", data: { action: action.id } }, action.label);
    button.addEventListener("click", () => perform(action, box.job, button, done));
    return button;
  });
  box.append(...buttons);
  box.update = (job) => {
    box.job = job;
    const heir = () => buttons.find((button) => !button.hidden) ?? document.querySelector("main");
    // What appears comes first, so that a focus that is lost finds it.
    [true, false].forEach((shown) => ACTIONS.forEach((action, n) => {
      buttons[n].setAttribute("aria-label", `${action.label} ${longName(job)}`);
      if (action.possible(job) === shown) show(buttons[n], shown, heir);
    }));
  };
  return box;
}

/** The button is not disabled meanwhile: it would lose the focus. */
async function perform(action, job, button, done) {
  const name = jobName(job);
  if (button.busy) return;
  if (action.words && !(await ask({ title: `${action.label} ${name}?`, words: action.words, yes: action.yes, danger: true }))) return;
  button.busy = true;
  try {
    await put("/v1/jobs/job", { uuid: job.uuid, ...action.change });
    say(`${action.label}: ${name}, asked for.`);
  } catch (error) {
    say(`${action.label} of ${name} is not possible: ${error.message}`, false);
  } finally {
    button.busy = false;
    done(action.id);
  }
}

/** The counts of a job's dates: a bar to see, words to read. */
export function counts(box, dates) {
  const parts = [["good", "loaded", dates.success], ["busy", "running", dates.running], ["bad", "failed", dates.error], ["quiet", "waiting", dates.waiting]];
  const all = parts.reduce((sum, [, , n]) => sum + n, 0);
  box.className = "counts";
  if (!box.firstChild) box.append(element("span", { className: "bar", ariaHidden: "true" }), element("span", {}));
  const shape = JSON.stringify(dates);
  if (box.shape === shape) return;
  box.shape = shape;
  const pieces = parts.filter(([, , n]) => n > 0).map(([look, , n]) => {
    const piece = element("span", { className: look });
    piece.style.flexGrow = n;
    return piece;
  });
  box.firstChild.replaceChildren(...pieces);
  text(box.lastChild, all ? parts.filter(([, , n]) => n > 0).map(([, word, n]) => `${n} ${word}`).join(" · ") : "no dates yet");
}

/** Says what has changed since the jobs were seen last. */
export function tellChanges(before, jobs) {
  for (const job of jobs) {
    const was = before.get(job.uuid);
    const is = `${jobLook(job.status)[1]} ${request(job)}`.trim();
    if (was !== undefined && was !== is) announce(`${jobName(job)}: ${is}`);
    before.set(job.uuid, is);
  }
}
