// The months of a load, one table each: a day's colour, and its word, say how its run stands.

import { element, keyed, text } from "./dom.js";
import { runLook } from "./states.js";

const DAY = 86400000;
const WEEKDAYS = [["Mo", "Monday"], ["Tu", "Tuesday"], ["We", "Wednesday"], ["Th", "Thursday"], ["Fr", "Friday"], ["Sa", "Saturday"], ["Su", "Sunday"]];
const MONTH = new Intl.DateTimeFormat("en", { month: "long", year: "numeric", timeZone: "UTC" });

const iso = (at) => new Date(at).toISOString().slice(0, 10);

/** The months with runs, newest first: `{ month: "2026-11", days: Map(date → run) }`. */
export function monthsOf(job, runs) {
  const months = new Map();
  for (const run of runs) {
    const month = run.date.slice(0, 7);
    if (!months.has(month)) months.set(month, { month, days: new Map() });
    months.get(month).days.set(run.date, run);
  }
  return [...months.values()].sort((a, b) => (a.month < b.month ? 1 : -1));
}

/** Draws months; `choose(date)` is called for a day that people go to. */
export function calendar(parent, months, choose) {
  keyed(parent, months, (m) => m.month, (m) => makeMonth(m, choose), updateMonth);
}

function makeMonth({ month }, choose) {
  const first = Date.parse(`${month}-01`);
  const monday = first - ((new Date(first).getUTCDay() + 6) % 7) * DAY;
  const body = element("tbody");
  for (let week = monday; week === monday || iso(week).startsWith(month); week += 7 * DAY) {
    const days = Array.from({ length: 7 }, (_, n) => iso(week + n * DAY));
    body.append(element("tr", {}, ...days.map((date) => (date.startsWith(month) ? makeDay(date, choose) : element("td", { className: "other" })))));
  }
  const head = WEEKDAYS.map(([short, long]) => element("th", { scope: "col" }, element("abbr", { title: long }, short)));
  return element("table", { className: "month" }, element("caption", {}, MONTH.format(first)), element("thead", {}, element("tr", {}, ...head)), body);
}

function makeDay(date, choose) {
  const day = String(Number(date.slice(8)));
  const button = element("button", { type: "button", hidden: true }, element("span", {}, day), element("span", { className: "word" }));
  button.addEventListener("click", () => choose(date));
  return element("td", { data: { date } }, button, element("span", { className: "day" }, day));
}

function updateMonth(table, { days }) {
  for (const cell of table.querySelectorAll("[data-date]")) {
    const run = days.get(cell.dataset.date);
    const [button, plain] = cell.children;
    button.hidden = !run;
    plain.hidden = Boolean(run);
    if (!run) continue;
    const [look, words, short] = runLook(run.status);
    button.className = look;
    text(button.lastChild, short);
    button.setAttribute("aria-label", `${run.date}: ${words}`);
  }
}
