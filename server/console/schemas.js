// The list of schemas.

import { $, element, fill, keyed, show, time } from "./dom.js";
import { live } from "./page.js";
import { allSchemas, schemaPath } from "./schema-list.js";

const body = $("schemas").tBodies[0];
body.fallback = $("main");

live(async () => {
  const logs = new Map();
  for (const schema of await allSchemas()) {
    if (!logs.has(schema.log_name)) logs.set(schema.log_name, []);
    logs.get(schema.log_name).unshift(schema);
  }
  keyed(body, [...logs], ([log]) => log, makeRow, updateRow);
  show($("schemas"), logs.size > 0, () => $("main"));
  $("nothing").hidden = logs.size > 0;
}, () => false);

function makeRow([log]) {
  const cell = (label, ...children) => element("td", { data: { label }, attributes: { role: "cell" } }, ...children);
  const row = element("tr", { attributes: { role: "row" } });
  const parts = { versions: element("span", { className: "versions" }), posted: element("span", {}) };
  const next = element("a", { className: "button", href: `/schemas/new?log=${encodeURIComponent(log)}`, attributes: { "aria-label": `Next version of ${log}` } }, "Next version");
  row.append(
    element("th", { scope: "row", attributes: { role: "rowheader" } }, log),
    cell("Versions", parts.versions), cell("Last posted", parts.posted), cell("What to do", element("span", {}, next)),
  );
  return Object.assign(row, { parts });
}

function updateRow({ parts }, [log, versions]) {
  fill(parts.versions, versions, (schema) =>
    element("a", { className: "button", href: `/schemas/${schemaPath(schema)}`, attributes: { "aria-label": `${log} version ${schema.version}` } }, schema.version));
  parts.posted.replaceChildren(time(versions[0].posted_at, versions[0].posted_at.slice(0, 16).replace("T", " ")));
}
