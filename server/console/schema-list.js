// All schemas: the page that lists them, and forms that offer them.

import { get } from "./api.js";

/** `[{ log_name, version, posted_at }]`, by log, the newest version last. */
export async function allSchemas() {
  return (await get("/v1/schema")).schemas;
}

export const schemaPath = ({ log_name, version }) => `${encodeURIComponent(log_name)}/${encodeURIComponent(version)}`;

/** What comes after the newest version of a log: 1 for a new log. */
export function nextVersion(schemas, log) {
  const numbers = schemas.filter((schema) => schema.log_name === log).map((schema) => Number(schema.version)).filter(Number.isInteger);
  return numbers.length ? Math.max(...numbers) + 1 : 1;
}
