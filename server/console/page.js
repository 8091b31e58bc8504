// What all pages about loads share: the state of the connection, messages, questions, and being live.

import { ApiError, Unreachable, events, forgetToken, hasToken } from "./api.js";
import { $, element, text } from "./dom.js";
import * as format from "./format.js";

// Several dates that change at once are one refresh.
const GATHER = 150;
// With the event stream, for what it does not tell; without it, instead of it.
const RARELY = 30000;
const OFTEN = 3000;
const LONGEST_WAIT = 30000;

/**
 * Keeps a page fresh: `refresh` is called at once, whenever the server tells of a change that is `of` interest, and from
 * time to time. While nobody sees the page it holds no connection: a browser has six for one server.
 */
export function live(refresh, of = () => true) {
  let timer = null, busy = false, open = false, answered = null, next = 0, stream = null;
  const soon = (wait) => {
    const at = Date.now() + wait;
    if (timer !== null && next <= at) return;
    clearTimeout(timer);
    [timer, next] = [setTimeout(run, wait), at];
  };
  async function run() {
    timer = null;
    if (document.hidden) return;
    if (busy) return soon(GATHER);
    busy = true;
    try {
      await refresh();
      answered = Date.now();
      connection(open ? "running" : "starting", open ? "live" : `every ${OFTEN / 1000} s`);
      banner("");
    } catch (error) {
      const since = answered ? ` since ${format.time(answered)}` : "";
      connection("away", error instanceof Unreachable ? "no answer" : "not well");
      banner(error instanceof Unreachable ? `No answer from Millstream${since}. Trying again.` : error.message);
      // A stream over a network that is gone may not end by itself.
      if (error instanceof Unreachable) stream?.abort();
      else if (!(error instanceof ApiError)) console.error(error);
    } finally {
      busy = false;
      $("sign-out").hidden = !hasToken();
      soon(open ? RARELY : OFTEN);
    }
  }
  async function listen() {
    for (let wait = 1000; ; wait = Math.min(wait * 2, LONGEST_WAIT)) {
      await seen();
      stream = new AbortController();
      const hide = () => document.hidden && stream.abort();
      document.addEventListener("visibilitychange", hide);
      try {
        for await (const event of events(stream.signal)) {
          open = true;
          wait = 1000;
          if (event === null || of(event)) soon(GATHER);
        }
      } catch { /* as when it ends: polling goes on */ }
      document.removeEventListener("visibilitychange", hide);
      open = false;
      if (!document.hidden) {
        soon(GATHER);
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
  }
  document.addEventListener("visibilitychange", () => !document.hidden && soon(0));
  soon(0);
  listen();
  return () => soon(0);
}

function seen() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
  });
}

function connection(state, words) {
  $("state").dataset.state = state;
  text($("state-text"), words);
}

function banner(message) {
  $("banner").hidden = !message;
  text($("banner"), message);
}

// ---- telling

/** For those who hear the page: what changed without being asked for. */
export function announce(words) {
  if (words) $("announce").append(element("p", {}, words));
  while ($("announce").children.length > 5) $("announce").firstChild.remove();
}

/** For everybody: how what was asked for went. */
export function say(words, well = true) {
  const place = $("message");
  place.className = `message ${well ? "good" : "bad"}`;
  place.hidden = !words;
  place.replaceChildren(words);
}

/** A question before something is done. */
export function ask({ title, words, yes, danger = false }) {
  const dialog = $("confirm");
  text($("confirm-title"), title);
  text($("confirm-text"), words);
  text($("confirm-yes"), yes);
  $("confirm-yes").className = danger ? "danger" : "primary";
  dialog.returnValue = "";
  dialog.showModal();
  $("confirm-no").focus();
  return new Promise((resolve) => {
    $("confirm-yes").onclick = () => dialog.close("yes");
    $("confirm-no").onclick = () => dialog.close("");
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

// ---- forms

/**
 * Shows what is wrong at the field it names (`field: what`, also `additional_arguments.field: what`), and what names none
 * above the form; the first one gets the focus.
 */
export function showProblems(form, problems) {
  const left = [];
  clearProblems(form);
  for (const problem of problems) {
    const [, name, what] = problem.match(/^(?:\w+\.)*(\w+): (.*)$/s) ?? [];
    const field = name && form.querySelector(`[name="${name}"]`);
    const place = field && $(`${form.dataset.prefix}-${name.replaceAll("_", "-")}-error`);
    if (!place) left.push(problem);
    else {
      place.textContent += (place.textContent ? "; " : "") + what;
      place.hidden = false;
      field.setAttribute("aria-invalid", "true");
    }
  }
  const above = form.querySelector(".form-error");
  above.hidden = left.length === 0;
  above.replaceChildren(...left.map((problem) => element("p", {}, problem)));
  (form.querySelector("[aria-invalid=true]") ?? above).focus();
}

export function clearProblems(form) {
  form.querySelectorAll("[aria-invalid]").forEach((field) => field.removeAttribute("aria-invalid"));
  form.querySelectorAll(".field-error").forEach((place) => {
    place.textContent = "";
    place.hidden = true;
  });
  form.querySelector(".form-error").hidden = true;
}

$("sign-out").addEventListener("click", forgetToken);
$("sign-out").hidden = !hasToken();
const tick = () => {
  const now = new Date();
  text($("clock"), format.time(now));
  $("clock").dateTime = now.toISOString();
};
tick();
setInterval(tick, 1000);
