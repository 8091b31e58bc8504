// What the server makes of a schema's text: its tables, or what is wrong with it and where.

import { post } from "./api.js";
import { element } from "./dom.js";

const FLAGS = [["is_foreign", "path from the root"], ["is_json", "as JSON"], ["is_mandatory", "mandatory"], ["is_derived", "derived"], ["is_noop", "not written"]];

/** `{ tables, ddl, warnings, problems }`; a problem has its `line` and `column`, from 1, where the server knows them. */
export async function check(yaml) {
  const nothing = { tables: [], ddl: [], warnings: [], problems: [] };
  try {
    const found = await post("/v1/schema/check", yaml);
    return { ...nothing, ...found, warnings: placed(found.warnings ?? []) };
  } catch (error) {
    if (error.status !== 422) throw error;
    return { ...nothing, problems: placed(error.problems) };
  }
}

/** Problems as texts, `line:column: words`, taken apart. */
export function placed(problems) {
  return problems.map((problem) => {
    const [, line, column, words] = problem.match(/^(\d+):(\d+): (.*)$/s) ?? [];
    return line ? { line: Number(line), column: Number(column), words } : { words: problem };
  });
}

/** A table of the schema as a card. */
export function tableOf({ name, src, src_type, sortkey, columns }) {
  const about = [
    src ? `one row for ${src_type === "dict" ? "the object" : src_type === "list" ? "each element of" : "each key of"} ${src}` : "one row per line",
    sortkey?.length ? `sorted by ${sortkey.join(", ")}` : "",
  ];
  const head = ["Column", "Type", "From", "Notes"].map((word) => element("th", { scope: "col" }, word));
  const rows = columns.map((column) => element("tr", {},
    element("th", { scope: "row" }, column.name), element("td", {}, column.sql_attr), element("td", {}, column.log_key),
    element("td", {}, FLAGS.filter(([flag]) => column[flag]).map(([, words]) => words).join(", "))));
  const id = `table-${name}`;
  return element("section", { className: "card", attributes: { "aria-labelledby": id } },
    element("div", { className: "card-head" }, element("h2", { id }, name), element("p", { className: "hint" }, about.filter(Boolean).join("; "))),
    element("div", { className: "table-wrap", tabIndex: 0, attributes: { role: "region", "aria-label": `Columns of ${name}; scrolls sideways` } },
      element("table", {}, element("caption", { className: "visually-hidden" }, `Columns of the table ${name}`),
        element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows))));
}
