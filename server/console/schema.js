// One schema: its tables and columns, and its text. It never changes, so the page asks once.

import { get } from "./api.js";
import { $, fill, text } from "./dom.js";
import { live, say } from "./page.js";
import { check, tableOf } from "./schema-tables.js";

const [log, version] = location.pathname.split("/").slice(2).map(decodeURIComponent);
const of = `log=${encodeURIComponent(log)}`;
let schema = null;

text($("name"), `${log} version ${version}`);
document.title = `Schema of ${log} version ${version} · Millstream`;
$("next").href = `/schemas/new?${of}&from=${encodeURIComponent(version)}`;
$("load").href = `/loads/new?${of}&version=${encodeURIComponent(version)}`;

live(async () => {
  if (schema) return;
  const found = await get(`/v1/schema/${encodeURIComponent(log)}/${encodeURIComponent(version)}`);
  text($("posted"), `posted ${found.posted_at.slice(0, 16).replace("T", " ")}; it never changes`);
  text($("yaml"), found.yaml);
  const { tables, ddl } = await check(found.yaml);
  fill($("tables"), tables, tableOf);
  text($("ddl"), ddl.join("\n\n"));
  $("ddl-card").hidden = ddl.length === 0;
  schema = found;
}, () => false);

$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("yaml").textContent);
    say("The schema is on the clipboard.");
  } catch {
    getSelection().selectAllChildren($("yaml"));
    say("The browser keeps the clipboard to itself; the text is selected instead.", false);
  }
});
