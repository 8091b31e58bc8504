// The form for a new load.

import { get, post } from "./api.js";
import { $, options } from "./dom.js";
import { clearProblems, live, showProblems } from "./page.js";
import { allSchemas } from "./schema-list.js";

const form = $("new");
let schemas = [];

// What is chosen and typed stays; only the choices are kept up to date.
live(async () => {
  const [all, { clusters }] = await Promise.all([allSchemas(), get("/v1/clusters")]);
  schemas = all;
  const names = [...new Set(schemas.map((schema) => schema.log_name))];
  options($("n-log-name"), names.length ? names : [["", "no schema yet"]]);
  versions();
  options($("n-redshift-id"), clusters.length ? clusters.map((cluster) => cluster.redshift_id) : [["", "no cluster yet"]]);
}, () => false);

function versions() {
  const of = schemas.filter((schema) => schema.log_name === $("n-log-name").value).map((schema) => schema.version);
  // The newest comes first, as it is what people mostly want.
  options($("n-log-schema-version"), of.length ? of.reverse() : [["", "no version yet"]]);
}

/** The form as the API wants it; what is empty is left out. */
function asked() {
  const all = new FormData(form);
  const value = (name) => all.get(name)?.trim() || undefined;
  const number = (name) => value(name) && Number(value(name));
  const boxes = [...form.elements.notify];
  const notify = boxes.filter((box) => box.checked).map((box) => box.value);
  return {
    log_name: value("log_name"), log_schema_version: value("log_schema_version"), s3_path: value("s3_path"),
    redshift_id: value("redshift_id"), start_date: value("start_date"), end_date: value("end_date"), log_format: "json",
    contact_emails: (value("contact_emails") ?? "").split(/[,;\s]+/).filter(Boolean),
    additional_arguments: {
      available_after: value("available_after"), max_errors: number("max_errors"), parallelism: number("parallelism"),
      retention_days: number("retention_days"), vacuum: value("vacuum"),
      force: all.has("force") || undefined,
      notify: notify.length < boxes.length ? notify : undefined,
    },
  };
}

$("n-log-name").addEventListener("change", versions);
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  clearProblems(form);
  try {
    const { post_accepted: { uuid } } = await post("/v1/jobs", asked());
    location.assign(`/loads/${encodeURIComponent(uuid)}`);
  } catch (error) {
    showProblems(form, error.problems ?? [error.message]);
  }
});

// From the page of a schema.
const wanted = new URLSearchParams(location.search);
if (wanted.has("log")) {
  options($("n-log-name"), [wanted.get("log")]);
  options($("n-log-schema-version"), [wanted.get("version") ?? ""]);
}
