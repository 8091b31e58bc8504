// Asks the API. Where it wants a token, a dialog asks for it; it is kept in sessionStorage, so for this tab only.

import { $ } from "./dom.js";

const PATIENCE = 20000;
const KEPT = "millstream token";

export class ApiError extends Error {
  constructor(status, body) {
    super(body.error ?? `the answer was ${status}`);
    this.status = status;
    this.problems = body.problems ?? [this.message];
    this.body = body;
  }
}

/** There was no answer at all. */
export class Unreachable extends Error {}

function unreachable(error) {
  throw new Unreachable(error.message);
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);
export const put = (path, body) => call("PUT", path, body);
export const remove = (path) => call("DELETE", path);

/** An object is sent as JSON, a text as it is. Answers are JSON where they say so, and text otherwise. */
export async function call(method, path, body) {
  const raw = typeof body === "string";
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = raw ? "text/plain; charset=utf-8" : "application/json";
  const request = () => ({ method, headers, body: raw || body === undefined ? body : JSON.stringify(body), signal: AbortSignal.timeout(PATIENCE) });
  const answer = await authorized(path, request);
  const json = answer.headers.get("content-type")?.includes("json");
  const read = await (json ? answer.json() : answer.text()).catch(unreachable);
  if (!answer.ok) throw new ApiError(answer.status, typeof read === "string" ? { error: read } : read);
  return read;
}

/** The events of `/v1/events`, until the stream ends. `EventSource` cannot send a token, so the stream is read here. */
export async function* events(signal) {
  const answer = await authorized("/v1/events", () => ({ headers: { accept: "text/event-stream" }, signal }));
  if (!answer.ok) throw new ApiError(answer.status, {});
  yield null; // it is open
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value.replaceAll("\r\n", "\n")).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) yield JSON.parse(data);
    }
  }
}

async function authorized(path, request) {
  for (;;) {
    const token = sessionStorage.getItem(KEPT);
    const { headers, ...rest } = request();
    const shown = token ? { ...headers, authorization: `Bearer ${token}` } : headers;
    const answer = await fetch(path, { ...rest, headers: shown }).catch(unreachable);
    if (answer.status !== 401) return answer;
    await login(token);
  }
}

// ---- the token

let asking = null;

/** Asks once for all requests that wait. A token that another request has got meanwhile is taken. */
function login(refused) {
  const known = sessionStorage.getItem(KEPT);
  if (known && known !== refused) return Promise.resolve();
  asking ??= askForToken(refused !== null).finally(() => (asking = null));
  return asking;
}

function askForToken(wasWrong) {
  const dialog = $("login");
  const field = $("token");
  sessionStorage.removeItem(KEPT);
  $("token-error").textContent = wasWrong ? "This is not the token of this server." : "";
  field.setAttribute("aria-invalid", String(wasWrong));
  field.value = "";
  document.querySelectorAll("dialog[open]").forEach((open) => open !== dialog && open.close());
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    dialog.oncancel = (event) => event.preventDefault(); // nothing works without it
    $("login-form").onsubmit = (event) => {
      event.preventDefault();
      const token = field.value.trim();
      if (!token) return;
      sessionStorage.setItem(KEPT, token);
      dialog.close();
      resolve();
    };
  });
}

export const hasToken = () => sessionStorage.getItem(KEPT) !== null;

export function forgetToken() {
  sessionStorage.removeItem(KEPT);
  location.reload();
}
