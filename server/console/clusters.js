// Clusters: listed, added, changed, forgotten.

import { get, post, put, remove } from "./api.js";
import { $, element, keyed, show, text } from "./dom.js";
import { ask, clearProblems, live, say, showProblems } from "./page.js";

const form = $("cluster");
const body = $("clusters").tBodies[0];
const path = (name) => `/v1/clusters/${encodeURIComponent(name)}`;
let editing = null; // the name of the cluster that is changed; null: a new one

body.fallback = $("add");

const refresh = live(async () => {
  const { clusters } = await get("/v1/clusters");
  keyed(body, clusters, (cluster) => cluster.redshift_id, makeRow, updateRow);
  show($("clusters"), clusters.length > 0, () => $("add"));
  $("nothing").hidden = clusters.length > 0;
}, () => false);

function makeRow({ redshift_id: name }) {
  const cell = (label, ...children) => element("td", { data: { label }, attributes: { role: "cell" } }, ...children);
  const button = (word, className, act) => {
    const made = element("button", { type: "button", className, attributes: { "aria-label": `${word} ${name}` } }, word);
    made.addEventListener("click", act);
    return made;
  };
  const row = element("tr", { attributes: { role: "row" } });
  const cells = ["Kind", "Database", "User, password in", "Staging"].map((label) => cell(label));
  row.append(
    element("th", { scope: "row", attributes: { role: "rowheader" } }, name), ...cells,
    cell("What to do", element("div", { className: "actions" },
      button("Edit", "", () => edit(row.cluster)), button("Delete", "danger-quiet", () => forget(name)))),
  );
  return Object.assign(row, { cells_: cells });
}

function updateRow(row, cluster) {
  row.cluster = cluster;
  const { dialect, host, port, database, namespace, user, password_env, staging } = cluster;
  const tls = cluster.tls === true ? ", TLS" : cluster.tls === false ? ", no TLS" : "";
  const words = [
    (dialect === "postgres" ? "PostgreSQL" : "Redshift") + tls, `${host}:${port}/${database}, schema ${namespace}`,
    password_env ? `${user}, ${password_env}` : user, staging || "–",
  ];
  words.forEach((value, n) => text(row.cells_[n], value));
}

// ---- the dialog

function edit(cluster) {
  editing = cluster?.redshift_id ?? null;
  clearProblems(form);
  form.reset();
  const values = cluster ?? { dialect: "redshift", port: 5439 };
  for (const field of form.elements) if (field.name) field.value = String(values[field.name] ?? "");
  form.elements.redshift_id.readOnly = editing !== null;
  text($("edit-title"), editing ? `Change ${editing}` : "Add a cluster");
  text($("edit-save"), editing ? "Save" : "Add it");
  $("edit").showModal();
  (editing ? form.elements.host : form.elements.redshift_id).focus();
}

/** The form as the API wants it: what is empty is left out. */
function asked() {
  const filled = [...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value);
  const cluster = Object.fromEntries(filled);
  if (cluster.port) cluster.port = Number(cluster.port);
  if (cluster.tls) cluster.tls = cluster.tls === "true";
  return cluster;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  clearProblems(form);
  try {
    const cluster = asked();
    await (editing ? put(path(editing), cluster) : post("/v1/clusters", cluster));
    $("edit").close();
    say(`${cluster.redshift_id} is ${editing ? "changed" : "registered"}.`);
    refresh();
  } catch (error) {
    showProblems(form, error.problems ?? [error.message]);
  }
});

async function forget(name) {
  const words = "Loads that are over keep its name. Nothing in the warehouse changes.";
  if (!(await ask({ title: `Delete the cluster ${name}?`, words, yes: "Delete it", danger: true }))) return;
  try {
    await remove(path(name));
    say(`${name} is forgotten.`);
  } catch (error) {
    say(error.message, false);
  }
  refresh();
}

$("add").addEventListener("click", () => edit(null));
$("edit-back").addEventListener("click", () => $("edit").close());
// Redshift and PostgreSQL listen elsewhere; a port that someone chose stays.
form.elements.dialect.addEventListener("change", ({ target }) => {
  const usual = { redshift: "5439", postgres: "5432" };
  if (Object.values(usual).includes(form.elements.port.value)) form.elements.port.value = usual[target.value];
});
